"""Watching an incoming folder: each series that is complete is worked on once, whatever happens in between."""

import csv
import errno
import hashlib
import io
import logging
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from pipeline.batch.incoming import CompleteOptions, Incoming
from pipeline.errors import ConfigError, PipelineError, plural
from pipeline.plugin import Settings
from pipeline.progress import Progress
from pipeline.workspace import only_owner, remove_leftovers, write_json, write_text

logger = logging.getLogger(__name__)

STATE = "watch"
"""Folder below OUT that remembers what was done with each series; its lock has one owner at a time."""
QUARANTINE = "quarantine.csv"
"""Below OUT: what failed again and again, and why."""
_FINAL = ("done", "refused", "quarantined")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class WatchOptions(CompleteOptions):
    """How an incoming folder is watched."""

    poll_seconds: PositiveFloat = 5.0
    """Time between two looks."""
    attempts: PositiveInt = 4
    """How often a series that fails is worked on before it goes to the quarantine list."""
    backoff_seconds: PositiveFloat = 60.0
    """Wait before the second attempt; each later one waits four times as long."""
    deaths: PositiveInt = 20
    """How often this process may die over one series before that goes to the quarantine list."""
    min_free_gb: NonNegativeFloat = Field(default=2.0)
    """With less room on the disk of OUT nothing new is begun."""


@dataclass(frozen=True)
class Arrived:
    """A series (or study) that is complete."""

    name: str
    """Its UID, or a keyed hash of it."""
    files: tuple[Path, ...]
    late: int = 0
    """Files that came after it had been worked on; 0 the first time."""


@dataclass(frozen=True)
class Outcome:
    """What became of it."""

    status: Literal["done", "refused", "failed"]
    """A refusal is final, a failure is tried again."""
    reason: str = ""


Work = Callable[[Arrived], Outcome]
"""Works on what arrived; called again with the same files where this process died meanwhile, so it must find what
it finished."""


class Entry(Settings):
    """What is remembered of a series."""

    status: Literal["working", "done", "refused", "retry", "quarantined"]
    reason: str = ""
    content: tuple[str, ...] = ()
    """sha256 of its files, cut short, when it was last worked on."""
    state: str = ""
    """Hash of their paths, sizes and times then: while it is the same, a restart need not read them."""
    attempts: int = 0
    deaths: int = 0
    next_try: float = 0.0
    reopened: int = 0
    late: int = 0
    """Files that came late, when it was re-opened."""


def watch(
    folder: Path,
    out: Path,
    work: Work,
    options: WatchOptions,
    *,
    key: bytes | None = None,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
    free_bytes: Callable[[Path], int] | None = None,
    rounds: int | None = None,
) -> None:
    """Watch until the process is ended, or for so many looks.

    What was begun when the process is killed is begun anew by the next one; what was finished stays.

    Raises:
        ConfigError: another process watches for the same OUT, or there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder; expected one that fills. Correct the path, or make it.")
    with only_owner(out / STATE):
        watcher = Watcher(
            folder, out, work, options, key=key, progress=progress, clock=clock, free_bytes=free_bytes or _free_bytes
        )
        while rounds is None or rounds > 0:
            watcher.look()
            rounds = None if rounds is None else rounds - 1
            if rounds != 0:
                sleep(options.poll_seconds)


class Watcher:
    """One look after the other at an incoming folder; only the owner of OUT's state may make one."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        work: Work,
        options: WatchOptions,
        *,
        key: bytes | None = None,
        progress: Progress | None = None,
        clock: Callable[[], float] = time.time,
        free_bytes: Callable[[Path], int],
    ) -> None:
        self.out, self.work, self.options, self.clock, self.free_bytes = out, work, options, clock, free_bytes
        self.incoming = Incoming(folder, options, key, clock)
        self.progress = progress or Progress()
        self._handled: dict[str, float] = {}
        self._is_full = False
        self._paused_until = -math.inf
        self._begun: set[str] = set()
        self._held_back: set[str] = set()
        (out / STATE).mkdir(parents=True, exist_ok=True)
        for inside in (out / STATE, *(out / STATE).glob("*/")):
            remove_leftovers(inside)

    def look(self) -> int:
        """Work on everything that is complete now; return how many series were worked on."""
        self.incoming.look()
        count = 0
        for name in self.incoming.names():
            if not self._is_due(name):
                continue
            if not self._has_room():
                break
            try:
                count += self._work_on(name)
            except OSError as error:
                self._pause(error)
                break
        return count

    def entry(self, name: str) -> Entry | None:
        """Return what is remembered of a series; None where it was never begun."""
        try:
            return Entry.model_validate_json(self._path(name).read_bytes())
        except (OSError, ValidationError):
            return None

    def _is_due(self, name: str) -> bool:
        if waits := self.incoming.waits_for(name):
            self._tell_long_wait(name, waits)
            return False
        self._held_back.discard(name)
        entry = self.entry(name)
        if entry is not None and entry.status == "retry":
            return self.clock() >= entry.next_try
        # Nothing was seen to change since it was last dealt with.
        return self._handled.get(name, -1.0) < self.incoming.changed(name)

    def _tell_long_wait(self, name: str, waits: str) -> None:
        """Say once that a series is held back, such as by the lock of a sender that is no more."""
        patience = max(self.options.patience_seconds, self.options.stable_seconds)
        if self.incoming.quiet_seconds(name) >= patience and name not in self._held_back:
            self._held_back.add(name)
            self.progress.say(f"{name}: unchanged for {patience:g} seconds, but held back: {waits}")

    def _pause(self, error: OSError) -> None:
        """Begin nothing for a while: results, or what was done, cannot be written; what was in hand begins anew."""
        if error.errno in _FULL:
            self.progress.say("the disk is full: nothing new is begun until there is room")
            self._is_full = True
        else:
            why = error.strerror or type(error).__name__
            self.progress.say(f"what is done cannot be written down ({why}): nothing new is begun for a while")
        self._paused_until = self.clock() + self.options.backoff_seconds

    def _has_room(self) -> bool:
        if self.clock() < self._paused_until:
            return False
        is_full = self.free_bytes(self.out) < self.options.min_free_gb * 1024**3
        if is_full != self._is_full:
            room = f"{self.options.min_free_gb:g} GiB"
            self.progress.say(f"less than {room} free: nothing new is begun until there is room" if is_full
                              else f"{room} are free again: going on")  # fmt: skip
        self._is_full = is_full
        return not is_full

    def _work_on(self, name: str) -> int:
        """Work on a series unless it was done before; return how many were worked on."""
        changed = self.incoming.changed(name)
        files, state = self.incoming.files(name), self.incoming.state(name)
        known = self.entry(name)
        if known is not None and known.status in _FINAL and known.state == state:
            self._handled[name] = changed
            return 0
        content = _content(files)
        if content is None:
            return 0  # A file went away or changes: the next look knows more.
        entry = self._begin(name, content)
        if entry is None:
            self._handled[name] = changed
            return 0
        entry = entry.model_copy(update={"state": state})
        outcome = self._outcome(Arrived(name, files, entry.late))
        self._finish(name, entry, outcome)
        self._handled[name] = changed
        return 1

    def _begin(self, name: str, content: tuple[str, ...]) -> Entry | None:
        """Remember that work begins; None where there is nothing to do."""
        before = self.entry(name)
        if before is None:
            entry = Entry(status="working", content=content)
        else:
            new = len(set(content) - set(before.content))
            if before.status == "working":
                died = name not in self._begun  # else only room on the disk was missing
                entry = before.model_copy(update={"deaths": before.deaths + died, "content": content})
                if entry.deaths >= self.options.deaths:
                    self._quarantine(name, entry, f"this process died {entry.deaths} times while it worked on it")
                    return None
            elif before.status == "retry":
                entry = before.model_copy(update={"status": "working", "content": content})
            elif not new:
                return None
            elif before.reopened:
                self.progress.say(f"{name}: {plural(new, 'file')} came after it was re-opened once: left as it is")
                return None
            else:
                self.progress.say(f"{name}: re-opened, {plural(new, 'file')} came late")
                entry = Entry(status="working", content=content, reopened=1, late=new)
        self._remember(name, entry)
        self._begun.add(name)
        return entry

    def _outcome(self, arrived: Arrived) -> Outcome:
        """Work, whatever that raises.

        Raises:
            OSError: the disk is full.
        """
        try:
            return self.work(arrived)
        except PipelineError as error:
            return Outcome("failed", str(error))
        except MemoryError:
            return Outcome("failed", "memory ran out")
        except OSError as error:
            if error.errno in _FULL:
                raise
            return Outcome("failed", error.strerror or type(error).__name__)
        except Exception as error:
            # A bug must not end a night's work; its text may hold the name of a file, so it is not shown.
            logger.debug("%s while working on %s", type(error).__name__, arrived.name)
            return Outcome("failed", f"a bug: {type(error).__name__}; run with this series alone to see more")

    def _finish(self, name: str, entry: Entry, outcome: Outcome) -> None:
        if outcome.status != "failed":
            self._remember(name, entry.model_copy(update={"status": outcome.status, "reason": outcome.reason}))
            self.progress.say(f"{name}: {outcome.status}{f': {outcome.reason}' if outcome.reason else ''}")
            return
        attempts = entry.attempts + 1
        entry = entry.model_copy(update={"attempts": attempts})
        if attempts >= self.options.attempts:
            self._quarantine(name, entry, outcome.reason)
            return
        wait = self.options.backoff_seconds * 4 ** (attempts - 1)
        changes = {"status": "retry", "reason": outcome.reason, "next_try": self.clock() + wait}
        self._remember(name, entry.model_copy(update=changes))
        self.progress.say(f"{name}: failed, again in {wait:g} seconds: {outcome.reason}")

    def _quarantine(self, name: str, entry: Entry, reason: str) -> None:
        self._remember(name, entry.model_copy(update={"status": "quarantined", "reason": reason}))
        self.progress.say(f"{name}: on the quarantine list: {reason}")
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["case", "attempts", "reason"])
        for path in sorted((self.out / STATE).glob("*.json")):
            found = self.entry(path.stem)
            if found is not None and found.status == "quarantined":
                writer.writerow([path.stem, found.attempts, found.reason])
        write_text(self.out / QUARANTINE, stream.getvalue())

    def _remember(self, name: str, entry: Entry) -> None:
        write_json(self._path(name), entry.model_dump())

    def _path(self, name: str) -> Path:
        return self.out / STATE / f"{name}.json"


def _content(files: tuple[Path, ...]) -> tuple[str, ...] | None:
    """Return the hashes of files, equal copies once; None where one is gone."""
    try:
        found = set()
        for path in files:
            with path.open("rb") as stream:
                found.add(hashlib.file_digest(stream, "sha256").hexdigest()[:16])
    except OSError:
        return None
    return tuple(sorted(found))


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
