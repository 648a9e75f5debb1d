"""Lines in a log, bars on a terminal."""

import io

import pytest

from pipeline.progress import Progress, TerminalProgress, clock


def test_without_a_terminal_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.progress.SECONDS_BETWEEN_LINES", 0.0)
    stream = io.StringIO()
    progress = TerminalProgress(stream)
    with progress.within("train: "), progress.bar(2, "epochs") as bar:
        bar.advance(note="loss 0.5")
        bar.advance()
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("train: epochs: 1/2, 0:00 left (loss 0.5)")
    assert lines[-1].startswith("train: epochs: 2/2, took")
    assert "\r" not in stream.getvalue()


def test_on_a_terminal_there_is_a_bar() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with TerminalProgress(stream).bar(3, "cases") as bar:
        bar.advance(3, note="liver_001")
    assert "3/3" in stream.getvalue()


def test_silence_counts_too() -> None:
    with Progress().bar(5, "x") as bar:
        bar.advance(2)
        assert bar.done == 2


def test_clock() -> None:
    assert [clock(value) for value in (5, 65, 3661)] == ["0:05", "1:05", "1:01:01"]
