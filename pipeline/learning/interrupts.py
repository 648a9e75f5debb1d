"""Signals that ask a training to end: noted, so that the step in hand is finished and saved first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from pipeline.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Notes SIGINT and SIGTERM inside a `with` statement; the former handlers return after it.

    Only the main thread is told of signals; in another one nothing is changed.
    """

    def __init__(self) -> None:
        self.noted = 0
        """Number of the signal that came, or 0."""
        self._at_once = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let a signal end the block where it stands: for long work behind which all is saved."""
        if self.noted:
            raise interrupted(self.noted)
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._at_once or self.noted:
            raise interrupted(number)  # a second signal is not kept waiting
        self.noted = number


def interrupted(number: int) -> Interrupted:
    """Return the error that ends a saved training."""
    name = signal.Signals(number).name
    return Interrupted(f"train: {name} came. The training is saved; the same command goes on from there.", number)
