"""Interleaved timings, peak memory of a step, and the Markdown rows that benchmarks print."""

import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Job = Callable[[], Any]


def interleaved(jobs: Mapping[str, Job], repeats: int, *, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of each job, taken in turns, so that other load on the machine falls on all of them."""
    if warm:
        for job in jobs.values():
            job()
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            times[name].append(time.perf_counter() - started)
    return times


def seconds(job: Job) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


def extra_mib(job: Job) -> float:
    """Peak of resident memory while `job` runs, less what was resident before, in MiB; Linux."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    kept = job()
    peak = _status("VmHWM")
    del kept
    return (peak - before) / 1024


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a module-level function in a fresh process, so that one job's memory does not count for the next."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def ratio(times: Mapping[str, list[float]], ours: str, theirs: str) -> str:
    mine, other = statistics.median(times[ours]), statistics.median(times[theirs])
    return f"{other / mine:.1f} x ({mine:.3g} s against {other:.3g} s)"


def row(what: str, figure: str) -> None:
    print(f"| {what} | {figure} |", flush=True)


def tree_mib(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 2**20


def _status(key: str) -> int:
    for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"/proc tells no {key}")
