"""Turns every `auto` of a configuration into a value, once, and remembers it; the same rules make a whole plan."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig, check
from pipeline.planner.costs import Device, device_of
from pipeline.planner.known import Known
from pipeline.planner.rules import ONLY_OF, RULES, Choice
from pipeline.provenance import digest
from pipeline.records import DatasetFacts
from pipeline.workspace import write_json

AUTO = "auto.json"
"""What was decided, by the digest of what it was decided from; read back, so that a machine never changes its mind."""


def resolve(config: RunConfig, facts: DatasetFacts, folder: Path, *, write: bool = True) -> RunConfig:
    """Return the configuration with a value for every `auto`.

    Args:
        config: As loaded.
        facts: What survey saw.
        folder: Run folder, in which decisions are remembered.
        write: Whether to remember new ones.
    """
    wanted = left_open(config)
    if not wanted:
        return config
    tree = config.model_dump(mode="json")
    known_from = digest(
        [{key: value for key, value in tree.items() if key != "machine"}, sorted(wanted), facts.model_dump(mode="json")]
    )
    note = folder / AUTO
    decisions = json.loads(note.read_text()) if note.exists() else {}
    if known_from not in decisions:
        _, choices = decide(config, facts, device_of(config.machine), wanted)
        decisions[known_from] = {path: choice.value for path, choice in choices.items()}
        if write:
            write_json(note, decisions)
    for path, value in decisions[known_from].items():
        tree = put(tree, path, value)
    return check(tree, "planned configuration")


def left_open(config: RunConfig) -> frozenset[str]:
    """Return the paths of all values that the planner is to choose."""
    tree = config.model_dump(mode="json")
    return frozenset(path for path in RULES if path in config.left_open or _get(tree, path) == "auto")


def decide(
    config: RunConfig, facts: DatasetFacts, device: Device, wanted: Iterable[str]
) -> tuple[Known, dict[str, Choice]]:
    """Ask the rules, in their order.

    Args:
        config: All other values, which count as stated.
        facts: Of the cases; where there are none, only what follows from the device is chosen.
        device: What training runs on.
        wanted: Paths of the values to choose.

    Returns:
        What is known in the end, with every value in its tree, and the choices by path.
    """
    paths = frozenset(wanted)
    if not facts.facts:
        paths = paths & {"train.precision", "predict.precision"}
    known = Known(config.model_dump(mode="json"), paths, facts, config.task, device)
    choices: dict[str, Choice] = {}
    for path, rule in RULES.items():
        if path not in paths or known.get("network.name") not in ONLY_OF.get(path, (known.get("network.name"),)):
            continue
        choice = rule(known)
        choices[path] = choice
        known = replace(known, tree=put(known.tree, path, choice.value), open=known.open - {path})
    return known, choices


def put(tree: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the tree with a value at `a.b`; another network drops the options of the one before."""
    head, _, rest = path.partition(".")
    if not rest:
        return {**tree, head: value}
    if path == "network.name" and value != _get(tree, path):
        return {**tree, "network": {"name": value}}
    return {**tree, head: put(tree.get(head) or {}, rest, value)}


def _get(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
