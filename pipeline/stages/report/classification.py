"""The sections of a report on whole volumes: figures, curves, confusion, and where the network was sure and wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import plural
from pipeline.metrics.base import ScoreTable
from pipeline.stages.evaluate_classes import OUT_OF_FOLD, TEST
from pipeline.stages.prepared import open_prepared
from pipeline.stages.report.class_plots import confusion_matrix, curves_and_calibration, volume_sheet
from pipeline.stages.report.page import Card, Cell, Column, Figure, Item, Section, Table, Text, number, png, svg

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from pipeline.records import CaseTable, Evaluation

_LABELS = {
    "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "auprc": "AUPRC", "brier":
    "Brier score", "ece": "ECE", "f1": "F1", "sensitivity": "sensitivity", "specificity": "specificity",
}  # fmt: skip
_MOST_WRONG = 6


@dataclass(frozen=True)
class ClassReport:
    """What a report says of a classification."""

    verdict: str
    cards: tuple[Card, ...]
    sections: tuple[Section, ...]


def class_report(
    ingest: CaseTable, evaluation: Evaluation, cache: Path, *, exclusive: bool, pictures: int
) -> ClassReport:
    """Tell of each set of predictions; the test cases, where there are some, come first.

    Args:
        ingest: Cases.
        evaluation: Figures and predictions.
        cache: Of prepared cases, for the pictures.
        exclusive: Whether a volume has exactly one class.
        pictures: Whether to draw cases that were confidently wrong; 0 for no.
    """
    import pandas as pd

    summary = json.loads(evaluation.path(evaluation.summary).read_text())
    types: Any = {"case_id": str, "group": str, "truth": str, "predicted": str}
    frame = pd.read_csv(evaluation.path(evaluation.per_case), dtype=types, keep_default_na=False, na_values=[""])
    frame = frame.fillna({"truth": "", "predicted": ""})
    order = [name for name in (TEST, OUT_OF_FOLD) if name in summary]
    sections: list[Section] = []
    for name in order:
        rows = frame[frame["set"] == name]
        table = _table(rows, ingest.class_names, exclusive)
        sections.append(_section(name, summary[name], table))
    wrong = _wrong_section(frame[frame["set"] == order[0]], ingest, cache, exclusive) if pictures else None
    sections += [wrong] if wrong else []
    return ClassReport(_verdict(order[0], summary[order[0]]), _cards(summary[order[0]]), tuple(sections))


def _table(rows: pd.DataFrame, class_names: tuple[str, ...], exclusive: bool) -> ScoreTable:
    truth = np.array([[name in str(cell).split("|") for name in class_names] for cell in rows["truth"]])
    return ScoreTable(rows[[f"p_{name}" for name in class_names]].to_numpy(float), truth, class_names, exclusive)


def _verdict(name: str, summary: Mapping[str, Any]) -> str:
    first = next(iter(summary["figures"]))
    where = "set aside for testing" if name == TEST else "each judged by a network that never saw its patient"
    text = f"{_label(first).capitalize()} is {_with_interval(summary['figures'][first], brackets='()')} over " \
           f"{plural(summary['cases'], 'case')} of {plural(summary['groups'], 'group')}, {where}."  # fmt: skip
    for baseline in summary.get("baselines", {}).values():
        if baseline:
            figure, entry = _compared(summary, baseline)
            own = summary["figures"].get(figure, {}).get("value")
            text += f" {baseline['about'].capitalize()}: {_label(figure)} {number(entry['value'])}"
            text += f", the network {number(own)}." if figure != first else "."
    return text


def _compared(summary: Mapping[str, Any], baseline: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the figure to compare by: the first one of the evaluation that the baseline has too."""
    name = next((name for name in summary["figures"] if name in baseline["figures"]), next(iter(baseline["figures"])))
    return name, baseline["figures"][name]


def _cards(summary: Mapping[str, Any]) -> tuple[Card, ...]:
    chosen = [name for name in ("accuracy", "balanced_accuracy", "auroc", "ece") if name in summary["figures"]]
    return tuple(_card(_label(name), summary["figures"][name]) for name in chosen)


def _card(label: str, entry: Mapping[str, Any]) -> Card:
    detail = "" if entry["low"] is None else f"95 %: {number(entry['low'])} – {number(entry['high'])}"
    return Card(label[0].upper() + label[1:], number(entry["value"]), detail)


def _section(name: str, summary: Mapping[str, Any], table: ScoreTable) -> Section:
    items: list[Item] = [_figure_table(summary), _class_table(summary)]
    items.append(
        Figure(
            svg(curves_and_calibration(table)),
            alt="ROC curve of each class, and share of right answers by confidence",
            caption="On the grey diagonal a ranking is as good as chance (left), and confidence equals accuracy.",
            title="Ranking and calibration",
        )
    )
    if summary["confusion"]:
        items.append(
            Figure(
                svg(confusion_matrix(summary["confusion"])), alt="Confusion matrix", title="Confusion",
                caption="Cases of each true class (row) by what was said of them (column).",
            )
        )  # fmt: skip
    items.append(Text(_definitions(summary), folded="How these figures are defined"))
    title, lead = (
        ("Test cases", "Predicted by all networks together; no network, and no choice of weights, has seen them.")
        if name == TEST
        else ("Cross-validation", "Each case was predicted by the network that had not seen its group.")
    )
    return Section(f"classes-{name.replace('_', '-')}", title, tuple(items), lead)


def _figure_table(summary: Mapping[str, Any]) -> Table:
    baselines = {name: made for name, made in summary.get("baselines", {}).items() if made}
    heads = (
        Column("Figure", numeric=False), Column("value"), Column("95 % interval"),
        *(Column(name, hint=made["about"]) for name, made in baselines.items()),
    )  # fmt: skip
    rows = []
    for name, entry in summary["figures"].items():
        others = [
            Cell(_with_interval(made["figures"][name])) if name in made["figures"] else Cell("–")
            for made in baselines.values()
        ]
        between = "–" if entry["low"] is None else f"{number(entry['low'])}–{number(entry['high'])}"
        rows.append((Cell(_label(name)), Cell(number(entry["value"])), Cell(between), *others))
    return Table(heads, tuple(rows), caption="Over all cases")


def _class_table(summary: Mapping[str, Any]) -> Table:
    figures = [name for name in next(iter(summary["classes"].values())) if name != "n"]
    heads = (Column("Class", numeric=False), Column("cases"), *(Column(_label(name)) for name in figures))
    rows = tuple(
        (
            Cell(name), Cell(str(entry["n"])),
            *(Cell(number(entry[f]["value"]), detail=_between(entry[f]), sort=_sort(entry[f])) for f in figures),
        )
        for name, entry in summary["classes"].items()
    )  # fmt: skip
    return Table(heads, rows, caption="By class", sortable=True, is_stacked=True)


def _wrong_section(rows: pd.DataFrame, ingest: CaseTable, cache: Path, exclusive: bool) -> Section | None:
    """Picture the cases that the network was surest about and wrong."""
    table = _table(rows, ingest.class_names, exclusive)
    distance = np.where(table.truth, 1 - table.probabilities, table.probabilities)
    is_wrong = (rows["truth"] != rows["predicted"]).to_numpy()
    worst = [int(place) for place in np.argsort(-distance.max(1), kind="stable") if is_wrong[place]][:_MOST_WRONG]
    if not worst:
        return None
    cases = ingest.by_id()
    chosen = [str(rows["case_id"].iloc[place]) for place in worst]
    opened = open_prepared(cache, [cases[case_id] for case_id in chosen])
    tiles = []
    for place, case_id in zip(worst, chosen, strict=True):
        case, row = opened[case_id], rows.iloc[place]
        sure = table.probabilities[place].max() if exclusive else distance[place].max()
        title = f"{case_id}: {row['truth'] or 'none'}, said {row['predicted'] or 'none'} ({sure:.2f})"
        tiles.append((title, case.read((0, 0, 0), case.shape)[0].astype(np.float32), case.spacing_mm))
    picture = Figure(
        png(volume_sheet(tiles)),
        alt="Cases that were confidently wrong, as maximum projections",
        caption="Maximum projections along D, H and W. First the true class, then what was said, and how surely.",
        is_dark=True,
    )
    return Section("wrong", "Sure and wrong", (picture,), f"{is_wrong.sum()} of {plural(len(rows), 'case')} are wrong.")


def _definitions(summary: Mapping[str, Any]) -> str:
    known = {
        "accuracy": "Accuracy is the share of cases whose most probable class is right.",
        "balanced_accuracy": "Balanced accuracy is the mean sensitivity of the classes.",
        "auroc": "AUROC and AUPRC are the mean over classes of each against the rest; AUPRC is average precision.",
        "brier": "The Brier score is the mean squared difference of probabilities and truth; 0 is perfect.",
        "ece": "ECE is the mean gap between confidence and accuracy over 15 bins; 0 is perfect.",
    }
    texts = [text for name, text in known.items() if name in summary["figures"]]
    if "temperature" in summary:
        values = ", ".join(f"{value:.2f}" for value in summary["temperature"].values())
        texts.append(f"Probabilities were scaled by temperatures fitted on other cases ({values}).")
    draws = summary["interval"]["draws"]
    return " ".join([*texts, f"Intervals come from {draws} bootstrap samples of whole groups (expanded percentiles)."])


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("_", " "))


def _with_interval(entry: Mapping[str, Any], brackets: Sequence[str] = "()") -> str:
    if entry["low"] is None:
        return number(entry["value"])
    return f"{number(entry['value'])} {brackets[0]}{_between(entry)}{brackets[1]}"


def _between(entry: Mapping[str, Any]) -> str:
    return "" if entry["low"] is None else f"{number(entry['low'])}–{number(entry['high'])}"


def _sort(entry: Mapping[str, Any]) -> float | str:
    return "" if entry["value"] is None else float(entry["value"])
