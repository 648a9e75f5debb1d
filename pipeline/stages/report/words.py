"""How figures are called and written in a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pipeline.metrics.columns import is_volume, label_of, unit_of
from pipeline.stages.report.data import ReportData
from pipeline.stages.report.page import number


def titled(column: str) -> str:
    """Return the name and the unit."""
    return f"{label_of(column)}, {unit_of(column)}" if unit_of(column) else label_of(column)


def is_share(column: str) -> bool:
    """Say whether a figure lies between 0 and 1."""
    return not unit_of(column)


def figure(column: str, value: float | None) -> str:
    """Write a figure with the digits that suit its column."""
    return number(value, 3 if is_share(column) else 2)


def volume(value: float | None) -> str:
    """Write a volume with three digits that count."""
    if value is None or math.isnan(value):
        return "–"
    size = abs(value)
    return f"{value:.{0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.0995 else 3}f}"


def signed(text: str, value: float) -> str:
    """Put a plus or a proper minus before a number that was written without its sign."""
    return text if value == 0 or math.isnan(value) else f"{'+' if value > 0 else '−'}{text}"


def sort_key(value: float | None) -> float | str:
    """Return what a table sorts by: nothing where there is no figure, so that such rows come last."""
    return "" if value is None or math.isnan(value) else round(float(value), 6)


def reasons(found: Mapping[str, str], most: int = 30) -> tuple[str, ...]:
    """Return a line for each case that something befell."""
    shown = [reason if case_id in reason else f"{case_id}: {reason}" for case_id, reason in list(found.items())[:most]]
    return (*shown, f"and {len(found) - most} more") if len(found) > most else tuple(shown)


def scored(data: ReportData) -> list[str]:
    """Return the columns of the class table: all figures but volumes, which have their own."""
    if data.summary is None or data.rows is None:
        return []
    return [name for name in data.summary["classes_mean"] if not is_volume(name)]


def summary_of(data: ReportData) -> Mapping[str, Any]:
    """Return the summary of a report that has one."""
    assert data.summary is not None
    return data.summary


def presence_counts(data: ReportData) -> dict[str, int]:
    """Count over all classes where one was missed, and where one was found that is not there."""
    entries = summary_of(data)["classes"].values()
    return {what: sum(entry["presence"][what] for entry in entries) for what in ("missed", "false_positive")}
