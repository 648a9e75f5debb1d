"""Checkpoints: all that a training needs to go on, on disk so that a kill leaves the old or the new one whole."""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from pipeline.errors import ModelError
from pipeline.learning.weights import read_tensors, write_tensors
from pipeline.provenance import digest
from pipeline.workspace import write_json

log = logging.getLogger(__name__)

FORMAT = 1
KEPT = 2
"""Planned checkpoints that are kept: should the newest turn out damaged, there is one before it."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A training after `step` steps."""

    step: int
    is_planned: bool
    """Whether it lies at the end of an epoch, where each repetition makes one; else a signal or the clock asked."""
    state: dict[str, Any]
    """JSON-able values."""
    tensors: Mapping[str, Tensor]
    """Weights, moments and means by name."""


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write one checkpoint, then remove those that it replaces.

    The tensors come first, under a name that says their content; the JSON, which names them and their sha256,
    is renamed into place last. Its presence means that the checkpoint is whole. What stays: this one, and the
    newest `KEPT` planned ones.

    Args:
        folder: Holds nothing but checkpoints.
        checkpoint: One of the same step is replaced.
    """
    name = f"step-{checkpoint.step:08d}"
    draft = folder / f"{name}-new.safetensors"
    written = write_tensors(draft, checkpoint.tensors)
    file = draft.rename(folder / f"{name}-{written[:12]}.safetensors")
    note = {
        "format": FORMAT,
        "step": checkpoint.step,
        "is_planned": checkpoint.is_planned,
        "tensors": file.name,
        "sha256": written,
        "state_sha256": digest(checkpoint.state),
        "state": checkpoint.state,
    }
    write_json(folder / f"{name}.json", note)
    planned = [note["step"] for note in _notes(folder).values() if note["is_planned"]]
    kept = {checkpoint.step, *planned[-KEPT:]}
    remove_checkpoints(folder, lambda step: step not in kept)


def load_checkpoint(folder: Path, *, only_planned: bool = False) -> Checkpoint | None:
    """Return the newest whole checkpoint; a damaged one is passed over with a warning.

    Args:
        folder: Of the checkpoints; need not exist.
        only_planned: Pass over those that a signal or the clock asked for.

    Returns:
        The checkpoint with its tensors on the CPU, or None where there is none.

    Raises:
        ModelError: there are checkpoints, and every one is damaged.
    """
    notes = _notes(folder)
    problems = [f"{path.name}: unreadable" for path in sorted(folder.glob("step-*.json")) if path not in notes]
    for problem in problems:
        log.warning("checkpoint %s, passed over for an older one", problem)
    for note in reversed(notes.values()):
        if only_planned and not note["is_planned"]:
            continue
        try:
            tensors = read_tensors(folder / note["tensors"], sha256=note["sha256"])
        except ModelError as error:
            log.warning("checkpoint %s, passed over for an older one", error)
            problems.append(str(error))
            continue
        return Checkpoint(note["step"], note["is_planned"], note["state"], tensors)
    if problems:
        raise ModelError(
            f"{folder}: every checkpoint is damaged: {'; '.join(problems)}. Remove this folder to train from the start."
        )
    return None


def remove_checkpoints(folder: Path, which: Callable[[int], bool] = lambda step: True) -> None:
    """Remove the checkpoints of some steps: their JSON first, then every tensors file that no JSON names."""
    for path, note in _notes(folder).items():
        if which(note["step"]):
            path.unlink()
    named = {note["tensors"] for note in _notes(folder).values()}
    for file in folder.glob("*.safetensors"):
        if file.name not in named:
            file.unlink(missing_ok=True)


def _notes(folder: Path) -> dict[Path, dict[str, Any]]:
    """Return what each readable JSON says, oldest first."""
    found = {path: _note(path) for path in sorted(folder.glob("step-*.json"))}
    return {path: note for path, note in found.items() if note is not None}


def _note(path: Path) -> dict[str, Any] | None:
    try:
        note: dict[str, Any] = json.loads(path.read_text())
        known = note["format"] == FORMAT and {"step", "is_planned", "tensors", "sha256", "state"} <= note.keys()
        known = known and note.get("state_sha256") in (None, digest(note["state"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if known else None
