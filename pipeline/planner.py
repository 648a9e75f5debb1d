"""Turns every `auto` of a configuration into a value, from facts and capabilities, never from a timing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import RunConfig, check, merge
from pipeline.learning.precision import choose_precision
from pipeline.provenance import digest
from pipeline.records import DatasetFacts
from pipeline.workspace import write_json

_MOST_VOXELS = 64**3
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
    tree = config.model_dump(mode="json")
    wanted = {path: rule for path, rule in _RULES.items() if _get(tree, path) == "auto"}
    if not wanted:
        return config
    known_from = digest(
        [{key: value for key, value in tree.items() if key != "machine"}, facts.model_dump(mode="json")]
    )
    note = folder / AUTO
    decisions = json.loads(note.read_text()) if note.exists() else {}
    if known_from not in decisions:
        decisions[known_from] = {path: rule(config, facts) for path, rule in wanted.items()}
        if write:
            write_json(note, decisions)
    for path, value in decisions[known_from].items():
        tree = merge(tree, _nested(path, value))
    return check(tree, "planned configuration")


def median_spacing(config: RunConfig, facts: DatasetFacts) -> list[float]:
    """Return the median voxel size of the cases along (D, H, W)."""
    spacings = np.array([fact.canonical_spacing_mm for fact in facts.facts.values()])
    return [round(float(value), 3) for value in np.median(spacings, axis=0)]


def usual_patch(config: RunConfig, facts: DatasetFacts) -> list[int]:
    """Return a patch (D, H, W) of the form of the median case, of at most 64 x 64 x 64 voxels.

    Each side is a multiple of what the network's strides ask for.
    """
    spacing = config.ingest.spacing_mm
    target = np.array(median_spacing(config, facts) if spacing in ("auto", None) else spacing, float)
    extents = np.array([np.multiply(one.canonical_shape, one.canonical_spacing_mm) for one in facts.facts.values()])
    divisor = np.array(config.network.divisor())
    sides = np.maximum(1, np.ceil(np.median(extents, axis=0) / target / divisor)) * divisor
    while np.prod(sides) > _MOST_VOXELS:
        widest = np.argmax(np.where(sides > divisor, sides, 0))
        sides[widest] -= divisor[widest]
    return [int(side) for side in sides]


_RULES: dict[str, Callable[[RunConfig, DatasetFacts], Any]] = {
    "ingest.spacing_mm": median_spacing,
    "sample.patch_size": usual_patch,
    "train.precision": lambda config, facts: choose_precision(config.machine.device),
    "predict.precision": lambda config, facts: choose_precision(config.machine.device),
}


def _get(tree: Any, path: str) -> Any:
    for key in path.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _nested(path: str, value: Any) -> dict[str, Any]:
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)
