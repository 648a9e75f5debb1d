"""Progress of long work: bars on a terminal, plain lines in a log, silence by default."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TextIO

SECONDS_BETWEEN_LINES = 15.0


class Bar:
    """One piece of work that counts up to `total`; used in a `with` statement."""

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what, self.done, self.started = total, what, 0, time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Say that `count` more are done; `note` names the case or the latest figures."""
        self.done += count

    def close(self) -> None:
        """Leave the last state standing."""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Progress:
    """Says nothing; what library code gets when nobody watches."""

    def bar(self, total: int, what: str, *, done: int = 0) -> Bar:
        """Start to show work of `total` steps, `done` of which were done by an earlier run."""
        return Bar(total, what)

    def say(self, line: str) -> None:
        """Show one line."""

    @contextmanager
    def within(self, prefix: str) -> Iterator["Progress"]:
        """Put `prefix` before what is said inside."""
        yield self


class TerminalProgress(Progress):
    """tqdm bars with time left on a terminal; elsewhere a plain line now and then."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.prefix = ""

    def bar(self, total: int, what: str, *, done: int = 0) -> Bar:
        """Start a bar, or lines where the stream is no terminal."""
        kind = _TqdmBar if self.stream.isatty() else _LineBar
        return kind(total, self.prefix + what, self.stream, done)

    def say(self, line: str) -> None:
        """Show one line."""
        print(self.prefix + line, file=self.stream, flush=True)

    @contextmanager
    def within(self, prefix: str) -> Iterator[Progress]:
        """Put `prefix` before what is said inside."""
        before, self.prefix = self.prefix, self.prefix + prefix
        try:
            yield self
        finally:
            self.prefix = before


class _TqdmBar(Bar):
    def __init__(self, total: int, what: str, stream: TextIO, done: int) -> None:
        super().__init__(total, what)
        from tqdm import tqdm

        self._bar: Any = tqdm(total=total, desc=what, file=stream, initial=done, leave=True, dynamic_ncols=True)

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(count)

    def close(self) -> None:
        self._bar.close()


class _LineBar(Bar):
    def __init__(self, total: int, what: str, stream: TextIO, done: int) -> None:
        super().__init__(total, what)
        self.stream, self.done, self.first, self.shown_at = stream, done, done, time.monotonic()
        self.note = ""
        self.shown = -1

    def advance(self, count: int = 1, note: str = "") -> None:
        super().advance(count, note)
        self.note = note or self.note
        if time.monotonic() - self.shown_at >= SECONDS_BETWEEN_LINES:
            self._show()

    def close(self) -> None:
        if self.shown != self.done:
            self._show()

    def _show(self) -> None:
        self.shown, self.shown_at = self.done, time.monotonic()
        passed = self.shown_at - self.started
        made = max(1, self.done - self.first)
        left = passed / made * (self.total - self.done)
        when = f"{clock(left)} left" if self.done < self.total else f"took {clock(passed)}"
        note = f" ({self.note})" if self.note else ""
        print(f"{self.what}: {self.done}/{self.total}, {when}{note}", file=self.stream, flush=True)


def clock(seconds: float) -> str:
    """Return `1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
