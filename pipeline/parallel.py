"""The same function over many cases in child processes, within a memory budget, one failure at a time."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DataError, PipelineError
from pipeline.progress import Progress

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """Work on one case."""

    case_id: str
    arguments: tuple[Any, ...]
    """Given to the function; must survive being sent to another process."""
    memory_bytes: int = 0
    """Estimate of the peak; jobs wait until the sum of what runs fits the budget."""


@dataclass(frozen=True)
class Failure:
    """Why a case failed; the rest went on."""

    case_id: str
    message: str


def map_cases(
    function: Callable[..., Any], jobs: Sequence[Job], *, workers: int, memory_bytes: int, what: str, progress: Progress
) -> dict[str, Any]:
    """Run `function(*job.arguments)` for every job.

    Args:
        function: A module-level function that never imports torch: the children import its module.
        jobs: One a case.
        workers: Child processes; with 1, or with a single job, the work is done in this process.
        memory_bytes: Budget for the sum of the estimates of what runs at once; one job always may.
        what: Word for the progress bar.
        progress: Shows the bar.

    Returns:
        Case id -> what the function returned, or a `Failure` where it raised a `PipelineError` or where
        its process died (the case is tried once more alone first, so that an innocent neighbour is spared).
        Any other exception is a bug and is raised here, with the case named.
    """
    with progress.bar(len(jobs), what) as bar:
        if workers <= 1 or len(jobs) <= 1:
            results = {}
            for job in jobs:
                results[job.case_id] = _here(function, job)
                bar.advance(note=job.case_id)
            return results
        return _in_children(function, jobs, min(workers, len(jobs)), memory_bytes, bar.advance)


def _here(function: Callable[..., Any], job: Job) -> Any:
    try:
        return function(*job.arguments)
    except PipelineError as error:
        return Failure(job.case_id, str(error))
    except MemoryError:
        return Failure(job.case_id, _out_of_memory(job.case_id))


def _in_children(
    function: Callable[..., Any], jobs: Sequence[Job], workers: int, budget: int, advance: Callable[..., None]
) -> dict[str, Any]:
    results: dict[str, Any] = {}
    waiting, suspects = list(jobs), list[Job]()
    while waiting:
        left, died = _one_pool(function, waiting, workers, budget, results, advance)
        waiting, suspects = left, suspects + died
    for job in suspects:
        _, died = _one_pool(function, [job], 1, budget, results, advance)
        if died:
            results[job.case_id] = Failure(job.case_id, _died(job.case_id))
            advance(note=job.case_id)
    return {job.case_id: results[job.case_id] for job in jobs}


def _one_pool(
    function: Callable[..., Any],
    jobs: list[Job],
    workers: int,
    budget: int,
    results: dict[str, Any],
    advance: Callable[..., None],
) -> tuple[list[Job], list[Job]]:
    """Work until all is done or a child dies; return the jobs not begun and those that were running then."""
    waiting, running = list(jobs), dict[Future[Any], Job]()
    context, told = multiprocessing.get_context("spawn"), (os.getpid(), _kernel_folder())
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_in_child, initargs=told) as pool:
        try:
            while waiting or running:
                while waiting and _fits(waiting[0], running, workers, budget):
                    job = waiting.pop(0)
                    running[pool.submit(_here, function, job)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running[future]
                    results[job.case_id] = _result(future, job)
                    del running[future]
                    advance(note=job.case_id)
        except BrokenProcessPool:
            return waiting, list(running.values())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise
    return [], []


def _fits(job: Job, running: dict[Future[Any], Job], workers: int, budget: int) -> bool:
    if not running:
        return True
    return len(running) < workers and sum(other.memory_bytes for other in running.values()) + job.memory_bytes <= budget


def _result(future: Future[Any], job: Job) -> Any:
    error = future.exception()
    if error is not None and not isinstance(error, BrokenProcessPool):
        error.add_note(f"while working on case {job.case_id}")
    return future.result()


def _kernel_folder() -> str:
    """Return where a command chose to keep compiled kernels; nothing where none did."""
    numba = sys.modules.get("numba")
    return str(numba.config.CACHE_DIR) if numba else ""


def _in_child(parent: int, kernel_folder: str) -> None:
    """Prepare a child: it dies with its parent, leaves Ctrl-C to it, uses one thread, and finds compiled kernels."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if kernel_folder:  # told before any kernel is imported
        import numba

        numba.config.CACHE_DIR = kernel_folder
    with suppress(ImportError):
        import SimpleITK

        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _died(case_id: str) -> str:
    return (
        f"case {case_id}: the process that worked on it died without a word, most often because memory ran out "
        "or a native reader crashed on a damaged file. Check the file, or allow less with --max-memory."
    )


def _out_of_memory(case_id: str) -> str:
    return f"case {case_id}: memory ran out. Free some, or work on fewer cases at once with --set machine.workers=1."


def failures(results: dict[str, Any]) -> dict[str, str]:
    """Return case id -> reason for the cases that failed."""
    return {case_id: result.message for case_id, result in results.items() if isinstance(result, Failure)}


def refuse(bad: dict[str, str], remedy: str) -> DataError:
    """Build the one error that names every bad case."""
    lines = "".join(f"\n  - {reason}" for reason in bad.values())
    return DataError(f"{len(bad)} case{'s' if len(bad) > 1 else ''} cannot be used:{lines}\n{remedy}")
