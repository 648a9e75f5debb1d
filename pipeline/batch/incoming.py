"""An incoming folder as it fills: which files belong to which series, and which series is complete."""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from pipeline.dicom import elements
from pipeline.dicom.header import read_elements, read_planes
from pipeline.dicom.plane import Unread
from pipeline.dicom.series import hashed_id, is_uid
from pipeline.plugin import Settings

_EXPECTED_TAG = 0x00201209
_UNFINISHED = (".part", ".partial", ".tmp", ".filepart", ".crdownload", ".lock", ".complete")


class CompleteOptions(Settings):
    """When a series counts as complete."""

    unit: Literal["series", "study"] = "series"
    """What is waited for as a whole: rules that choose among the series of a study need the whole study."""
    stable_seconds: PositiveFloat = 60.0
    """Nothing of it changed for so long."""
    expected: Literal["none", "header"] = "none"
    """`header`: also as many instances as its header says (NumberOfSeriesRelatedInstances), where it says so."""
    patience_seconds: NonNegativeFloat = Field(default=3600.0)
    """How long to wait for expected instances, or for a marker, before what is there is taken."""
    marker: str = ""
    """File that must lie in each of its folders, or above, such as `.complete`; none where empty."""
    lock: str = ".lock"
    """While a file of this name lies in one of its folders, or above, it is not complete."""


@dataclass
class _Unit:
    """A series (or study) that lies in the folder."""

    name: str
    files: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """File -> size, time of change in ns."""
    changed: float = 0.0
    """When it was last seen to change."""
    expected: int = 0


class Incoming:
    """Remembers what lay in a folder at the last look; headers are read once a file, or again when it changed.

    Args:
        folder: Looked through whole; hidden files and those with an ending such as `.part` are no data.
        options: When a series is complete.
        key: Turns UIDs into keyed hashes.
        clock: Gives the time in seconds.
    """

    def __init__(self, folder: Path, options: CompleteOptions, key: bytes | None, clock: Callable[[], float]) -> None:
        self.folder, self.options, self.key, self.clock = folder, options, key, clock
        self._units: dict[str, _Unit] = {}
        self._unit_of: dict[Path, str] = {}
        self._seen: dict[Path, tuple[int, int]] = {}
        self._damaged: dict[Path, set[Path]] = {}

    def look(self) -> None:
        """Notice what is new, changed or gone."""
        now = self.clock()
        current = dict(_files(self.folder))
        for path in self._seen.keys() - current.keys():
            self._forget(path, now)
        for path, state in current.items():
            if self._seen.get(path) != state:
                self._take(path, state, now)
        self._seen = current

    def names(self) -> tuple[str, ...]:
        """Return the names of all series that lie in the folder, in order."""
        return tuple(sorted(self._units))

    def files(self, name: str) -> tuple[Path, ...]:
        """Return the files of a series, in order, and what is damaged in their folders: it may be a slice of it."""
        own = self._units[name].files
        beside = (self._damaged.get(folder, set()) for folder in {path.parent for path in own})
        return tuple(sorted(own.keys() | set().union(*beside)))

    def changed(self, name: str) -> float:
        """Return when a series was last seen to change."""
        return self._units[name].changed

    def state(self, name: str) -> str:
        """Return the hash of where the files of a series lie, how large they are and when they were changed."""
        told = [(os.fsencode(path), self._seen.get(path)) for path in self.files(name)]
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def quiet_seconds(self, name: str) -> float:
        """Return for how long a series has not changed."""
        return self.clock() - self._units[name].changed

    def waits_for(self, name: str) -> str:
        """Say what a series still waits for; an empty text where it is complete."""
        unit, options = self._units[name], self.options
        quiet = self.quiet_seconds(name)
        folders = _with_parents({path.parent for path in unit.files}, self.folder)
        if options.lock and any((folder / options.lock).exists() for folder in folders):
            return f"{options.lock} to go"
        if quiet < options.stable_seconds:
            return f"{options.stable_seconds - quiet:.0f} quiet seconds"
        if quiet >= max(options.patience_seconds, options.stable_seconds):
            return ""
        if options.marker and not all(_is_marked(path.parent, self.folder, options.marker) for path in unit.files):
            return f"{options.marker} to come"
        if options.expected == "header" and len(unit.files) < unit.expected:
            return f"{unit.expected - len(unit.files)} of {unit.expected} instances"
        return ""

    def _take(self, path: Path, state: tuple[int, int], now: float) -> None:
        found = read_planes(str(path), b"watch")
        if isinstance(found, Unread):
            self._forget(path, now)
            if found.kind == "damaged":
                self._damaged.setdefault(path.parent, set()).add(path)
            return
        self._damaged.get(path.parent, set()).discard(path)
        header = found[0].header
        uid = header.series_uid if self.options.unit == "series" else header.study_uid
        name = self._name(uid, path)
        if self._unit_of.get(path, name) != name:
            self._forget(path, now)
        unit = self._units.setdefault(name, _Unit(name))
        self._unit_of[path] = name
        unit.files[path], unit.changed = state, now
        if self.options.expected == "header" and not unit.expected:
            unit.expected = _expected(path)

    def _forget(self, path: Path, now: float) -> None:
        """Drop a file that is gone: a folder that is tidied up makes no series new."""
        self._damaged.get(path.parent, set()).discard(path)
        name = self._unit_of.pop(path, None)
        if name is not None:
            unit = self._units[name]
            unit.files.pop(path, None)
            unit.changed = now  # a folder that is moved away or not there for a moment is no quiet one
            if not unit.files:
                del self._units[name]

    def _name(self, uid: str, path: Path) -> str:
        if not is_uid(uid):
            # Lost, or not a UID and so perhaps a name: its folder stands for it, as in the audit.
            folder = os.fsencode(path.parent.relative_to(self.folder))
            uid = f"nouid-{hashlib.sha256(folder).hexdigest()[:16]}"
        return hashed_id(uid, self.key) if self.key else uid


def _files(folder: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith(".") or name.lower().endswith(_UNFINISHED):
                continue
            path = Path(parent, name)
            try:
                state = path.stat()
            except OSError:
                continue
            if path.is_file():
                # Rights that are given later change the second time only.
                yield path, (state.st_size, max(state.st_mtime_ns, state.st_ctime_ns))


def _expected(path: Path) -> int:
    try:
        found = read_elements(str(path), [_EXPECTED_TAG])
    except (OSError, ValueError):
        return 0
    return int(elements.number(found, _EXPECTED_TAG) or 0)


def _with_parents(folders: set[Path], top: Path) -> set[Path]:
    """Add to folders those above them, up to the incoming one."""
    return folders | {parent for folder in folders for parent in folder.parents if parent.is_relative_to(top)}


def _is_marked(folder: Path, top: Path, marker: str) -> bool:
    return any((one / marker).exists() for one in _with_parents({folder}, top))
