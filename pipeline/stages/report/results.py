"""The sections of a report that say how good the predictions are: by class, and by case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import listed
from pipeline.metrics.columns import label_of, unit_of
from pipeline.stages.report.data import ReportData
from pipeline.stages.report.page import Cell, Column, Figure, Item, Row, Section, Table, Text, number, png, svg
from pipeline.stages.report.plots import distributions, volumes
from pipeline.stages.report.words import figure, is_share, scored, signed, sort_key, summary_of, titled, volume

if TYPE_CHECKING:
    import pandas as pd

_MOST_ROWS = 400
"""Cases that the table shows, the worst first; `per_case.csv` has all."""


def results_section(data: ReportData) -> Section:
    """Return the table of classes and the distribution of each metric."""
    columns = scored(data)
    items: list[Item] = []
    if columns:
        items.append(_class_table(data, columns))
        items.append(_distribution(data, columns))
        items += _volume_items(data)
        items.append(Text(_definitions(data, columns), folded="How these figures are defined"))
    diamond = ": the dot is the network, the diamond the best intensity threshold" if data.baseline else ""
    lead = (
        "Mean over cases, and below it the 95 % interval from resampling whole patients. "
        f"The line beside each class draws the first metric from 0 to 1{diamond}."
    )
    if data.which == "test":
        return Section("test", "Test cases", tuple(items), lead)
    return Section("results", "Results", tuple(items), lead)


def _class_table(data: ReportData, columns: Sequence[str]) -> Table:
    summary = summary_of(data)
    first = columns[0]
    heads = [Column("Class", numeric=False)]
    if is_share(first):
        heads.append(Column("0 to 1", numeric=False, hint=f"{label_of(first)}: mean and interval"))
    for column in columns:
        heads += [Column(label_of(column), unit_of(column), hint="mean, with its 95 % interval")]
        if column == first:
            heads.append(Column("median"))
    heads += [
        Column("n", hint="cases in which the class is in the reference or in the prediction"),
        Column("missed", hint="cases that have the class, and the prediction has not a voxel of it"),
        Column("false +", hint="cases without the class in which the prediction has it"),
    ]
    if data.baseline:
        heads.append(
            Column("threshold", "Dice", hint="best intensity window for the class, then the largest component")
        )
    rows = [_class_row(data, name, columns) for name in summary["classes"]]
    several = len(summary["headline"]) > 1
    if several:
        rows.append(_mean_row(data, columns))
    return Table(tuple(heads), tuple(rows), total=several, is_stacked=True)


def _class_row(data: ReportData, name: str, columns: Sequence[str]) -> tuple[Cell, ...]:
    entry = summary_of(data)["classes"][name]
    first = entry["metrics"][columns[0]]
    baseline = data.baseline.get(name)
    cells = [Cell(name, colour=data.class_colours.get(name, ""))]
    if is_share(columns[0]):
        cells.append(_interval_cell(first, baseline.mean if baseline else None))
    for column in columns:
        cells.append(_mean_cell(column, entry["metrics"][column]))
        if column == columns[0]:
            cells.append(Cell(figure(column, first["median"])))
    cells += [
        Cell(str(first["n"])),
        Cell(str(entry["presence"]["missed"])),
        Cell(str(entry["presence"]["false_positive"])),
    ]
    if data.baseline:
        cells.append(Cell(number(baseline.mean if baseline else None)))
    return tuple(cells)


def _mean_row(data: ReportData, columns: Sequence[str]) -> tuple[Cell, ...]:
    summary = summary_of(data)
    chosen = summary["headline"]
    name = "mean" if len(chosen) == len(summary["classes"]) else f"mean of {listed(chosen)}"
    baselines = [data.baseline[c].mean for c in chosen if c in data.baseline and data.baseline[c].mean is not None]
    baseline = float(np.mean([value for value in baselines if value is not None])) if baselines else None
    cells = [Cell(name if len(name) < 34 else f"mean of {len(chosen)} classes")]
    if is_share(columns[0]):
        cells.append(_interval_cell(summary["classes_mean"][columns[0]], baseline))
    for column in columns:
        cells.append(_mean_cell(column, summary["classes_mean"][column]))
        if column == columns[0]:
            cells.append(Cell(""))
    counts = [sum(summary["classes"][c]["presence"][what] for c in chosen) for what in ("missed", "false_positive")]
    cells += [Cell(""), *(Cell(str(count)) for count in counts)]
    if data.baseline:
        cells.append(Cell(number(baseline)))
    return tuple(cells)


def _interval_cell(figures: Mapping[str, Any], mark: float | None) -> Cell:
    if figures["mean"] is None:
        return Cell("–")
    low, high = (figures["mean"] if figures[end] is None else figures[end] for end in ("low", "high"))
    shares = [min(max(value, 0.0), 1.0) for value in (low, figures["mean"], high)]
    return Cell(number(figures["mean"]), interval=(shares[0], shares[1], shares[2]), mark=mark)


def _mean_cell(column: str, figures: Mapping[str, Any]) -> Cell:
    interval = "" if figures["low"] is None else f"{figure(column, figures['low'])}–{figure(column, figures['high'])}"
    return Cell(
        figure(column, figures["mean"]), sort=figures["mean"] if figures["mean"] is not None else "", detail=interval
    )


def _distribution(data: ReportData, columns: Sequence[str]) -> Figure:
    rows = data.rows
    assert rows is not None
    shown = columns[:3]
    panels = {
        titled(column): {name: rows.loc[rows["class"] == name, column].tolist() for name in data.class_names}
        for column in shown
    }
    bounds = {titled(column): _bounds(rows[column].tolist(), column) for column in shown}
    drawing = distributions(panels, data.class_colours, bounds)
    return Figure(
        svg(drawing),
        alt=f"Distribution of {listed([label_of(column) for column in shown])} over cases, by class",
        caption="Each dot is a case. The box runs from the first to the third quartile; the line in it is the median.",
        title="Every case",
    )


def _bounds(values: Sequence[float], column: str) -> tuple[float, float]:
    """Return the ends of an axis: 1 or 0 is where perfection lies, and outliers stay visible."""
    known = [value for value in values if not math.isnan(value)] or [0.0]
    if is_share(column):
        low = max(0.0, math.floor((min(known) - 0.02) * 10) / 10)
        return low - 0.015 * (1 - low), 1.0 + 0.015 * (1 - low)
    return -0.02 * max(known) - 1e-6, max(known) * 1.04 + 1e-6


def _volume_items(data: ReportData) -> list[Item]:
    rows = data.rows
    if rows is None or "volume_ml" not in rows:
        return []
    own = {name: rows[(rows["class"] == name) & rows["reference_ml"].notna()] for name in data.class_names}
    pairs = {name: (part["reference_ml"].tolist(), part["volume_ml"].tolist()) for name, part in own.items()}
    drawing = Figure(
        svg(volumes(pairs, data.class_colours)),
        alt="Predicted against true volume of every case and class",
        title="Volumes",
        caption="On the grey line both are equal; what lies above it is drawn too large.",
    )
    heads = (
        Column("Class", numeric=False),
        Column("volume", "ml", hint="median of the reference"),
        Column("error", "ml", hint="mean of prediction less reference, with its standard deviation"),
        Column("error", "%", hint="median of prediction less reference, as a share of the reference"),
        Column("abs. error", "%", hint="median, whatever the sign"),
    )
    lines = tuple(_volume_row(name, part, data.class_colours.get(name, "")) for name, part in own.items())
    return [Row((drawing, Table(heads, lines)))]


def _volume_row(name: str, part: pd.DataFrame, colour: str) -> tuple[Cell, ...]:
    errors, percent = part["volume_error_ml"], part["volume_error_percent"]
    mean, middle = float(errors.mean()), float(percent.median())
    return (
        Cell(name, colour=colour),
        Cell(volume(part["reference_ml"].median())),
        Cell(signed(volume(abs(mean)), mean), detail=f"± {volume(errors.std())}" if len(errors) > 1 else ""),
        Cell(signed(number(abs(middle), 1), middle)),
        Cell(number(percent.abs().median(), 1)),
    )


def _definitions(data: ReportData, columns: Sequence[str]) -> str:
    known = {
        "dice": "Dice is twice the shared volume by the sum of both volumes.",
        "nsd": "NSD is the share of both surfaces, counted in border voxels, that lies within the tolerance of the "
        "other surface.",
        "hd95": "HD95 is the larger of the two directed 95th percentiles of the distances between the surfaces.",
        "assd": "ASSD is the mean distance over the border voxels of both surfaces.",
    }
    used = [text for key, text in known.items() if any(column.startswith(key) for column in columns)]
    draws = summary_of(data)["interval"]["draws"]
    return " ".join(
        [
            *used,
            "All are computed on the grid of the reference. A class that is in neither mask has no figure and counts "
            "in no mean; one that is missed, or found where there is none, has a Dice and NSD of 0 and no distance, so "
            "read distances together with the columns missed and false positives.",
            f"Intervals come from {draws} bootstrap samples of whole patients (expanded percentiles), since cases of "
            "one patient are alike; they do not cover how the network would differ with another seed.",
        ]
    )


def cases_section(data: ReportData) -> Section:
    """Return pictures of the best, the median and the worst case, and the table of all."""
    items: list[Item] = []
    for overlay in data.overlays:
        items.append(
            Figure(
                png(overlay.picture),
                alt=f"{overlay.role} case {overlay.case_id} in three planes, reference and prediction outlined",
                title=f"{overlay.role}: {overlay.case_id}",
                caption=f"Mean {label_of(scored(data)[0]) if scored(data) else 'score'} {overlay.score:.3f}. "
                "White: reference. Coloured: prediction. The patient's left is on the right.",
                is_dark=True,
            )
        )
    if scored(data):
        items.append(_case_table(data, scored(data)[0]))
    lead = (
        "Ranked by the mean over classes. Each plane shows the slice with most of what is labelled, "
        "classes weighing alike."
    )
    return Section("cases", "Cases", tuple(items), lead)


def _case_table(data: ReportData, column: str) -> Table:
    import pandas as pd

    assert data.rows is not None
    wide = data.rows.pivot_table(index="case_id", columns="class", values=column, dropna=False, observed=True)
    wide = wide.reindex(columns=list(data.class_names))
    means = wide.mean(axis=1)
    order = means.sort_values(na_position="last").index[:_MOST_ROWS]
    facts = data.rows.drop_duplicates("case_id").set_index("case_id")
    rows = []
    for case_id in order:
        fold = facts.loc[case_id].get("fold")
        where = "–" if fold is None or pd.isna(fold) else str(int(fold))
        cells = [
            Cell(str(case_id)),
            Cell(str(facts.loc[case_id, "group"])),
            Cell(where),
            Cell(figure(column, means[case_id]), sort=sort_key(means[case_id])),
        ]
        for name in data.class_names:
            value = wide.loc[case_id, name]
            cells.append(
                Cell(figure(column, value), sort=sort_key(value), shade=shade(value) if is_share(column) else "")
            )
        rows.append(tuple(cells))
    heads = [Column("Case", numeric=False), Column("Group", numeric=False), Column("Fold"), Column("mean")]
    cut = f" The {_MOST_ROWS} worst of {len(means)} are shown." if len(means) > _MOST_ROWS else ""
    return Table(
        (*heads, *(Column(name) for name in data.class_names)),
        tuple(rows),
        caption=f"{label_of(column)} of every case, worst first; click a head to sort.{cut}",
        sortable=True,
    )


def shade(value: float) -> str:
    """Return a ground for a share of 1: white where perfect, through yellow to orange from 0.5 down; for any eyes."""
    if math.isnan(value):
        return "#f1f3f5"
    stops = ((0.5, (246, 178, 107)), (0.75, (252, 224, 164)), (0.9, (255, 246, 222)), (1.0, (255, 255, 255)))
    for (low, dark), (high, light) in pairwise(stops):
        if value <= high:
            part = max(0.0, (value - low) / (high - low))
            return "#" + "".join(f"{round(a + part * (b - a)):02x}" for a, b in zip(dark, light, strict=True))
    return "#ffffff"
