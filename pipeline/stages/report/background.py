"""The sections of a report that say how the result came about: training, data, stages and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import listed
from pipeline.metrics.columns import label_of
from pipeline.progress import clock
from pipeline.stages.report.data import ReportData, Training
from pipeline.stages.report.page import Cell, Column, Facts, Figure, Item, Section, Table, Text, number, png, svg
from pipeline.stages.report.plots import curves
from pipeline.stages.report.words import volume


def training_section(data: ReportData) -> Section:
    """Return loss and scores over epochs, and a line for each model."""
    items: list[Item] = []
    if data.trainings:
        items = [_curves(data.trainings), _training_table(data.trainings)]
    return Section("training", "Training", tuple(items), "One line a model; the ring marks the epoch that was kept.")


def _curves(trainings: Sequence[Training]) -> Figure:
    score = trainings[0].score
    panels = {"Training loss": {t.name: _curve(t, "loss") for t in trainings}}
    if any(score in t.history for t in trainings):
        panels[f"Validation {label_of(score)}"] = {t.name: _curve(t, score) for t in trainings if score in t.history}
    kept = {training.name: float(training.best_epoch) for training in trainings}
    return Figure(svg(curves(panels, kept)), alt=f"{listed(list(panels))} over epochs")


def _curve(training: Training, column: str) -> tuple[Any, Any]:
    return training.history["epoch"].to_numpy(float), training.history[column].to_numpy(float)


def _training_table(trainings: Sequence[Training]) -> Table:
    heads = (
        Column("Model", numeric=False), Column("epochs"), Column("steps"), Column("epoch kept"),
        Column("score", hint="of the validation during training, with coarser windows than the results above"),
        Column("parameters"), Column("time"), Column("Ended", numeric=False),
    )  # fmt: skip
    rows = [
        (
            Cell(t.name), Cell(str(t.epochs)), Cell(f"{t.steps:,}".replace(",", " ")), Cell(str(t.best_epoch)),
            Cell(number(t.best_score)), Cell(f"{t.parameters / 1e6:.2f} M"), Cell(clock(t.seconds), sort=t.seconds),
            Cell(t.ended),
        )
        for t in trainings
    ]  # fmt: skip
    return Table(heads, tuple(rows))


def data_section(data: ReportData) -> Section:
    """Return grids, volumes, folds and sampled patches."""
    if not data.cases:
        return Section("data", "Data", ())
    items: list[Item] = [_data_facts(data)]
    if any(case.volumes_ml for case in data.cases):
        items.append(_volume_table(data))
    if any(case.fold is not None for case in data.cases):
        items.append(_fold_table(data))
    if data.patches:
        items.append(
            Figure(
                png(data.patches),
                alt="Training patches with their labels",
                title="Training patches",
                caption="One patch a class, as the network is trained on, before augmentation; labels filled.",
                is_dark=True,
            )
        )
    return Section("data", "Data", tuple(items), "What the networks learned from, as the source files have it.")


def _data_facts(data: ReportData) -> Facts:
    spacing = np.array([case.spacing_mm for case in data.cases])
    shape = np.array([case.shape for case in data.cases])
    groups, sites = {case.group for case in data.cases}, {case.site for case in data.cases} - {""}
    test = sum(case.split == "test" for case in data.cases)
    items = [
        ("cases", f"{len(data.cases)}" + (f", {test} of them for testing" if test else "")),
        ("patients (groups)", str(len(groups))),
        *([("sites", str(len(sites)))] if sites else []),
        ("classes", str(len(data.class_names))),
        ("voxel size, median", f"{' × '.join(f'{v:.3g}' for v in np.median(spacing, axis=0))} mm (D × H × W)"),
        ("voxel size, range", f"{spacing.min():.3g} to {spacing.max():.3g} mm"),
        ("shape, median", f"{' × '.join(f'{v:.0f}' for v in np.median(shape, axis=0))} voxels"),
        ("shape, range", " × ".join(_range(side) for side in shape.T)),
    ]
    return Facts(tuple(items))


def _range(values: NDArray[np.int64]) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}–{high}"


def _volume_table(data: ReportData) -> Table:
    heads = (
        Column("Class", numeric=False), Column("labelled in", hint="cases in which the class was annotated"),
        Column("present in"), Column("median", "ml"), Column("smallest", "ml"), Column("largest", "ml"),
    )  # fmt: skip
    rows = []
    for name in data.class_names:
        known = [case.volumes_ml[name] for case in data.cases if name in case.volumes_ml]
        there = [value for value in known if value > 0]
        figures = (np.median(there), min(there), max(there)) if there else (None, None, None)
        rows.append(
            (
                Cell(name, colour=data.class_colours.get(name, "")), Cell(str(len(known))), Cell(str(len(there))),
                *(Cell(volume(value)) for value in figures),
            )
        )  # fmt: skip
    return Table(heads, tuple(rows), caption="Classes")


def _fold_table(data: ReportData) -> Table:
    folds = sorted({case.fold for case in data.cases if case.fold is not None})
    parts = [(f"fold {fold}", [case for case in data.cases if case.fold == fold]) for fold in folds]
    test = [case for case in data.cases if case.split == "test"]
    if test:
        parts.append(("test", test))
    shown = data.class_names[:12]
    heads = (
        Column("Validated in", numeric=False), Column("cases"), Column("patients"),
        *(Column(name, hint=f"cases that have {name}") for name in shown),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(name), Cell(str(len(cases))), Cell(str(len({case.group for case in cases}))),
            *(Cell(str(sum(case.volumes_ml.get(c, 0) > 0 or c in case.classes for case in cases))) for c in shown),
        )
        for name, cases in parts
    )  # fmt: skip
    return Table(heads, rows, caption="Folds: cases with each class; no patient is in two")


def run_section(data: ReportData) -> Section:
    """Return time and memory of each stage, versions and the whole configuration."""
    items: list[Item] = []
    if data.costs:
        longest = max(cost.seconds for cost in data.costs) or 1.0
        largest = max(cost.peak_memory_mb for cost in data.costs) or 1.0
        heads = (Column("Stage", numeric=False), Column("time", numeric=False), Column("peak memory", numeric=False))
        rows = [
            (
                Cell(cost.stage),
                Cell(
                    clock(cost.seconds) if cost.seconds >= 60 else f"{cost.seconds:.1f} s", bar=cost.seconds / longest
                ),
                Cell(f"{cost.peak_memory_mb / 1024:.2f} GiB", bar=cost.peak_memory_mb / largest),
            )
            for cost in data.costs
        ]
        total = sum(cost.seconds for cost in data.costs)
        rows.append((Cell("together"), Cell(clock(total)), Cell(f"{largest / 1024:.2f} GiB at most")))
        items.append(Table(heads, tuple(rows), caption="Time and memory", total=True))
    if data.environment:
        items.append(Facts(_environment(data.environment)))
    if data.config_yaml:
        items.append(Text(data.config_yaml, is_code=True, folded="Configuration in full, as it was resolved"))
    return Section("run", "How it was made", tuple(items))


def _environment(environment: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    plain = [(name, str(value)) for name, value in environment.items() if not isinstance(value, Mapping)]
    nested = [pair for value in environment.values() if isinstance(value, Mapping) for pair in value.items()]
    return (*plain, *((str(name), str(value)) for name, value in nested))
