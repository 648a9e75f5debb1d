"""The section of a report that says which post-processing was tried, what it gained, and what is kept."""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import listed, plural
from pipeline.stages.report.data import ReportData
from pipeline.stages.report.page import Cell, Column, Section, Table, number


def postprocess_section(data: ReportData) -> Section:
    """Return one row a class: Dice as predicted, mended, mended by a choice made on other folds, and what is kept."""
    found = data.postprocess
    columns = (
        Column("Class", numeric=False),
        Column("as predicted", "Dice", hint="mean over the cases; a class that is in neither mask counts 1"),
        Column("mended", "Dice", hint="on the cases that the choice was made on, which flatters it"),
        Column("on other folds", "Dice", hint="each fold mended by what was chosen on the others"),
        Column("Rule", numeric=False),
        Column("Kept", numeric=False),
    )
    rows = tuple(_row(data, name, raw) for name, raw in found.get("raw", {}).items())
    tried = listed([_words(step) for step in found.get("tried", ())])
    lead = (
        f"Tried on the masks of {plural(found.get('cases', 0), 'case')} that their network had not seen: {tried}. Kept "
        "is what gains on other folds too; prediction of new volumes uses it. All other figures are of masks as "
        "predicted."
    )
    return Section("postprocess", "Post-processing", (Table(columns, rows),) if rows else (), lead)


def _row(data: ReportData, name: str, raw: float) -> tuple[Cell, ...]:
    gain = data.postprocess["classes"].get(name)
    first = (Cell(name, colour=data.class_colours.get(name, "")), Cell(number(raw, 4)))
    if gain is None:
        return (*first, Cell(number(None)), Cell(number(None)), Cell("none"), Cell("no gain"))
    rules = listed([_words(step) for step in gain["steps"]])
    kept = "yes" if gain["kept"] else "no, it does not carry over"
    return (*first, Cell(number(gain["mended"], 4)), Cell(number(gain["mended_nested"], 4)), Cell(rules), Cell(kept))


def _words(step: Mapping[str, Any]) -> str:
    return str(step["name"]).replace("_", " ")
