"""Gathers what a report tells from the records of a run and the files beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.datasets.base import Case
from pipeline.datasets.fold_audit import contents_of, find_leaks
from pipeline.imaging.geometry import canonical
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import HuWindow
from pipeline.imaging.read import read_case, read_label
from pipeline.metrics.scoring import class_members
from pipeline.provenance import environment
from pipeline.records import (
    CaseTable,
    DatasetFacts,
    Evaluation,
    IngestedCase,
    PredictionTable,
    Record,
    SamplingPlan,
    TrainedModel,
)
from pipeline.stages.base import StageContext
from pipeline.stages.evaluate import GIVEN, OUT_OF_FOLD, TEST
from pipeline.stages.pictures import colour_of, overlay_figure
from pipeline.stages.report.classification import class_report
from pipeline.stages.report.data import Baseline, CaseLine, Cost, Overlay, ReportData, Training

if TYPE_CHECKING:
    import pandas as pd

_NO_SCORES = ("epoch", "step", "rate", "loss", "gradient_norm")
"""Columns of a training's history that are not figures of its validation."""


@dataclass(frozen=True)
class Inputs:
    """The records that a report is made from."""

    survey: DatasetFacts
    ingest: CaseTable
    sample: tuple[SamplingPlan, ...]
    train: tuple[TrainedModel, ...]
    predict: tuple[PredictionTable, ...]
    evaluate: Evaluation

    def in_order(self) -> tuple[Record, ...]:
        """Return the records in the order in which they were made, fold by fold."""
        return (self.survey, self.ingest, *self.sample, *self.train, *self.predict, self.evaluate)


def collect(context: StageContext, inputs: Inputs, *, pictures: int) -> ReportData:
    """Read tables and draw pictures.

    Args:
        context: Of the report's stage.
        inputs: Finished stages.
        pictures: How many cases to draw.
    """
    labels = inputs.ingest.labels
    names = tuple(class_members(labels)) if context.parts.task.reads_masks else inputs.ingest.class_names
    task, classes = context.parts.task, None
    if task.reads_masks:
        sets, summary = _tables(inputs.evaluate)
    else:
        sets, summary = {}, {}
        cache = context.machine.cache
        classes = class_report(inputs.ingest, inputs.evaluate, cache, exclusive=task.is_exclusive, pictures=pictures)
    first = next((name for name in (OUT_OF_FOLD, TEST, GIVEN) if name in sets), None)
    tested = first == OUT_OF_FOLD and TEST in sets
    return ReportData(
        run_name=context.run_name,
        created=time.strftime("%Y-%m-%d %H:%M"),
        task=context.parts.task.name,
        dataset=context.parts.dataset.name,
        network=context.parts.network.name,
        class_names=names,
        class_colours={name: colour_of(number) for number, name in enumerate(names, 1)},
        cases=tuple(_case_line(row, inputs.survey, labels) for row in inputs.ingest.cases),
        rows=sets[first] if first else None,
        summary=summary[first] if first else None,
        which=first or OUT_OF_FOLD,
        test=(sets[TEST], summary[TEST]) if tested else None,
        baseline={name: Baseline(**entry) for name, entry in summary.get("threshold_baseline", {}).items()},
        postprocess=summary.get("postprocess", {}),
        trainings=tuple(_training(model) for model in inputs.train),
        overlays=tuple(_overlays(inputs, sets[first], summary[first], pictures)) if first and pictures else (),
        patches=_patches(inputs.sample),
        costs=tuple(_costs(inputs.in_order())),
        environment=environment(),
        config_yaml=context.config_yaml,
        dropped=inputs.ingest.dropped,
        failed={row.case_id: row.failure for table in inputs.predict for row in table.predictions if row.failure},
        leaks=_leaks(context, inputs),
        not_run=_not_run(inputs),
        verdict=classes.verdict if classes else "",
        cards=classes.cards if classes else (),
        extra=classes.sections if classes else (),
    )


def rank(rows: pd.DataFrame, column: str, classes: Sequence[str]) -> pd.Series[float]:
    """Return the mean of a figure over classes for each case, the best case first; cases without any left out."""
    chosen = rows[rows["class"].isin(list(classes))]
    means = chosen.groupby("case_id")[column].mean().dropna()
    return means.sort_values(ascending=False, kind="stable")


def spread(count: int, wanted: int) -> list[tuple[str, int]]:
    """Choose places in a ranking of `count` cases, evenly from the best to the worst, with words for them."""
    if count == 0 or wanted == 0:
        return []
    places = sorted({int(place) for place in np.round(np.linspace(0, count - 1, min(wanted, count)))})
    if len(places) == 1:
        return [("Best", 0)]
    words = {places[0]: "Best", places[-1]: "Worst"}
    if len(places) % 2:
        words[places[len(places) // 2]] = "Median"
    return [(words.get(place, f"Number {place + 1} of {count}"), place) for place in places]


def _tables(evaluation: Evaluation) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """Return the rows of each set of predictions, and the summary."""
    import pandas as pd

    types: dict[str, Any] = {"case_id": str, "group": str, "class": str, "fold": "Int64"}
    # Only an empty field is no figure: `NA` may be the name of a case.
    rows = pd.read_csv(evaluation.path(evaluation.per_case), dtype=types, keep_default_na=False, na_values=[""])
    summary: dict[str, Any] = json.loads(evaluation.path(evaluation.summary).read_text())
    return {str(name): part for name, part in rows.groupby("set", sort=False)}, summary


def _case_line(row: IngestedCase, survey: DatasetFacts, labels: Labels) -> CaseLine:
    facts, case = survey.facts[row.case.case_id], row.case
    volumes = {}
    for name, indices in class_members(labels).items():
        parts = [labels.classes[index] for index in indices]
        annotated = case.annotated is None or name in case.annotated or set(parts) <= set(case.annotated)
        if annotated and all(part in facts.classes for part in parts):
            volumes[name] = sum(facts.classes[part].volume_ml for part in parts)
    return CaseLine(
        case_id=case.case_id,
        group=case.patient,
        spacing_mm=facts.canonical_spacing_mm,
        shape=facts.canonical_shape,
        volumes_ml=volumes,
        fold=row.fold,
        split=case.split,
        site=case.site,
        classes=case.classes,
    )


def _training(model: TrainedModel) -> Training:
    import pandas as pd

    history = pd.read_csv(model.path(model.history))
    scores = [name for name in history.columns if name not in _NO_SCORES]
    return Training(
        name=_stage_name(model).removeprefix("train-").replace("fold", "fold ").replace("all", "all cases"),
        history=history,
        epochs=model.epochs,
        steps=model.steps,
        best_epoch=model.best_epoch,
        best_score=model.best_score,
        seconds=model.seconds,
        parameters=model.parameters,
        ended=model.ended,
        score="dice" if "dice" in scores else scores[0] if scores else "dice",
    )


def _overlays(inputs: Inputs, rows: pd.DataFrame, summary: Mapping[str, Any], wanted: int) -> Iterator[Overlay]:
    """Draw the best, the median and the worst case; one volume is in memory at a time."""
    column = next(iter(summary["classes_mean"]), None)
    if column is None:
        return
    ranking = rank(rows, column, summary["headline"])
    masks = {row.case_id: table.path(row.mask) for table in inputs.predict for row in table.predictions if row.mask}
    cases, window = inputs.ingest.by_id(), _window(inputs.train)
    for role, place in spread(len(ranking), wanted):
        case_id = str(ranking.index[place])
        picture = _picture(cases[case_id].case, masks[case_id], inputs.ingest.labels, window)
        yield Overlay(role, case_id, float(ranking.iloc[place]), picture)


def _picture(case: Case, mask: Path, labels: Labels, window: tuple[float, float] | None) -> bytes:
    """Draw a case in canonical orientation: its first channel, its label and its prediction."""
    volumes, label = read_case(case.images, case.label, labels, case_id=case.case_id)
    image, _ = canonical(next(iter(volumes.values())))
    truth = canonical(label)[0].voxels[0] if label else None
    prediction, _ = canonical(read_label(mask, labels, case_id=case.case_id))
    return overlay_figure(
        image.voxels[0],
        image.geometry.spacing_mm,
        truth,
        prediction.voxels[0],
        class_names=labels.classes,
        window=window,
    )


def _window(models: Sequence[TrainedModel]) -> tuple[float, float] | None:
    """Return the intensities that the network tells apart, where they are the same for every case."""
    first = models[0].recipe.normalise[0] if models else None
    return first.range_hu if isinstance(first, HuWindow) else None


def _patches(plans: Sequence[SamplingPlan]) -> bytes | None:
    path = plans[0].path("patches.png") if plans else None
    return path.read_bytes() if path and path.is_file() else None


def _costs(records: Sequence[Record]) -> Iterator[Cost]:
    for record in records:
        try:
            cost = json.loads(record.path("cost.json").read_text())
        except (OSError, ValueError):
            continue
        yield Cost(_stage_name(record), float(cost["seconds"]), float(cost["peak_memory_mb"]))


def _stage_name(record: Record) -> str:
    """Return `train-fold0` for a record in the folder `train-fold0-e29afdfe`."""
    return record.path("").name.rpartition("-")[0]


def _leaks(context: StageContext, inputs: Inputs) -> tuple[str, ...]:
    """Return what leaks between folds; only a config that allows it comes this far with any."""
    rows = inputs.ingest.cases
    folds = {row.case.case_id: row.fold for row in rows if row.fold is not None}
    contents = contents_of(inputs.survey.facts)
    leaks = find_leaks([row.case for row in rows], folds, context.parts.folds, contents)
    return tuple(leak.text() for leak in leaks)


def _not_run(inputs: Inputs) -> tuple[int, ...]:
    """Return the folds that cases are in and no prediction is of; none where no fold was run at all."""
    there = {row.fold for row in inputs.ingest.cases if row.fold is not None}
    ran = {row.fold for table in inputs.predict for row in table.predictions if row.fold is not None}
    return tuple(sorted(there - ran)) if ran else ()
