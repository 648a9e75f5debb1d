"""Tables are complete, stable and readable by others; the live line says what it should."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.learning import tracking
from pipeline.learning.tracking import Row, Stopwatch, Tracker, finite, live_note, table_text

CPU = torch.device("cpu")
HISTORY: list[Row] = [{"epoch": 1, "step": 5, "loss": 0.1 + 0.2}, {"epoch": 2, "step": 10, "loss": None, "dice": 0.5}]


def test_tables_are_read_by_pandas_with_every_digit(tmp_path: Path) -> None:
    Tracker(tmp_path).write(HISTORY, [{"epoch": 1, "seconds": 1.5}, {"epoch": 2, "seconds": 2.5}])
    table = pd.read_csv(tmp_path / "history.csv")
    assert list(table.columns) == ["epoch", "step", "loss", "dice"]
    assert table.loss[0] == 0.1 + 0.2
    assert np.isnan(table.loss[1])
    assert np.isnan(table.dice[0])
    assert [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()] == HISTORY
    assert list(pd.read_csv(tmp_path / "speed.csv").seconds) == [1.5, 2.5]


def test_writing_again_replaces(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.write(HISTORY, [])
    tracker.write(HISTORY[:1], [])
    assert (tmp_path / "history.csv").read_text() == "epoch,step,loss\n1,5,0.30000000000000004\n"
    tracker.close()


def test_empty_table() -> None:
    assert table_text([]).strip() == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_json_cannot_say_is_none(value: float) -> None:
    assert finite(value) is None
    assert finite(np.float32(0.5)) == 0.5


def test_stopwatch_shares() -> None:
    watch = Stopwatch()
    with watch.timing("data"):
        time.sleep(0.02)
    with watch.timing("update"):
        time.sleep(0.06)
    watch.patches = 4
    assert watch.waiting_share == pytest.approx(0.25, abs=0.1)
    assert 20 < watch.patches_per_second <= 50
    row = watch.row(3, CPU)
    assert row["epoch"] == 3
    assert row["seconds"] is not None
    assert row["seconds"] >= 0.08
    assert row["seconds_validation"] == 0
    watch.reset()
    assert watch.patches_per_second == watch.waiting_share == 0


def test_live_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "resident_memory_mb", lambda: 1843.2)
    watch = Stopwatch()
    watch.seconds |= {"data": 0.1, "update": 4.9}
    watch.patches = 60
    assert live_note(watch, CPU, 0.41234, "dice", 0.8731) == "loss 0.412, dice 0.873, 12.0 patches/s, data 2 %, 1.8 GB"
    assert live_note(watch, CPU, 0.41234, "dice", None).startswith("loss 0.412, 12.0 patches/s")


def test_absent_tensorboard_has_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match="pip install tensorboard"):
        Tracker(tmp_path, tensorboard=True)


def test_tensorboard_is_given_curves_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Events:
        def __init__(self) -> None:
            self.scalars: list[tuple[str, float, int]] = []
            self.pictures: list[tuple[str, tuple[int, ...], int, str]] = []

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.scalars.append((name, value, step))

        def add_image(self, name: str, picture: np.ndarray, step: int, dataformats: str) -> None:
            self.pictures.append((name, picture.shape, step, dataformats))

        def close(self) -> None:
            self.scalars.append(("closed", 0, 0))

    events = Events()
    monkeypatch.setattr(tracking, "_open_tensorboard", lambda folder, step: events)
    tracker = Tracker(tmp_path, tensorboard=True, step=5)
    assert tracker.shows_pictures
    tracker.write(HISTORY, [{"epoch": 2, "seconds": 2.5}])
    tracker.write_pictures(10, {"c1": np.zeros((4, 5, 3), np.uint8)})
    tracker.close()
    assert events.scalars == [("dice", 0.5, 10), ("seconds", 2.5, 10), ("closed", 0, 0)]
    assert events.pictures == [("c1", (4, 5, 3), 10, "HWC")]
    assert not Tracker(tmp_path).shows_pictures


def test_real_tensorboard_where_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tracker = Tracker(tmp_path, tensorboard=True)
    tracker.write(HISTORY, [{"epoch": 2, "seconds": 2.5}])
    tracker.close()
    assert list((tmp_path / "tensorboard").iterdir())
