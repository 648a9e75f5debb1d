"""What the doctor found: findings with a severity, as a table for the terminal and for a spreadsheet."""

import csv
import io
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]

COLUMNS = ("severity", "case", "kind", "found", "remedy")
"""Columns of the CSV; `case` is empty where the finding is of the whole data set."""
_ORDER: dict[str, int] = {"error": 0, "warning": 1, "info": 2}
_EXIT_CODE: dict[str, int] = {"error": 2, "warning": 1, "info": 0}
_ALL = "all"
_MOST_ALIKE = 5
"""Of more findings of one kind than this, the terminal shows so many; the CSV holds all."""
_WIDTHS = (80, 200)
_RISKY = ("=", "+", "-", "@")


@dataclass(frozen=True)
class Finding:
    """One thing to know about a case, or about the whole data set."""

    severity: Severity
    """`error`: the case cannot or must not be used; `warning`: look at it; `info`: good to know."""
    case_id: str
    """Empty for the whole data set."""
    kind: str
    """A few words that are the same for all findings of this kind, to filter by."""
    found: str
    remedy: str = ""
    """What to do; empty where nothing is to be done."""


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity, then kind; whole-data-set findings first, cases in the order given."""
    kept = list(dict.fromkeys(findings))
    return sorted(kept, key=lambda one: (_ORDER[one.severity], one.kind, bool(one.case_id)))


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 2 where there are errors, 1 where there are warnings, 0 where there is neither."""
    return max((_EXIT_CODE[finding.severity] for finding in findings), default=0)


def to_csv(findings: Iterable[Finding]) -> str:
    """Write findings as CSV; a text that a spreadsheet would run as a formula gets an apostrophe before it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in findings:
        texts = [f"'{text}" if text.startswith(_RISKY) else text for text in (one.found, one.remedy)]
        writer.writerow([one.severity, one.case_id, one.kind, *texts])
    return stream.getvalue()


def to_text(findings: Sequence[Finding], width: int | None = None) -> str:
    """Lay findings out for a terminal.

    Args:
        findings: In the order to show them.
        width: Characters a line; by default those of the terminal.
    """
    if not findings:
        return ""
    narrowest, widest = _WIDTHS
    width = min(widest, max(narrowest, width or shutil.get_terminal_size((140, 24)).columns))
    rows = [("severity", "case", "what was found", "what to do"), *_collapsed(findings)]
    severity, case = (max(len(row[column]) for row in rows) for column in (0, 1))
    case = min(case, 28)
    rest = width - severity - case - 6
    widths = (severity, case, rest - rest * 2 // 5, rest * 2 // 5)
    return "\n".join(line for row in rows for line in _wrapped(row, widths))


def summary(findings: Sequence[Finding], cases: int) -> str:
    """Return one line that counts them: `71 cases: 0 errors, 2 warnings, 12 notes`."""
    from pipeline.errors import plural

    count = {severity: sum(one.severity == severity for one in findings) for severity in _ORDER}
    return (
        f"{plural(cases, 'case')}: {plural(count['error'], 'error')}, {plural(count['warning'], 'warning')}, "
        f"{plural(count['info'], 'note')}"
    )


def some(names: Sequence[str], most: int = 5) -> str:
    """List a few names: `a, b, c and 4 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(counts: Sequence[tuple[str, int]], noun: str = "") -> str:
    """List counts: `float32 (61), uint8 (10)`; the noun stands behind the first number."""
    return ", ".join(
        f"{name} ({count}{f' {noun}' if noun and at == 0 else ''})" for at, (name, count) in enumerate(counts)
    )


def note(kind: str, found: str, remedy: str = "") -> Finding:
    """Return something good to know of the whole data set."""
    return Finding("info", "", kind, found, remedy)


def _collapsed(findings: Sequence[Finding]) -> list[tuple[str, str, str, str]]:
    """Show the first few of many alike findings, and say how many more the CSV holds."""
    rows: list[tuple[str, str, str, str]] = []
    alike = dict[tuple[str, str], int]()
    total = dict[tuple[str, str], int]()
    for one in findings:
        total[one.severity, one.kind] = total.get((one.severity, one.kind), 0) + 1
    for one in findings:
        key = (one.severity, one.kind)
        alike[key] = alike.get(key, 0) + 1
        if alike[key] <= _MOST_ALIKE or total[key] == _MOST_ALIKE + 1:
            rows.append((one.severity, one.case_id or _ALL, one.found, one.remedy))
        elif alike[key] == _MOST_ALIKE + 1:
            rows.append((one.severity, "...", f"and {total[key] - _MOST_ALIKE} more: {one.kind} (see the CSV)", ""))
    return rows


def _wrapped(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    cells = [
        textwrap.wrap(text, width, break_on_hyphens=False) or [""] for text, width in zip(row, widths, strict=True)
    ]
    height = max(len(cell) for cell in cells)
    filled = [[*cell, *[""] * (height - len(cell))] for cell in cells]
    return [
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in zip(*filled, strict=True)
    ]
