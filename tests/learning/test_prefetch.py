"""Results in order, from any number of threads, with errors and endings."""

import threading
import time

import numpy as np
import pytest
import torch

from pipeline.errors import DataError
from pipeline.learning.prefetch import InOrder


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("depth", [None, 1, 5])
def test_comes_in_order_from_any_number_of_threads(workers: int, depth: int | None) -> None:
    def slow_at_first(step: int) -> int:
        time.sleep(0.003 if step % 3 == 0 else 0)
        return step * step

    with InOrder(slow_at_first, workers=workers, depth=depth) as results:
        assert [results(step) for step in range(4, 20)] == [step * step for step in range(4, 20)]


def test_any_step_may_be_asked_for() -> None:
    with InOrder(lambda step: step, workers=2) as results:
        assert [results(step) for step in (0, 1, 2, 9, 10, 3, 3, 0)] == [0, 1, 2, 9, 10, 3, 3, 0]


@pytest.mark.parametrize(("workers", "depth", "most"), [(0, None, 0), (1, None, 2), (2, None, 3), (2, 1, 1)])
def test_makes_no_more_than_its_depth_ahead(workers: int, depth: int | None, most: int) -> None:
    made: list[int] = []
    with InOrder(made.append, workers=workers, depth=depth) as results:
        for step in range(6):
            results(step)
            time.sleep(0.01)
            assert max(made) <= step + most
        assert max(made) == 5 + most
        assert sorted(made) == list(range(6 + most))


@pytest.mark.parametrize("workers", [0, 2])
def test_error_comes_where_its_result_would_have_come(workers: int) -> None:
    def make(step: int) -> int:
        if step == 3:
            raise DataError("case liver_042: its prepared voxels cannot be read")
        return step

    with InOrder(make, workers=workers) as results:
        assert [results(step) for step in range(3)] == [0, 1, 2]
        with pytest.raises(DataError, match="liver_042") as caught:
            results(3)
        assert caught.value.__notes__ == ["while batch 4 was made"]
        assert results(4) == 4


def test_threads_end_and_leave_torch_as_it_was() -> None:
    before, running = torch.get_num_threads(), threading.active_count()
    inside = []
    with InOrder(lambda step: inside.append(torch.get_num_threads()), workers=2) as results:
        for step in range(5):
            results(step)
        assert torch.get_num_threads() == before
        assert threading.active_count() == running + 2
    assert set(inside) == {1}
    assert threading.active_count() == running
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [before]


def test_waiting_is_measured() -> None:
    with InOrder(lambda _: time.sleep(0.02), workers=1, depth=1) as results:
        for step in range(3):
            results(step)
        waited = results.waited_seconds
        assert 0.04 < waited < 1
        time.sleep(0.05)
        results(3)
        assert results.waited_seconds - waited < 0.015


def test_threads_do_work_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=5)

    def make(step: int) -> np.ndarray:
        together.wait()
        return np.zeros(1)

    with InOrder(make, workers=2, depth=3) as results:
        for step in range(4):
            results(step)
        together.abort()
