"""What a training says of itself: history, speed, the live line, and TensorBoard where it is wanted."""

import csv
import io
import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.machine import resident_memory_mb
from pipeline.workspace import write_text

Row = dict[str, float | None]
"""Figures of one epoch by name; None where there is no finite value."""

WORK = ("data", "update", "validation", "checkpoint")
"""What the time of a training goes to; `data` is waiting for it."""


class Tracker:
    """Writes the tables of a training into its folder.

    `history.csv` and `history.jsonl` hold what is equal in every repetition (losses, rates, scores);
    `speed.csv` holds what is not (seconds, memory). All are written anew each time from the rows of the
    checkpoint and since, so a resumed training leaves no row out and none twice.

    Args:
        folder: Of the training.
        tensorboard: Write event files for TensorBoard too, into `folder/tensorboard`.
        step: Steps done: later events of an earlier, killed start are hidden.

    Raises:
        ConfigError: TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False, step: int = 0) -> None:
        self.folder = folder
        self._events = _open_tensorboard(folder / "tensorboard", step) if tensorboard else None

    def write(self, history: Sequence[Row], speed: Sequence[Row]) -> None:
        """Replace the tables; the last rows are the news."""
        write_text(self.folder / "history.csv", table_text(history))
        write_text(self.folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in history))
        write_text(self.folder / "speed.csv", table_text(speed))
        if self._events is not None and history:
            self._write_scalars(int(history[-1]["step"] or 0), history[-1])
            self._write_scalars(int(history[-1]["step"] or 0), speed[-1])

    def write_pictures(self, step: int, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Show pictures (height, width, 3) by name in TensorBoard; nothing without it."""
        if self._events is not None:
            for name, picture in pictures.items():
                self._events.add_image(name, picture, step, dataformats="HWC")

    @property
    def shows_pictures(self) -> bool:
        """Whether `write_pictures` does anything."""
        return self._events is not None

    def close(self) -> None:
        """Finish the event files."""
        if self._events is not None:
            self._events.close()

    def _write_scalars(self, step: int, row: Row) -> None:
        assert self._events is not None
        for name, value in row.items():
            if value is not None and name not in ("epoch", "step"):
                self._events.add_scalar(name, value, step)


class Stopwatch:
    """Seconds spent on each kind of `WORK`, and patches seen, since the last `reset`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start an epoch."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.patches = 0
        self._started = time.monotonic()

    @contextmanager
    def timing(self, work: str) -> Iterator[None]:
        """Count the time of the block as `work`."""
        before = time.monotonic()
        try:
            yield
        finally:
            self.seconds[work] += time.monotonic() - before

    @property
    def patches_per_second(self) -> float:
        """Patches trained on per second of data and update."""
        return self.patches / max(1e-9, self.seconds["data"] + self.seconds["update"])

    @property
    def waiting_share(self) -> float:
        """Share of the time of the steps that was spent waiting for data."""
        return self.seconds["data"] / max(1e-9, self.seconds["data"] + self.seconds["update"])

    def row(self, epoch: int, device: torch.device) -> Row:
        """Return the row of `speed.csv` for the time since the last `reset`."""
        row: Row = {"epoch": epoch, "seconds": round(time.monotonic() - self._started, 3)}
        row |= {f"seconds_{work}": round(self.seconds[work], 3) for work in WORK}
        return row | {
            "patches_per_second": round(self.patches_per_second, 3),
            "waiting_share": round(self.waiting_share, 4),
            "memory_gb": round(memory_gb(device), 3),
        }


def live_note(watch: Stopwatch, device: torch.device, loss: float, name: str, score: float | None) -> str:
    """Return the live line's figures: `loss 0.412, dice 0.873, 12.3 patches/s, data 2 %, 1.8 GB`."""
    parts = [f"loss {loss:.3f}"]
    parts += [f"{name} {score:.3f}"] if score is not None else []
    parts += [
        f"{watch.patches_per_second:.1f} patches/s",
        f"data {100 * watch.waiting_share:.0f} %",
        f"{memory_gb(device):.1f} GB",
    ]
    return ", ".join(parts)


def memory_gb(device: torch.device) -> float:
    """Return the memory in use, in GiB: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) / 1024**3
    return resident_memory_mb() / 1024


def table_text(rows: Sequence[Row]) -> str:
    """Return rows as CSV; columns in the order of their first appearance, empty where a row has no value."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def finite(value: float) -> float | None:
    """Return the value, or None where it is no finite number: JSON has no word for those."""
    return float(value) if math.isfinite(value) else None


def _open_tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ConfigError(
            "train: TensorBoard is asked for and not installed. Install it with 'pip install tensorboard', or leave it "
            "out: history.csv and history.jsonl hold the same curves."
        ) from None
    return SummaryWriter(folder, purge_step=step)
