"""An audit as rows of a table: what a user needs to know of each series, and nothing that names a patient."""

import csv
import io
from collections.abc import Sequence

from pipeline.dicom.audit import Audit, Judged
from pipeline.dicom.geometry import grid_of, lies_right, stack_of
from pipeline.dicom.rules import Selection, plane_of
from pipeline.dicom.series import Series, hashed_id
from pipeline.errors import DataError

COLUMNS = (
    "study", "series", "number", "description", "modality", "slices", "rows", "columns", "row_spacing_mm",
    "column_spacing_mm", "step_mm", "thickness_mm", "plane", "orientation", "kernel", "contrast", "body_part",
    "image_type", "transfer_syntax", "verdict", "kind", "reason", "notes", "rules",
)  # fmt: skip
"""Columns of the CSV."""
_SHORT = ("series", "description", "modality", "slices", "size", "spacing", "plane", "verdict", "reason")
_WIDEST = {"series": 20, "description": 28, "reason": 90}
_RISKY = ("=", "+", "-", "@")


def rows(audit: Audit, selection: Selection | None = None, key: bytes | None = None) -> list[dict[str, str]]:
    """Return one row a series.

    Args:
        audit: What was found.
        selection: What rules chose; fills the column `rules`.
        key: Turns study and series UIDs into keyed hashes.
    """
    return [_row(judged, selection, key) for judged in audit.judged]


def to_csv(table: Sequence[dict[str, str]]) -> str:
    """Write rows as CSV; a text that a spreadsheet would run as a formula gets an apostrophe before it."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    texts = ("description", "kernel", "contrast", "body_part", "image_type", "reason", "notes")
    for row in table:
        safe = {name: f"'{row[name]}" for name in texts if row[name].startswith(_RISKY)}
        writer.writerow({**row, **safe})
    return stream.getvalue()


def to_text(table: Sequence[dict[str, str]]) -> str:
    """Lay rows out for a terminal: fewer columns, long texts cut."""
    shown = [[_cut(name, _short(row, name)) for name in _SHORT] for row in table]
    widths = [max(map(len, column)) for column in zip(_SHORT, *shown, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
             for line in [list(_SHORT), *shown]]  # fmt: skip
    return "\n".join(lines)


def _row(judged: Judged, selection: Selection | None, key: bytes | None) -> dict[str, str]:
    series, verdict = judged.series, judged.verdict
    header, plane = series.header, series.planes[0]
    row = dict.fromkeys(COLUMNS, "")
    row |= {
        "study": hashed_id(header.study_uid, key) if key else header.study_uid,
        "series": hashed_id(series.case_id, key) if key else series.case_id,
        "number": header.series_number, "description": header.description, "modality": header.modality,
        "slices": str(len(series.planes)), "rows": str(header.rows or ""), "columns": str(header.columns or ""),
        "thickness_mm": "" if plane.thickness is None else f"{plane.thickness:g}",
        "kernel": plane.kernel, "contrast": header.contrast, "body_part": header.body_part,
        "image_type": "\\".join(plane.image_type), "transfer_syntax": header.transfer_syntax,
        "verdict": verdict.status, "kind": verdict.kind, "reason": verdict.reason, "notes": "; ".join(verdict.notes),
        "rules": _rules(series.case_id, selection) if selection and verdict.is_usable else "",
    }  # fmt: skip
    return row | _places(judged)


def _places(judged: Judged) -> dict[str, str]:
    """Return spacing and orientation where the series has them, refused or not."""
    planes = judged.series.planes
    first = planes[0]
    if len(first.pixel_spacing) != 2 or min(first.pixel_spacing) <= 0:
        return {}
    spacing = {"row_spacing_mm": f"{first.pixel_spacing[0]:g}", "column_spacing_mm": f"{first.pixel_spacing[1]:g}"}
    if any(plane.position is None or not lies_right(plane.orientation) for plane in planes):
        return spacing
    try:
        return spacing | _lie(judged.series)
    except (DataError, ValueError, ArithmeticError):
        return spacing  # numbers that make no grid: the verdict says so


def _lie(series: Series) -> dict[str, str]:
    from pipeline.imaging.geometry import orientation

    stack, several = stack_of(series.planes), len(series.planes) > 1
    step = f"{stack.usual_step_mm:g}" if several else ""
    named = orientation(grid_of(stack)) if several and stack.step_mm > 0 else ""
    return {"step_mm": step, "orientation": named, "plane": plane_of(series)}


def _rules(case_id: str, selection: Selection) -> str:
    if case_id in selection.chosen:
        return ", ".join(selection.chosen[case_id])
    if case_id in selection.ambiguous:
        return f"ambiguous: {selection.ambiguous[case_id]}"
    if case_id in selection.passed_over:
        return f"passed over by {selection.passed_over[case_id]}"
    return "no rule matches"


def _short(row: dict[str, str], name: str) -> str:
    if name == "size":
        return f"{row['rows']}x{row['columns']}" if row["rows"] else ""
    if name == "spacing":
        return " x ".join(row[part] for part in ("step_mm", "row_spacing_mm", "column_spacing_mm") if row[part])
    if name == "reason":
        told = f"{row['kind']}: {row['reason']}" if row["kind"] else row["notes"]
        return "; ".join(part for part in (f"[{row['rules']}]" if row["rules"] else "", told) if part)
    return row[name]


def _cut(name: str, text: str) -> str:
    widest = _WIDEST.get(name, 40)
    if len(text) <= widest:
        return text
    # The end of a UID tells series apart, the beginning of a text says more.
    return f"..{text[-widest + 2 :]}" if name == "series" else f"{text[: widest - 2]}.."
