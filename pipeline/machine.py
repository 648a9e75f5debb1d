"""What this machine offers: cores, memory, allocator; choices here never change a number."""

import ctypes
import os
import resource
import threading
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import Field

from pipeline.plugin import Settings

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 1 << 30


class Machine(Settings):
    """Where and with how much of the machine to work; the one section that is part of no stage key."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`auto`, `cpu`, `cuda` or `cuda:1`."""
    workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Processes for work over cases; `auto`: one a core, fewer where memory is short."""
    max_memory_gb: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    """Memory that may be used at once; `auto`: 80 % of what is free."""
    runs: Path = Path("runs")
    """Folder in which each configuration has its run folder."""
    cache: Path = Path("cache")
    """Folder of prepared cases and compiled kernels, shared by runs."""

    @property
    def kernels(self) -> Path:
        """Folder of compiled kernels: machine code of this user, to be taken over from nobody else."""
        return self.cache / "kernels"

    def worker_count(self) -> int:
        """Return the number of processes for work over cases."""
        return max(1, core_count() if self.workers == "auto" else self.workers)

    def memory_bytes(self) -> int:
        """Return the memory budget in bytes."""
        if self.max_memory_gb == "auto":
            return int(0.8 * psutil.virtual_memory().available)
        return int(self.max_memory_gb * 1024**3)


def core_count() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let malloc keep large blocks for the next use instead of returning them to the kernel at once.

    With glibc's defaults each forward pass of a network pays anew for zeroed pages: setting both
    thresholds makes a 3-D convolution network's step 1.6 times faster on a CPU. A process-wide setting,
    so only the command line does it, never an import.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)


def give_back_memory() -> None:
    """Return freed memory to the kernel; called between cases, since `keep_freed_memory` holds it."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory_mb() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_memory_mb() -> float:
    """Return the resident memory of this process now, in MiB."""
    return float(psutil.Process().memory_info().rss / 1024**2)


class MemoryWatch:
    """Watches the resident memory of this process and its children while a `with` block runs."""

    def __init__(self, every_seconds: float = 0.25) -> None:
        self.peak_mb, self._every, self._done = 0.0, every_seconds, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        process = psutil.Process()
        while True:
            self.peak_mb = max(self.peak_mb, _tree_memory_mb(process))
            if self._done.wait(self._every):
                return


def _tree_memory_mb(process: psutil.Process) -> float:
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            total += one.memory_info().rss
    return total / 1024**2
