"""A folder tree looked through: every DICOM header in it, in parallel, whatever the files are called."""

import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.dicom.header import read_planes
from pipeline.dicom.plane import Plane, Unread
from pipeline.errors import DataError
from pipeline.parallel import Failure, Job, map_cases
from pipeline.progress import Progress

CHUNK = 256
"""Files that a worker reads in one go."""
_WORTH_WORKERS = 4000  # below this, starting workers costs more than it saves
_WORKER_BYTES = 300 << 20


@dataclass(frozen=True)
class Scan:
    """What lies in a tree of files."""

    planes: tuple[Plane, ...]
    """Of all DICOM files, in the order of their paths; one without size for an object that is no image."""
    counts: dict[str, int]
    """`files` looked at, of them `not DICOM`, `DICOMDIR` and `damaged`."""
    damaged_folders: dict[str, int]
    """Folder -> files in it that are empty, or DICOM with no readable header."""


def scan(paths: Iterable[Path], *, workers: int = 1, progress: Progress | None = None) -> Scan:
    """Read the headers of all files below the given folders, and of the given files.

    Args:
        paths: Folders, looked through whole and with links to files followed but none to folders; or files.
        workers: Processes at most; small trees are read in this one.
        progress: Shows a bar.

    Raises:
        DataError: a path does not exist.
    """
    files = sorted({file for path in paths for file in _files(path)})
    # A fresh key a scan: hashes of patients can be compared within it and with nothing else.
    key = secrets.token_bytes(32)
    found = _read_all(files, key, workers if len(files) >= _WORTH_WORKERS else 1, progress or Progress())
    unread = [one for one in found if isinstance(one, Unread)]
    counts = Counter(one.kind for one in unread)
    return Scan(
        planes=tuple(plane for one in found if not isinstance(one, Unread) for plane in one),
        counts={"files": len(files), **{kind: counts[kind] for kind in ("not DICOM", "DICOMDIR", "damaged")}},
        damaged_folders=dict(Counter(one.folder for one in unread if one.kind == "damaged")),
    )


def read_many(files: Sequence[str], key: bytes) -> list[tuple[Plane, ...] | Unread]:
    """Read the headers of some files; what a worker does."""
    return [read_planes(file, key) for file in files]


def _files(path: Path) -> Iterator[str]:
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; expected a scanner's export. Correct the path.")
    if path.is_file():
        yield str(path)
        return
    closed: list[str] = []
    for folder, _, names in os.walk(path, onerror=lambda error: closed.append(str(error.filename))):
        for name in names:
            file = os.path.join(folder, name)
            # Pipes and devices would block. A link that leads nowhere was a file: it counts as damaged.
            if os.path.isfile(file) or not os.path.exists(file):
                yield file
    yield from closed  # a folder that cannot be looked into counts as damaged too


def _read_all(files: Sequence[str], key: bytes, workers: int, progress: Progress) -> list[tuple[Plane, ...] | Unread]:
    chunks = {f"files from {at}": files[at : at + CHUNK] for at in range(0, len(files), CHUNK)}
    jobs = [Job(name, (chunk, key), _WORKER_BYTES) for name, chunk in chunks.items()]
    results = map_cases(
        read_many, jobs, workers=workers, memory_bytes=workers * _WORKER_BYTES, what="headers", progress=progress
    )
    found: list[tuple[Plane, ...] | Unread] = []
    for name, chunk in chunks.items():
        result = results[name]
        if isinstance(result, Failure):
            # One file of the chunk ended its reader: only this way is it known which.
            result = [_alone(file, key) for file in chunk]
        found += result
    return found


def _alone(file: str, key: bytes) -> tuple[Plane, ...] | Unread:
    job = Job(file, ([file], key), _WORKER_BYTES)
    # Two jobs, since a single one would be done in this process.
    results = map_cases(
        read_many, [job, Job("", ([], key))], workers=2, memory_bytes=2 * _WORKER_BYTES, what="", progress=Progress()
    )
    result = results[file]
    return Unread("damaged", os.path.dirname(file)) if isinstance(result, Failure) else result[0]
