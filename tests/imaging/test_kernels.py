"""Work is shared without gaps or overlaps, and worker processes keep to one thread."""

import multiprocessing

import numpy as np
import pytest

from pipeline.imaging.kernels import default_threads, in_slices


@pytest.mark.parametrize("count", [1, 2, 7, 100])
@pytest.mark.parametrize("threads", [1, 2, 3, 16])
def test_every_slice_is_done_once(count: int, threads: int) -> None:
    done = np.zeros(count, int)

    def work(first: int, last: int) -> None:
        done[first:last] += 1

    in_slices(work, count, threads)
    assert np.all(done == 1)


def test_an_error_in_a_share_is_raised() -> None:
    def work(first: int, last: int) -> None:
        if first > 0:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        in_slices(work, 10, 2)


def test_one_thread_in_a_worker_process() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(default_threads) == 1
    assert default_threads() >= 1
