"""Which post-processing helps which class: tried on masks of cases that their model had not seen, kept where it does.

The tables of the evaluation stay those of the masks as the networks gave them. What a choice gains is told twice:
on the cases that it was made on, which flatters it, and on each fold with the choice made on the other folds.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.labels import IGNORE, Labels
from pipeline.machine import Machine
from pipeline.parallel import Failure, Job, map_cases
from pipeline.postprocess.base import PostProcess
from pipeline.postprocess.components import LargestComponent
from pipeline.postprocess.holes import FillHoles
from pipeline.progress import Progress

Chain = tuple[int, ...]
"""Candidates that are applied one after the other, by their numbers; empty for the mask as it is."""
Spacing = tuple[float, float, float]

_LEAST_GAIN = 1e-4
"""Of the mean Dice: less is noise, and a rule less is a rule less to explain."""
_BYTES_PER_VOXEL = 16


@dataclass(frozen=True)
class MendJob:
    """A predicted mask and its reference."""

    case_id: str
    prediction: Path
    reference: Path
    fold: int
    annotated: tuple[str, ...] | None = None
    voxels: int = 0


def usual_candidates() -> tuple[PostProcess, ...]:
    """Return what is tried where the config names nothing: the largest component, and filled holes."""
    return LargestComponent(), FillHoles()


def choose_postprocess(
    jobs: Sequence[MendJob], labels: Labels, candidates: Sequence[PostProcess], *, machine: Machine, progress: Progress
) -> dict[str, Any]:
    """Try every chain of candidates on every class and keep, for each class, the best where it raises mean Dice.

    It is kept only where the mean also rises with the chain for each fold chosen on the other folds: a gain that
    does not carry over from fold to fold will not carry over to new patients.

    A class that a case does not have counts 1 where nothing is predicted and 0 where something is, so that what
    removes false findings is seen to help.

    Args:
        jobs: Out-of-fold predictions only; a choice made on training cases would be worth nothing.
        labels: Meaning of the values.
        candidates: Rules to try, in the order in which they would be applied; `classes` of theirs restricts them.
        machine: How many cases at once.
        progress: Shows a bar.

    Returns:
        `chosen`: the rules to apply, each for one class; `classes`: by class with a gain, the `steps`, whether
        they are `kept`, and the mean Dice `raw`, `mended` (on the same cases) and `mended_nested` (chosen on other
        folds; None with a single fold); `raw`: by class the mean Dice of the masks as they were, and `tried`: the
        candidates; `cases`: how many.
        Cases whose masks cannot be read take no part.
    """
    work = [
        Job(job.case_id, (job.prediction, job.reference, job.annotated), _BYTES_PER_VOXEL * job.voxels) for job in jobs
    ]
    found = map_cases(
        partial(dice_of_chains, labels=labels, candidates=tuple(candidates)), work, workers=machine.worker_count(),
        memory_bytes=machine.memory_bytes(), what="try post-processing", progress=progress,
    )  # fmt: skip
    scores = {job.case_id: found[job.case_id] for job in jobs if not isinstance(found[job.case_id], Failure)}
    folds = {job.case_id: job.fold for job in jobs}
    chosen: list[dict[str, Any]] = []
    classes: dict[str, Any] = {}
    before: dict[str, float] = {}
    for index, name in enumerate(labels.classes[1:], 1):
        table = {case_id: by_class[index] for case_id, by_class in scores.items() if index in by_class}
        best = _best(table.values())
        if table:
            before[name] = _mean(table.values(), ())
        if not best:
            continue
        steps = [_only(candidates[number], index).model_dump(mode="json") for number in best]
        raw, nested = _mean(table.values(), ()), _nested(table, folds)
        carries_over = nested is None or nested >= raw + _LEAST_GAIN
        chosen += steps if carries_over else []
        classes[name] = {
            "steps": steps,
            "kept": carries_over,
            "raw": raw,
            "mended": _mean(table.values(), best),
            "mended_nested": nested,
            "cases": len(table),
        }
    return {
        "chosen": chosen,
        "classes": classes,
        "raw": before,
        "tried": [one.model_dump(mode="json") for one in candidates],
        "cases": len(scores),
        "chosen_on": "out-of-fold predictions",
    }


def dice_of_chains(
    prediction: Path,
    reference: Path,
    annotated: Sequence[str] | None,
    *,
    labels: Labels,
    candidates: Sequence[PostProcess],
) -> dict[int, dict[Chain, float]]:
    """Return class index -> chain -> Dice; made for child processes."""
    from pipeline.imaging.read import read_label

    guess = read_label(prediction, labels, case_id=prediction.name)
    truth = read_label(reference, labels, case_id=prediction.name, like=guess.geometry)
    known = [name for name in labels.classes[1:] if annotated is None or name in annotated]
    indices = [labels.classes.index(name) for name in known]
    return {
        index: _chains_of_class(guess.voxels[0], truth.voxels[0], index, candidates, guess.geometry.spacing_mm)
        for index in indices
    }


def _chains_of_class(
    guess: NDArray[np.uint8], truth: NDArray[np.uint8], index: int, candidates: Sequence[PostProcess], spacing: Spacing
) -> dict[Chain, float]:
    """Apply every chain to one class; no candidate changes voxels of other classes."""
    counted, real = truth != IGNORE, truth == index
    fitting = [number for number, one in enumerate(candidates) if index in (getattr(one, "classes", ()) or (index,))]
    scores: dict[Chain, float] = {}
    for chain in _chains(fitting):
        mended = guess
        for number in chain if (guess == index).any() else ():
            mended = _only(candidates[number], index).apply(mended, spacing)
        scores[chain] = _dice((mended == index) & counted, real)
    return scores


def _chains(numbers: Sequence[int]) -> list[Chain]:
    return [chain for count in range(len(numbers) + 1) for chain in itertools.combinations(numbers, count)]


def _only(step: PostProcess, index: int) -> PostProcess:
    """Return a rule for one class alone."""
    return step.model_copy(update={"classes": (index,)})


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def _best(rows: Iterable[Mapping[Chain, float]]) -> Chain:
    """Return the chain of the highest mean, the shortest of equals; the empty one where none gains."""
    table = list(rows)
    if not table:
        return ()
    raw = _mean(table, ())
    best = max(table[0], key=lambda chain: (_mean(table, chain), -len(chain)))
    return best if _mean(table, best) >= raw + _LEAST_GAIN else ()


def _mean(rows: Iterable[Mapping[Chain, float]], chain: Chain) -> float:
    return float(np.mean([row[chain] for row in rows]))


def _nested(table: Mapping[str, Mapping[Chain, float]], folds: Mapping[str, int]) -> float | None:
    """Return the mean Dice where the chain for each fold is chosen on the others; None with a single fold."""
    kept = []
    for fold in sorted({folds[case_id] for case_id in table}):
        others = [row for case_id, row in table.items() if folds[case_id] != fold]
        if not others:
            return None
        chain = _best(others)
        kept += [row[chain] for case_id, row in table.items() if folds[case_id] == fold]
    return float(np.mean(kept)) if kept else None
