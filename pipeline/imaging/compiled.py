"""Loops compiled by numba, and the folder in which their machine code is kept from one process to the next.

Decided here:

- No kernel is `parallel`: numba's own threads come in layers, of which the one that is always there (workqueue) aborts
  the process when two threads of Python call it, does not survive a fork, and compiles several times longer. A kernel
  runs on the thread that calls it and holds no lock of Python, so callers share work among threads of their own. So
  there is no layer to choose and no lock to take; numba itself compiles under one.
- Machine code lies beside the source, where numba puts it, until `keep_kernels_in` names a folder: an installed package
  may be read-only, and what several users share should not be written by one of them. Where no folder can be written,
  each process compiles for itself; that costs seconds and changes no number.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from pipeline.version import __version__

logger = logging.getLogger(__name__)

_KERNELS: list[Any] = []
"""All that was decorated: a folder that is chosen after they were imported must still reach them."""


def compiled(fastmath: bool | set[str] = False) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function for the types that it is called with, or loads what is kept of it.

    Args:
        fastmath: Which liberties the compiler may take with floating-point numbers, as in LLVM; none by default.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)
        _KERNELS.append(kernel)
        _look_for_folder(kernel)
        return kernel

    return decorate


def keep_kernels_in(folder: Path) -> None:
    """Keep machine code in this folder from now on; worker processes are told by `parallel`.

    A process-wide setting, so only a command makes it, never an import. What is compiled already stays as it is.
    Machine code is run as it lies there: a folder of another user is left alone, and a new one is closed to others.

    Args:
        folder: Made where it is missing. Where it cannot be written, everything stays as before.
    """
    # A kernel's file tells numba when it is out of date, but not when a kernel of another file that it calls is.
    place = folder.absolute() / __version__
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(one.stat().st_uid != os.getuid() for one in (folder, place)):
            raise PermissionError(f"{folder} is another user's")
    except OSError as error:
        logger.info("compiled kernels are not kept in machine.cache: %s", error)
        return
    numba.config.CACHE_DIR = str(place)
    for kernel in _KERNELS:
        _look_for_folder(kernel)


def _look_for_folder(kernel: Any) -> None:
    """Let numba take the first folder that can be written: the chosen one, the source's, the user's; else none."""
    try:
        kernel.enable_caching()
    except RuntimeError:
        logger.info("no folder to keep %s in can be written: it is compiled anew in each process", kernel.__name__)
