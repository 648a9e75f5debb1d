"""What the child process does that decodes files: one call after the other, within limits that the kernel holds."""

import json
import multiprocessing
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.imaging.volume import Volume

_KEPT_BYTES = 128 << 20
"""A child that holds this much more after a case than before its first is not well: it is replaced."""


def serve(connection: Connection, memory_bytes: int, seconds: float) -> None:
    """Work in the child: one call after the other, until the other end closes.

    Args:
        connection: Gives functions with their arguments; takes what they return, and whether the child is well.
        memory_bytes: What a call may allocate.
        seconds: How long it may take; then the kernel ends the process.
    """
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel's default for this signal ends the process even while native code holds the interpreter.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _import_readers()
    _limit_memory(memory_bytes)
    at_rest = _resident_bytes()
    try:
        connection.send("ready")
    except BrokenPipeError:  # the parent ended before there was anything to read
        return
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)
        kind, value = _called(function, arguments)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _answer(connection, kind, value, at_rest)
        del function, arguments, value


def _called(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        made = function(*arguments)
    except PipelineError as error:
        return "refused", str(error)
    except MemoryError:
        return "memory", None
    except Exception as error:
        # ITK turns a failed allocation into an error of its own.
        if "alloc" in str(error).lower():
            return "memory", None
        return "bug", f"{type(error).__name__} at {_place_of(error)}"
    if isinstance(made, Volume):
        return "volume", made
    return ("array", made) if isinstance(made, np.ndarray) else ("value", made)


def _place_of(error: Exception) -> str:
    """Say where an exception was raised; its own text may quote the name of a file or what stands in a header."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}pipeline{os.sep}" in frame.filename] or frames
    return f"{os.path.basename(ours[-1].filename)}:{ours[-1].lineno}"


def _answer(connection: Connection, kind: str, value: Any, at_rest: int) -> None:
    if kind not in ("volume", "array"):
        connection.send((kind, value, kind != "memory" and _is_well(at_rest)))
        return
    voxels = value.voxels if kind == "volume" else value
    facts = json.dumps([voxels.shape, voxels.dtype.str])
    geometry = value.geometry.model_dump_json() if kind == "volume" else ""
    handle = _nameless_file(voxels)
    del value, voxels
    try:
        connection.send((kind, (geometry, facts) if kind == "volume" else facts, _is_well(at_rest)))
        send_handle(connection, handle, os.getppid())
    finally:
        os.close(handle)


def _nameless_file(voxels: NDArray[Any]) -> int:
    """Write an array to a file that has no name, in memory where the system can: a kill leaves nothing behind."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("voxels")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    with os.fdopen(os.dup(handle), "wb") as file:
        for section in voxels.reshape(-1, *voxels.shape[-2:]) if voxels.ndim > 2 else [voxels]:
            file.write(np.ascontiguousarray(section).data)
    return handle


def _is_well(at_rest: int) -> bool:
    from pipeline.machine import give_back_memory

    give_back_memory()
    return _resident_bytes() - at_rest < _KEPT_BYTES


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def _import_readers() -> None:
    """Import what reading needs before memory is limited, so that the limit is that of the data."""
    import pipeline.dicom.decode
    import pipeline.imaging.geometry
    import pipeline.imaging.read  # noqa: F401

    with suppress(ImportError):
        import SimpleITK

        SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _limit_memory(memory_bytes: int) -> None:
    """Limit the addresses that this process may use to what it has now and so many more bytes."""
    import resource

    import psutil

    with suppress(OSError, ValueError, AttributeError):
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + memory_bytes,) * 2)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _die_with_parent() -> None:
    """End this process when its parent has ended, however that died.

    Not by the kernel's signal for a parent's death: that comes when the thread ends that started the child.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def watch() -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
