"""What stands for an input: the contents of its files, wherever they lie and whatever they are called."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.batch.sources import Source
from pipeline.provenance import FileHashes, digest

_HEAD_BYTES = 1 << 16
_DATA_FILE = re.compile(rb"^\s*(?:ElementDataFile\s*=|data ?file:)\s*(\S.*?)\s*$", re.IGNORECASE | re.MULTILINE)
_INSIDE = (b"local", b"list")


@dataclass(frozen=True)
class Identity:
    """The contents of an input.

    sha256: Of all its files, by channel.
    state:  Hash of their paths, sizes and times: while it is the same, the files need not be read again.
    files:  Channel, sha256 and size of each, and the path where the input is no series: that may hold names.
    """

    sha256: str
    state: str
    files: tuple[dict[str, Any], ...]


def state_of(source: Source) -> str:
    """Return the hash of where the files lie, how large they are and when they were changed; reads none of them."""
    found = []
    for _, path in _files(source):
        try:
            about = os.stat(path)
            found.append([str(path), about.st_size, about.st_mtime_ns])
        except OSError:
            found.append([str(path), None, None])
    return digest([*found, *_frames(source)])


def identify(source: Source) -> Identity:
    """Read the files of an input and return what stands for it."""
    state, hashes = state_of(source), FileHashes(Path(), remember=False)
    files: list[dict[str, Any]] = []
    by_channel: dict[str, list[str]] = {}
    known: dict[Path, str] = {}
    for channel, path in _files(source):
        if path not in known:
            known[path] = hashes.sha256(path)
        by_channel.setdefault(channel, []).append(known[path])
        where = {} if source.series is not None else {"path": str(path)}
        files.append({"channel": channel, "sha256": known[path], "bytes": _size(path), **where})
    # Sorted, since the instances of a series are the same whatever they are called.
    contents = [[channel, sorted(hashes)] for channel, hashes in by_channel.items()]
    sha256 = digest([*contents, *_frames(source)])
    return Identity(sha256, state, tuple(files))


def _frames(source: Source) -> list[list[int]]:
    """Return which frames of files of many a case is made of: one file may hold several phases, each a case."""
    listed = source.series if isinstance(source.series, tuple) else (source.series,) if source.series else ()
    chosen = [[plane.frame for plane in series.planes] for series in listed]
    return chosen if any(map(any, chosen)) else []


def _files(source: Source) -> list[tuple[str, Path]]:
    """Return every file with its channel, those that a header only points to as well."""
    pairs = [(channel, path) for channel, paths in source.files.items() for path in paths]
    return pairs + [(channel, data) for channel, path in pairs if (data := _data_file(path)) is not None]


def _data_file(path: Path) -> Path | None:
    """Return the file of voxels beside an `.mhd` or `.nhdr`."""
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return None
    try:
        with path.open("rb") as stream:
            found = _DATA_FILE.search(stream.read(_HEAD_BYTES))
    except OSError:
        return None
    if found is None or found[1].lower().startswith(_INSIDE):
        return None
    return path.parent / os.fsdecode(found[1])


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
