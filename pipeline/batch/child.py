"""One child process that decodes files, with a limit on memory and time: what kills it costs one case only."""

import json
import mmap
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.batch.exports import series_of
from pipeline.batch.serving import serve
from pipeline.batch.sources import Source
from pipeline.errors import DataError
from pipeline.imaging.volume import Geometry, Volume

DEFAULT_MEMORY_BYTES = 6 << 30
"""What one case may take: three times a CT of 512 x 512 x 2000 in 16 bits."""
DEFAULT_SECONDS = 900.0
_START_SECONDS, _GRACE_SECONDS = 120.0, 5.0


class ReaderBug(RuntimeError):
    """A call in the child raised what it never should; its text says the kind and the place, and quotes no file."""


class Child:
    """Runs functions in a process of its own, which lives on from call to call while it is healthy.

    The child never imports torch, dies with this process, and is replaced after any failure that may have left
    it unwell: a crash, its limit on memory or time, memory that it does not give back.

    Args:
        memory_bytes: What a call may allocate.
        seconds: How long a call may take.
    """

    def __init__(self, *, memory_bytes: int = DEFAULT_MEMORY_BYTES, seconds: float = DEFAULT_SECONDS) -> None:
        self.memory_bytes, self.seconds = memory_bytes, seconds
        self.starts = 0
        """Children started so far."""
        self._process: Any = None
        self._connection: Connection | None = None
        self._is_ready = False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Start the child without waiting for it, so that it is there when the first call comes."""
        with self._lock:
            if self._connection is None:
                self._start()

    def run(self, case_id: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call `function(*arguments)` in the child.

        Args:
            case_id: Named in errors.
            function: Of a module that can be imported there.
            arguments: Small; they are sent through a pipe.

        Returns:
            What it returned. The voxels of a `Volume` or an array come back in memory that both processes share.

        Raises:
            DataError: the function refused with a `PipelineError`, or the child died, took too long or too much.
            ReaderBug: it raised anything else.
        """
        with self._lock:
            return self._run(case_id, function, arguments)

    def close(self) -> None:
        """End the child; the next call starts another."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is not None:
            process.kill()
            process.join()
            process.close()

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, case_id: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        connection = self._started()
        try:
            connection.send((function, arguments))
            # The child ends itself; waiting a little longer covers a kernel that is late.
            if not connection.poll(self.seconds + _GRACE_SECONDS):
                self.close()
                raise DataError(self._took_too_long(case_id))
            kind, value, is_well = connection.recv()
            made = _received(connection, kind, value)
        except (EOFError, ConnectionError):
            raise DataError(self._died(case_id)) from None
        except BaseException:
            # Whatever stands in the pipe now belongs to a call that nobody waits for.
            self.close()
            raise
        if not is_well:
            self.close()
        if kind == "refused":
            raise DataError(value if value.startswith(f"case {case_id}:") else f"case {case_id}: {value}")
        if kind == "memory":
            raise DataError(self._took_too_much(case_id))
        if kind == "bug":
            raise ReaderBug(f"case {case_id}: reading it met an unexpected {value}. Report it; is the file damaged?")
        return made

    def _started(self) -> Connection:
        if self._connection is None or not self._process.is_alive():
            self.close()
            self._start()
        assert self._connection is not None
        if not self._is_ready:
            if not self._connection.poll(_START_SECONDS):
                self.close()
                raise RuntimeError("a child process did not start")
            self._connection.recv()
            self._is_ready = True
        return self._connection

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        # One thread each: with more, the room for addresses says nothing of what is in use.
        with _environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"):
            self._process = context.Process(target=serve, args=(theirs, self.memory_bytes, self.seconds), daemon=True)
            self._process.start()
        theirs.close()
        self._connection, self._is_ready = ours, False
        self.starts += 1

    def _died(self, case_id: str) -> str:
        self._process.join(_GRACE_SECONDS)
        code = self._process.exitcode
        self.close()
        if code == -signal.SIGALRM:
            return self._took_too_long(case_id)
        how = f"killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit code {code}"
        return (
            f"case {case_id}: the process that read it died ({how}): its file crashes the reader, or memory ran out. "
            "Check the file, or export it again."
        )

    def _took_too_long(self, case_id: str) -> str:
        return (
            f"case {case_id}: reading it took more than {self.seconds:g} seconds and was ended. "
            "Check the file, or allow more time."
        )

    def _took_too_much(self, case_id: str) -> str:
        return (
            f"case {case_id}: reading it needs more than the {self.memory_bytes / 1024**3:.1f} GiB that one case may "
            "take. Check that its file does not lie about its size, or allow more memory."
        )


def read_in(child: Child, channels: Sequence[str], *, allow_uneven: bool = False) -> Callable[[Source], Volume]:
    """Return what reads a source in the child: a series by the audit's verdict, anything else as an image file.

    Args:
        child: Where files are decoded.
        channels: Of the model, in its order; a source may lack those that are optional.
        allow_uneven: Resample uneven steps of series to even ones.
    """

    def read(source: Source) -> Volume:
        if series := series_of(source):
            made = child.run(source.case_id, read_all_series, series, allow_uneven, source.case_id)
        else:
            files = {channel: source.files[channel][0] for channel in channels if channel in source.files}
            made = child.run(source.case_id, read_files, files, source.case_id)
        assert isinstance(made, Volume)
        return made

    return read


def read_all_series(series: Sequence[Any], allow_uneven: bool, case_id: str) -> Volume:
    """Decode the series of a case, one a channel, which must share one grid.

    Raises:
        DataError: one cannot be read, or their grids differ.
    """
    from pipeline.dicom.decode import read_series
    from pipeline.imaging.geometry import difference

    volumes = [read_series(one, allow_uneven=allow_uneven, case_id=case_id) for one in series]
    for number, volume in enumerate(volumes[1:], 2):
        if apart := difference(volumes[0].geometry, volume.geometry):
            raise DataError(
                f"the series of channels 1 and {number} lie on different grids: {', '.join(apart)}; expected one grid. "
                "Resample one to the other, and give the files."
            )
    if len(volumes) == 1:
        return volumes[0]
    return volumes[0].with_voxels(np.concatenate([volume.voxels for volume in volumes]))


def read_files(files: dict[str, Path], case_id: str) -> Volume:
    """Read the image files of a case, channel by channel."""
    from pipeline.imaging.read import read_case_images

    return read_case_images(files, case_id=case_id)


class _environment:
    """Sets environment variables for a child that is started in a `with` block."""

    def __init__(self, **values: str) -> None:
        self.values = values
        self.before: dict[str, str | None] = {}

    def __enter__(self) -> None:
        self.before = {name: os.environ.get(name) for name in self.values}
        os.environ.update(self.values)

    def __exit__(self, *error: object) -> None:
        for name, value in self.before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _received(connection: Connection, kind: str, value: Any) -> Any:
    if kind == "volume":
        geometry, facts = value
        return Volume(_shared_array(connection, facts), Geometry.model_validate_json(geometry))
    return _shared_array(connection, value) if kind == "array" else value


def _shared_array(connection: Connection, facts: str) -> NDArray[Any]:
    """Take over an array whose bytes lie in an open file without a name; no byte is copied."""
    shape, dtype = json.loads(facts)
    handle = recv_handle(connection)
    try:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        voxels = np.frombuffer(mmap.mmap(handle, size), dtype) if size else np.empty(0, dtype)
    finally:
        os.close(handle)
    return voxels.reshape(shape)
