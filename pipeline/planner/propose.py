"""A whole plan: what a file states is kept, everything else is chosen by the rules, with its reason and its price."""

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import PLANNED, RunConfig, check
from pipeline.datasets.base import Manifest
from pipeline.errors import ConfigError, plural
from pipeline.planner.costs import Device, device_of
from pipeline.planner.known import Known
from pipeline.planner.page import Plan
from pipeline.planner.resolve import decide, put
from pipeline.planner.rules import ONLY_OF, RULES, STEPS_PER_EPOCH, Choice, expected_steps
from pipeline.progress import clock
from pipeline.records import DatasetFacts

_NO_REMARK = ("network.name", "train.max_minutes", "train.epochs", "train.precision", "predict.precision")
_AT_RUN_TIME = {"train.precision", "predict.precision"}
"""Left `auto` in a plan, so that it suits the machine that it is carried to."""
_KEPT = ("seed", "plugins", "machine", "dataset", "labels", "task")
"""Sections that say what is asked; all others say how, and can be planned anew."""


def starting_tree(manifest_csv: Path) -> dict[str, Any]:
    """Return the little that a manifest states."""
    return {"seed": 0, "dataset": {"name": "manifest", "path": str(manifest_csv)}}


def only_kept(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections that say what is asked, so that all others are planned anew."""
    return {name: value for name, value in tree.items() if name in _KEPT}


def propose(
    tree: Mapping[str, Any], survey: Callable[[RunConfig], DatasetFacts], *, source: str, output: str
) -> tuple[Plan, RunConfig]:
    """Make a plan.

    Args:
        tree: What is stated, as plain values of a YAML file; it wins over every rule.
        survey: Looks at the cases of a configuration.
        source: What the plan is made from, for its first line.
        output: File that it will be written to, for the line that says how to run it.

    Returns:
        The plan, and the configuration that it reads back to.

    Raises:
        ConfigError: what is stated cannot be used.
        DataError: no case can be used.
    """
    stated = _with_task(tree, source)
    config = check(_opened(stated), source)
    facts = survey(config)
    if not facts.facts:
        reasons = "".join(f"\n  - {reason}" for reason in list(facts.bad.values())[:5])
        raise ConfigError(f"plan {source}: none of its cases can be used:{reasons}")
    device = device_of(config.machine)
    known, choices = decide(config, facts, device, _open_paths(stated))
    whole: dict[str, Any] = dict(stated)
    for path, choice in choices.items():
        whole = put(whole, path, _plain(choice.value))
    whole.setdefault("train", {}).setdefault("steps_per_epoch", STEPS_PER_EPOCH)
    why = {path: choice.why for path, choice in choices.items()} | _remarks(stated, known, device)
    ordered = {name: _ordered(name, whole[name]) for name in RunConfig.model_fields if name in whole}
    plan = Plan(ordered, why, _heading(known, source, output))
    return plan, check(ordered, f"plan of {source}")


def _with_task(tree: Mapping[str, Any], source: str) -> dict[str, Any]:
    """State the task where nobody does: segmentation where there are label volumes, else classification."""
    if "task" in tree or "dataset" not in tree:
        return dict(tree)
    manifest: Manifest = check({**only_kept(tree), "network": "auto"}, source).dataset.cases()
    is_labelled = any(case.label is not None for case in manifest.cases)
    if not is_labelled and not any(case.classes for case in manifest.cases):
        raise ConfigError(f"plan {source}: no case has a label volume or a class, so there is nothing to learn.")
    return {**tree, "task": {"name": "segmentation" if is_labelled else "classification"}}


def _open_paths(stated: Mapping[str, Any]) -> set[str]:
    """Return the paths of all values that are not stated, or stated as `auto`."""
    network = stated.get("network", "auto")
    name = "auto" if not isinstance(network, Mapping) else network.get("name", "auto")
    found = set()
    for path in RULES:
        head, _, last = path.partition(".")
        section = stated.get(head)
        is_absent = section is None or section == "auto" if not last else not isinstance(section, Mapping) or (
            section.get(last, "auto") == "auto"
        )  # fmt: skip
        if is_absent and (name == "auto" or name in ONLY_OF.get(path, (name,))):
            found.add(path)
    return found - _AT_RUN_TIME - ({"network.name"} if name != "auto" else set())


def _opened(stated: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is stated with `auto` for every other value, so that it can be checked before it is planned."""
    tree: dict[str, Any] = {name: value for name, value in stated.items() if value != "auto"}
    for path in _open_paths(stated) & {*PLANNED, "ingest.spacing_mm", "sample.patch_size"}:
        head, _, last = path.partition(".")
        tree[head] = {**(tree.get(head) or {}), last: "auto"} if last else "auto"
    return tree


def _remarks(stated: Mapping[str, Any], known: Known, device: Device) -> dict[str, str]:
    """Say of each stated value that a rule would choose another, and why."""
    found = {}
    closed = [path for path in RULES if path not in _open_paths(stated) and path not in _NO_REMARK]
    for path in closed:
        if known.get("network.name") not in ONLY_OF.get(path, (known.get("network.name"),)):
            continue
        choice = RULES[path](replace(known, open=frozenset({path})))
        if _differs(choice, _get(stated, path)):
            found[path] = f"Stated. The planner's choice: {_short(choice.value)}. {choice.why}"
    return found


def _get(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _differs(choice: Choice, stated: Any) -> bool:
    if isinstance(choice.value, Mapping) and isinstance(stated, Mapping):
        return any(stated.get(key) != value for key, value in choice.value.items())
    return bool(_plain(choice.value) != _plain(stated))


def _heading(known: Known, source: str, output: str) -> list[str]:
    """Say what the plan was made from and what it costs."""
    cases, device = known.facts.manifest.cases, known.device
    what = f"{plural(len(cases), 'case')} of {plural(len({case.patient for case in cases}), 'group')}"
    lines = [f"Planned from {source}: {what}, for {device.text()}."]
    if known.facts.bad:
        lines.append(f"{plural(len(known.facts.bad), 'case')} cannot be used; 'python -m pipeline check' names them.")
    cost = known.cost(known.get("sample.patch_size"), known.get("train.batch_size"))
    if cost is None:
        lines.append("Memory and time of a step are not predicted: this network's shapes need data to be followed.")
    else:
        steps = expected_steps(known)
        length = "" if steps is None else f"; about {steps} steps, {clock(steps * cost.seconds)} a fold"
        lines.append(
            f"Predicted for a training step: {cost.memory_bytes / 1e9:.2g} GB of memory, {_seconds(cost.seconds)}"
            f" ({cost.parameters / 1e6:.3g} million weights, {cost.multiply_adds / 1e9:.3g} G multiply-adds forward)"
            f"{length}."
        )
    return [*lines, f"Run it: python -m pipeline run {shlex.quote(str(output))} (--folds 0: the first fold alone)"]


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def _ordered(name: str, section: Any) -> Any:
    """Put the name of a plug-in first, and values in the order of the model's fields where there is one."""
    if not isinstance(section, Mapping):
        return section
    model = RunConfig.model_fields[name].annotation
    fields = list(getattr(model, "model_fields", {})) if isinstance(model, type) else []
    place = {key: number for number, key in enumerate(["name", *fields])}
    return dict(sorted(section.items(), key=lambda item: place.get(str(item[0]), math.inf)))


def _plain(value: Any) -> Any:
    """Turn tuples into lists, as YAML has them."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_short(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_short(inner) for inner in value) + "]"
    return "null" if value is None else str(value)
