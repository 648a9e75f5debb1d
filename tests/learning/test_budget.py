"""Minutes become the number of steps that really fit."""

from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.learning.budget import TIMED_STEPS, Costs, planned_steps, read_budget, step_seconds, write_budget


def test_the_planned_run_takes_the_given_time() -> None:
    """Play the plan back with the same costs and count the seconds."""
    costs = Costs([0.5] * TIMED_STEPS, elapsed=20 * 0.5 + 6 + 2, validation=6.0, checkpoint=2.0)
    total = planned_steps(costs, minutes=10, validation_period=100, checkpoint_period=50)
    seconds = costs.elapsed
    for step in range(TIMED_STEPS + 1, total + 1):
        seconds += 0.5 + (6.0 if step % 100 == 0 else 0) + (2.0 if step % 50 == 0 else 0)
    seconds += 6.0 + 2.0
    assert 600 - 10 < seconds <= 600


def test_warm_up_and_a_disturbed_moment_do_not_count() -> None:
    steps = [3.0, 1.0, 0.4, 0.3] + [0.2] * 7 + [2.5] + [0.2] * 8
    assert step_seconds(steps) == pytest.approx(0.2)


def test_waiting_in_turns_counts_in_full() -> None:
    assert step_seconds([0.1, 0.1, 0.1, 0.5] * 5) == pytest.approx(0.2)


def test_never_fewer_than_were_timed() -> None:
    costs = Costs([5.0] * TIMED_STEPS, elapsed=100.0, validation=30.0, checkpoint=1.0)
    assert planned_steps(costs, minutes=1, validation_period=10, checkpoint_period=10) == TIMED_STEPS


def test_written_down_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "budget.json"
    assert read_budget(path) is None
    write_budget(path, 1234, Costs([0.5] * TIMED_STEPS, 10.0, 0.0, 0.1), 15)
    assert read_budget(path) == 1234
    path.write_text("{")
    with pytest.raises(ModelError, match="no number of steps"):
        read_budget(path)
