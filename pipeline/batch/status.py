"""The tables of a batch: what became of each case, and the probabilities of whole volumes."""

import csv
import io
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.workspace import write_text

STATUS, PREDICTIONS = "status.csv", "predictions.csv"
DONE, FAILED, WAITING = "done", "failed", "waiting"
_FIRST = (
    "case", "status", "reason", "review", "note", "seconds_read", "seconds_compute", "seconds_write",
    "peak_memory_mb", "model",
)  # fmt: skip
_VOLUME = "volume_ml_"
_SECONDS_BETWEEN_WRITES = 2.0


@dataclass(frozen=True)
class Row:
    """What became of one case."""

    case_id: str
    status: str
    reason: str = ""
    review: tuple[str, ...] = ()
    note: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By step: read, compute, write."""
    peak_memory_mb: float | None = None
    model: str = ""
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    probabilities: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)

    def cells(self) -> dict[str, Any]:
        """Return the cells of `status.csv`."""
        return {
            "case": self.case_id,
            "status": self.status,
            "reason": self.reason,
            "review": "; ".join(self.review),
            "note": self.note,
            **{f"seconds_{step}": round(value, 3) for step, value in self.seconds.items()},
            "peak_memory_mb": "" if self.peak_memory_mb is None else round(self.peak_memory_mb, 1),
            "model": self.model[:12],
            **{f"{_VOLUME}{name}": round(value, 4) for name, value in self.volumes_ml.items()},
            **self.columns,
        }


class StatusTable:
    """The rows of a batch, kept on disk while it runs.

    Args:
        folder: Where `status.csv` and, for classification, `predictions.csv` lie.
        rows: What is known before the work starts.
    """

    def __init__(self, folder: Path, rows: Iterable[Row] = ()) -> None:
        self.folder = folder
        self.rows = {row.case_id: row for row in rows}
        self._written = -_SECONDS_BETWEEN_WRITES

    def put(self, row: Row) -> None:
        """Take a row, and write the tables where the last time is a moment ago: each write is the whole table."""
        self.rows[row.case_id] = row
        if time.monotonic() - self._written >= _SECONDS_BETWEEN_WRITES:
            self.write()

    def write(self) -> None:
        """Write the tables, each whole or not at all."""
        rows = [self.rows[name] for name in self.rows]
        write_text(self.folder / STATUS, _csv([row.cells() for row in rows], _FIRST))
        if any(row.probabilities for row in rows):
            write_text(self.folder / PREDICTIONS, _csv([_classes(row) for row in rows if row.probabilities], ("case",)))
        self._written = time.monotonic()

    def count(self, *statuses: str) -> int:
        """Count the rows with one of these words."""
        return sum(row.status in statuses for row in self.rows.values())


def _classes(row: Row) -> dict[str, Any]:
    best = max(row.probabilities, key=lambda name: row.probabilities[name])
    return {"case": row.case_id, "class": best, **{name: round(p, 6) for name, p in row.probabilities.items()}}


def _csv(rows: list[dict[str, Any]], first: tuple[str, ...]) -> str:
    columns = list(first)
    for row in rows:
        columns += [name for name in row if name not in columns]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
