"""The page on a batch: every series with its verdict, what became of it, and a picture, in one file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.batch.child import Child
from pipeline.batch.previews import grey_png, smaller
from pipeline.dicom.audit import Judged
from pipeline.dicom.series import Series
from pipeline.dicom.thumbnail import thumbnail
from pipeline.errors import DataError, listed, plural
from pipeline.stages.report.page import Card, Cell, Column, Figure, Item, Note, Page, Row, Section, Table, png, render
from pipeline.version import __version__
from pipeline.workspace import write_text

_GOOD, _DOUBT, _BAD, _NEUTRAL = "#2bb673", "#e69f00", "#d1495b", "#9aa5b1"
_MOST_PICTURES = 400
"""A page with more pictures than this is slow to open; the first ones are shown, what needs a look before the rest."""


@dataclass(frozen=True)
class Listed:
    """What the page says of a series."""

    what: str
    """Modality and description."""
    slices: int
    notes: str
    series: Series | None = None
    """To draw a thumbnail of; None where there is to be none, since a series takes memory."""


def list_series(judged: Mapping[str, Judged], *, draw: bool = True) -> dict[str, Listed]:
    """Return what the page says of audited series, by case id; `draw` keeps the series for thumbnails."""
    found = {}
    for case_id, one in judged.items():
        header = one.series.header
        what = " ".join(part for part in (header.modality, header.description) if part)
        notes = "; ".join(one.verdict.notes)
        found[case_id] = Listed(what, len(one.series.planes), notes, one.series if draw else None)
    return found


def write_page(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    series: Mapping[str, Listed],
    *,
    title: str = "Batch inference",
    created: str = "",
    child: Child | None = None,
) -> Path:
    """Write `report.html`.

    Args:
        folder: OUT, with `previews/` where there are pictures of finished cases.
        rows: Of `status.csv`: `case`, `status`, `reason` and whatever else they have.
        series: Case id -> what to say of it, for cases that come from exports.
        title: Heading.
        created: Date and time to show.
        child: Draws thumbnails of series without a preview, where given.

    Returns:
        The file.
    """
    page = build_page(rows, series, _pictures(folder, rows, series, child), title=title, created=created)
    path = folder / "report.html"
    write_text(path, render(page))
    return path


def build_page(
    rows: Sequence[Mapping[str, Any]],
    series: Mapping[str, Listed],
    pictures: Mapping[str, bytes],
    *,
    title: str,
    created: str,
) -> Page:
    """Lay the page out; `pictures` are small PNG files by case id."""
    counts = Counter(_kind(row) for row in rows)
    ordered = sorted(rows, key=lambda row: (_ORDER.index(_kind(row)), str(row.get("case", ""))))
    shown = [_figure(row, pictures[case]) for row in ordered if (case := str(row.get("case", ""))) in pictures]
    return Page(
        title=title,
        subtitle=f"{plural(len(rows), 'case')}{f' · {created}' if created else ''}",
        verdict=_verdict(counts, len(rows)),
        cards=tuple(Card(words, str(counts[kind])) for kind, words in _WORDS.items() if counts[kind]),
        notes=tuple(_notes(rows)),
        sections=(
            Section("cases", "Cases", (_table(ordered, series),), "What needs a look stands first."),
            Section("pictures", "Pictures", _gallery(shown)),
        ),
        footer=f"Made by pipeline {__version__}. For research; not a medical device.",
    )


_WORDS = {"failed": "Failed", "review": "To review", "done": "Done", "passed": "Not predicted"}
_ORDER = ("failed", "review", "done", "passed")
_COLOURS = {"failed": _BAD, "review": _DOUBT, "done": _GOOD, "passed": _NEUTRAL}
_FAILED = ("failed", "quarantined")


def _kind(row: Mapping[str, Any]) -> str:
    status = str(row.get("status", ""))
    if status in _FAILED:
        return "failed"
    if status == "review" or (status == "done" and row.get("review")):
        return "review"
    return "done" if status == "done" else "passed"


def _verdict(counts: Counter[str], total: int) -> str:
    if not total:
        return "Nothing was found to predict."
    done = counts["done"] + counts["review"]
    parts = [f"{done} of {plural(total, 'case')} {'has' if done == 1 else 'have'} a result"]
    if counts["review"]:
        parts.append(f"{counts['review']} of them should be looked at")
    if counts["passed"]:
        parts.append(f"{counts['passed']} {'was' if counts['passed'] == 1 else 'were'} refused or not selected")
    if counts["failed"]:
        parts.append(f"{counts['failed']} failed")
    return f"{listed(parts)}."


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[Note]:
    failed = [f"{row.get('case')}: {row.get('reason')}" for row in rows if _kind(row) == "failed"]
    return [Note(f"{plural(len(failed), 'usable case')} without a result:", items=tuple(failed))] if failed else []


def _table(rows: Sequence[Mapping[str, Any]], series: Mapping[str, Listed]) -> Item:
    columns = tuple(Column(name, numeric=name == "slices") for name in ("status", "case", "series", "slices", "why"))
    return Table(columns, tuple(_cells(row, series.get(str(row.get("case", "")))) for row in rows), sortable=True)


def _cells(row: Mapping[str, Any], found: Listed | None) -> tuple[Cell, ...]:
    kind, case = _kind(row), str(row.get("case", ""))
    return (
        Cell(str(row.get("status", "")) if kind != "review" else "review", colour=_COLOURS[kind]),
        Cell(_short(case), sort=case),
        Cell(found.what if found else ""),
        Cell(str(found.slices) if found else ""),
        Cell(_why(row, found)),
    )


def _why(row: Mapping[str, Any], found: Listed | None) -> str:
    said = [str(row.get(name) or "") for name in ("reason", "review", "note")]
    if found and found.notes not in said:
        said.append(found.notes)
    return "; ".join(dict.fromkeys(part for part in said if part))


def _figure(row: Mapping[str, Any], picture: bytes) -> Figure:
    case, kind = str(row.get("case", "")), _kind(row)
    said = str(row.get("reason") or row.get("review") or "")
    status = "review" if kind == "review" else str(row.get("status", ""))
    caption = f"{status}{f': {said}' if said else ''}"
    return Figure(png(picture), f"Case {case}", caption=caption, title=_short(case), is_dark=True)


def _short(case: str) -> str:
    """Return the end of a long UID, which tells it from others."""
    return case if len(case) <= 26 else f"..{case[-24:]}"


def _gallery(figures: Sequence[Figure]) -> tuple[Item, ...]:
    return (Row(tuple(figures[:_MOST_PICTURES])),) if figures else ()


def _pictures(
    folder: Path, rows: Sequence[Mapping[str, Any]], series: Mapping[str, Listed], child: Child | None
) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for row in rows:
        case = str(row.get("case", ""))
        preview = folder / "previews" / f"{case}.png"
        drawn = series[case].series if case in series else None
        picture = _of_preview(preview) if preview.exists() else b""
        if not picture and child is not None and drawn is not None:
            picture = _thumbnail(child, case, drawn)
        if picture:
            found[case] = picture
        if len(found) >= _MOST_PICTURES:
            break
    return found


def _of_preview(preview: Path) -> bytes:
    """Return a small preview; empty where its file is damaged or went away: no page fails over a picture."""
    try:
        return _small(preview, preview.stat().st_mtime_ns)
    except (OSError, ValueError, SyntaxError):
        return b""


@lru_cache(maxsize=_MOST_PICTURES)
def _small(preview: Path, changed: int) -> bytes:
    """Shrink a preview, once: a watched folder has its page written after every series."""
    return smaller(preview.read_bytes())


def _thumbnail(child: Child, case_id: str, series: Series) -> bytes:
    """Draw a series without a preview; empty where it cannot be decoded, whatever it does to the child."""
    try:
        grey = child.run(case_id, thumbnail, series)
    except (DataError, RuntimeError):
        return b""
    return grey_png(grey) if grey.size else b""
