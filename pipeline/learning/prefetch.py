"""Batches made ahead in threads, handed over in order."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

import torch

T = TypeVar("T")


class InOrder(Generic[T]):
    """Calls `make(step)` ahead of time, in threads, for a consumer that asks for one step after the other.

        with InOrder(source.batch, workers=2) as batches:
            for step in range(first, last):
                batch = batches(step)

    Whatever is asked for comes, in any order; what follows the step asked for last is being made meanwhile. At
    most `depth` results are made or wait beside the one in use, so memory is bounded; the last of them, behind
    the end of a training, are made for nothing. An error in `make` is raised where its result would have come,
    with the step noted. Threads do, since kernels, decompression and torch hold no Python lock, and nothing needs
    to be copied between processes.

    Each thread lets torch use one core. With `workers=0` a result is made when it is asked for, in such a thread
    too: every number of workers and every depth gives the same numbers.
    """

    def __init__(self, make: Callable[[int], T], *, workers: int = 1, depth: int | None = None) -> None:
        """Start the threads; nothing is made before the first call.

        Args:
            make: Makes what belongs to a step: a pure function, called from several threads at once.
            workers: Threads; 0 makes nothing ahead.
            depth: Results ahead; None for one more than threads.
        """
        self.waited_seconds = 0.0
        """Time that the consumer has stood waiting."""
        self._make = make
        self._depth = 0 if workers == 0 else (workers + 1 if depth is None else depth)
        self._ahead: deque[tuple[int, Future[T]]] = deque()
        self._threads = _single_core_threads(max(1, workers))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __call__(self, step: int) -> T:
        """Return what belongs to `step`, as soon as it is there; go on with the steps behind it."""
        if not self._ahead or self._ahead[0][0] != step:
            self._forget()
            self._submit(step)
        _, future = self._ahead.popleft()
        for later in range(step + 1 + len(self._ahead), step + 1 + self._depth):
            self._submit(later)
        began = time.perf_counter()
        try:
            return future.result()
        except Exception as error:
            error.add_note(f"while batch {step + 1} was made")
            raise
        finally:
            self.waited_seconds += time.perf_counter() - began

    def close(self) -> None:
        """Drop what was made ahead and end the threads; those at work finish their piece first."""
        self._forget()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _submit(self, step: int) -> None:
        self._ahead.append((step, self._threads.submit(self._make, step)))

    def _forget(self) -> None:
        for _, future in self._ahead:
            future.cancel()
        self._ahead.clear()


def _single_core_threads(count: int) -> ThreadPoolExecutor:
    """Return running threads in which torch uses one core; elsewhere it uses as many as before."""
    before, together = torch.get_num_threads(), threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # the first use in a thread sets its number to the common one; later is too late
        torch.set_num_threads(1)  # of this thread, and the common one too: that part is put back below
        together.wait()

    threads = ThreadPoolExecutor(count, thread_name_prefix="batches", initializer=begin)
    for _ in range(count):  # a thread starts with a task that finds no idle one
        threads.submit(int)
    together.wait()
    torch.set_num_threads(before)
    return threads
