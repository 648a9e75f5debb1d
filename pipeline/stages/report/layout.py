"""The page of a report from top to bottom, and what is read first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.errors import listed, plural
from pipeline.metrics.columns import label_of, unit_of
from pipeline.progress import clock
from pipeline.stages.report.background import data_section, run_section, training_section
from pipeline.stages.report.data import ReportData
from pipeline.stages.report.mending import postprocess_section
from pipeline.stages.report.page import Card, Note, Page
from pipeline.stages.report.results import cases_section, results_section
from pipeline.stages.report.words import figure, presence_counts, reasons, scored, summary_of


def build_page(data: ReportData) -> Page:
    """Lay out the report: the verdict, results, pictures, training, data, and how it was made."""
    patients = len({case.group for case in data.cases})
    what = f"{data.task.capitalize()} of {plural(len(data.class_names), 'class')}" if data.class_names else data.task
    amount = f"{data.dataset}, {plural(len(data.cases), 'case')} of {plural(patients, 'patient')}"
    results = [results_section(data), cases_section(data), postprocess_section(data), *data.extra]
    if data.test:
        results.insert(
            1, results_section(replace(data, rows=data.test[0], summary=data.test[1], which="test", baseline={}))
        )
    return Page(
        title=data.run_name,
        subtitle=f"{what} · {amount} · {data.network} · {data.created}",
        verdict=verdict(data),
        cards=cards(data),
        notes=notes(data),
        sections=(*results, training_section(data), data_section(data), run_section(data)),
        footer=f"Made by pipeline {data.environment.get('pipeline', '')} on {data.created}. "
        "For research; not a medical device.",
    )


def verdict(data: ReportData) -> str:
    """Say in a few sentences how good the result is, over what, and how hard the task was."""
    columns = scored(data)
    if data.verdict:
        return data.verdict
    if not columns:
        return f"{plural(len(data.trainings), 'model')} trained; no masks were evaluated." if not data.extra else ""
    summary, first = summary_of(data), columns[0]
    mean, classes = summary["classes_mean"][first], summary["headline"]
    over = listed(classes) if len(classes) < 6 else f"{len(classes)} classes"
    text = f"Mean {label_of(first)} over {over} is {figure(first, mean['mean'])}"
    if mean["low"] is not None:
        text += f" (95 % interval {figure(first, mean['low'])} to {figure(first, mean['high'])})"
    text += f" in {plural(summary['cases'], 'case')} of {plural(summary['groups'], 'patient')}"
    text += f"{'' if data.leaks else _WHICH.get(data.which, '')}."
    apart = [name for name in data.class_names if name not in classes]
    if apart:
        text += f" {listed(apart).capitalize()} {'is' if len(apart) == 1 else 'are'} reported apart."
    known = [data.baseline[name].mean for name in classes if name in data.baseline]
    easy = [value for value in known if value is not None]
    if easy:
        text += (
            f" For comparison, the best intensity threshold for each class reaches a mean Dice of {np.mean(easy):.2f}."
        )
    if data.test and (on_test := data.test[1]["classes_mean"][first]["mean"]) is not None:
        amount = plural(data.test[1]["cases"], "case")
        text += f" On {amount} set aside for testing, the networks together reach {figure(first, on_test)}."
    return text


_MOST_LEAKS = 10

_WHICH = {
    "out_of_fold": ", each predicted by a network that never saw its patient",
    "test": " set aside for testing, predicted by all networks together",
}


def cards(data: ReportData) -> tuple[Card, ...]:
    """Return the figures to show large: one a metric, then what was missed and how long training took."""
    found = list(data.cards)
    for column in scored(data)[:4]:
        mean, unit = summary_of(data)["classes_mean"][column], unit_of(column)
        interval = (
            "" if mean["low"] is None else f"95 %: {figure(column, mean['low'])} – {figure(column, mean['high'])}"
        )
        value = figure(column, mean["mean"]) + (f" {unit}" if unit else "")
        found.append(Card(f"Mean {label_of(column)}", value, interval))
    if scored(data):
        counts = presence_counts(data)
        detail = f"{counts['false_positive']} found where there is none"
        found.append(Card("Structures missed", str(counts["missed"]), detail))
    if data.trainings:
        seconds = sum(training.seconds for training in data.trainings)
        found.append(Card("Training", clock(seconds), plural(len(data.trainings), "model")))
    return tuple(found)


def notes(data: ReportData) -> tuple[Note, ...]:
    """Return what the reader must know before trusting the figures."""
    found = []
    if data.leaks:
        text = (
            "Figures on this page are too good: what is validated was trained on, as folds.allow_leakage permits. "
            f"{plural(len(data.leaks), 'leak')} between folds:"
        )
        shown = data.leaks[:_MOST_LEAKS]
        more = (f"and {len(data.leaks) - len(shown)} more",) if len(data.leaks) > len(shown) else ()
        found.append(Note(text, items=(*shown, *more)))
    if data.dropped:
        found.append(
            Note(f"{plural(len(data.dropped), 'case')} left out before training:", items=reasons(data.dropped))
        )
    if data.failed:
        text = f"{plural(len(data.failed), 'case')} without a prediction, in no figure below:"
        found.append(Note(text, items=reasons(data.failed)))
    if data.not_run:
        folds = listed([str(fold) for fold in data.not_run])
        text = f"Not all folds were run: the cases of fold {folds} are in no figure."
        found.append(Note(text, level="info"))
    if data.summary and data.summary["groups"] == 1:
        found.append(Note("All cases are of one patient, so there are no intervals.", level="info"))
    return tuple(found)
