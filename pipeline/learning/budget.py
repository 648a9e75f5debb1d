"""From minutes to steps: how many steps a training does in the time that it is given, fixed once."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ModelError
from pipeline.workspace import write_json

TIMED_STEPS = 20
"""Steps after which the length is fixed."""
_BLOCK = 4


@dataclass(frozen=True)
class Costs:
    """What was measured in the first steps; all in seconds of the wall clock."""

    steps: Sequence[float]
    """Each of the timed steps, waiting for data included."""
    elapsed: float
    """Since the training began: timed steps, one validation and one checkpoint included."""
    validation: float
    checkpoint: float


def planned_steps(costs: Costs, *, minutes: float, validation_period: int, checkpoint_period: int) -> int:
    """Return how many steps fit into `minutes`, the timed ones included; never fewer than those.

    A step costs the median of the means of blocks of four timed steps, the first block left out: means, since
    waiting for data comes in turns of the prefetch depth; the median, since another program may disturb one
    block; the first block warms up caches and memory. To each step come its shares of a validation and of a
    checkpoint, and one validation and one checkpoint are reserved for the end.

    Args:
        costs: Measured over the first `TIMED_STEPS` steps.
        minutes: Wall time of the training.
        validation_period: Steps between two validations.
        checkpoint_period: Steps between two checkpoints.
    """
    step = step_seconds(costs.steps) + costs.validation / validation_period + costs.checkpoint / checkpoint_period
    left = 60.0 * minutes - costs.elapsed - costs.validation - costs.checkpoint
    return TIMED_STEPS + max(0, int(left / step))


def step_seconds(steps: Sequence[float]) -> float:
    """Return what one step costs: the median of the means of blocks of four, without the first block."""
    blocks = [steps[start : start + _BLOCK] for start in range(_BLOCK, len(steps) - _BLOCK + 1, _BLOCK)]
    return statistics.median(statistics.fmean(block) for block in blocks)


def write_budget(path: Path, total: int, costs: Costs, minutes: float) -> None:
    """Write down the number of steps and what it came from; `read_budget` reads it at each later start."""
    write_json(
        path,
        {
            "steps": total,
            "max_minutes": minutes,
            "seconds_per_step": round(step_seconds(costs.steps), 6),
            "seconds_per_validation": round(costs.validation, 3),
            "seconds_per_checkpoint": round(costs.checkpoint, 3),
            "seconds_until_planned": round(costs.elapsed, 3),
        },
    )


def read_budget(path: Path) -> int | None:
    """Return the number of steps that was fixed earlier; None where it was not yet.

    Raises:
        ModelError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return int(json.loads(path.read_text())["steps"])
    except (ValueError, KeyError, TypeError):
        raise ModelError(f"{path}: found no number of steps. Remove {path.parent} to train from the start.") from None
