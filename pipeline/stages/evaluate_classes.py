"""Scores predictions of whole volumes: probabilities against classes, with what a simple method reaches beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ConfigError, plural
from pipeline.metrics.base import ScoreTable
from pipeline.metrics.class_summary import apply_temperature, fit_temperature, summarise_table
from pipeline.metrics.classification import Accuracy, Auroc, ClassMetric, decided
from pipeline.records import CasePrediction, CaseTable, Evaluation, IngestedCase, PredictionTable
from pipeline.stages.prepared import open_prepared
from pipeline.workspace import write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

PREDICTIONS = "predictions.csv"
OUT_OF_FOLD, TEST = "out_of_fold", "test"
_MOST_ITERATIONS = 60
_HEADLINE = ("accuracy", "balanced_accuracy", "auroc", "ece")


@dataclass(frozen=True)
class ClassOptions:
    """What an evaluation of whole volumes is asked to do beside scoring."""

    calibrate: bool = False
    logistic_baseline: bool = False
    compare_column: str | None = None


def evaluate_classes(
    folder: Path,
    cache: Path,
    ingest: CaseTable,
    tables: Iterable[PredictionTable],
    metrics: Sequence[ClassMetric],
    options: ClassOptions,
    *,
    exclusive: bool,
) -> Evaluation:
    """Score all predictions of cases that have a class; write `predictions.csv` and `summary.json`.

    Args:
        folder: Of the stage.
        cache: Of prepared cases, for the baseline.
        ingest: Cases with their classes.
        tables: Predictions; out of fold and of test cases are summed up apart.
        metrics: Figures of merit.
        options: What else to do.
        exclusive: Whether a volume has exactly one class.

    Raises:
        ConfigError: no prediction has a class to compare with, or the data set has no such column.
    """
    sets = _sets(ingest, tables, exclusive)
    if not sets:
        raise ConfigError("evaluate: no predicted case has a class. Give classes, or --until predict.")
    found = {name: _table(rows, ingest.class_names, exclusive) for name, rows in sets.items()}
    temperatures: dict[str, Any] = {}
    if options.calibrate:
        found, temperatures = _calibrated(found, sets)
    summary: dict[str, Any] = {
        name: summarise_table(found[name], [row.case.case.patient for row in rows], metrics)
        for name, rows in sets.items()
    }
    for name, values in temperatures.items():
        summary[name]["temperature"] = values
    for name, rows in sets.items():
        summary[name]["baselines"] = _baselines(rows, name, ingest, cache, options, exclusive)
    frame = _frame(sets, found)
    write_text(folder / PREDICTIONS, frame.to_csv(index=False, float_format="%.6g"))
    write_json(folder / "summary.json", summary)
    return Evaluation(per_case=PREDICTIONS, headline=_headline(summary))


@dataclass(frozen=True, eq=False)
class _Row:
    """A case that has a class and a prediction."""

    case: IngestedCase
    prediction: CasePrediction


def _sets(ingest: CaseTable, tables: Iterable[PredictionTable], exclusive: bool) -> dict[str, list[_Row]]:
    """Return the predicted cases whose truth is known; where classes do not exclude each other, none is a truth."""
    cases = ingest.by_id()
    sets: dict[str, list[_Row]] = {}
    for table in tables:
        for row in table.predictions:
            has_truth = bool(cases[row.case_id].case.classes) or not exclusive
            if not row.failure and row.probabilities and has_truth:
                name = TEST if row.fold is None else OUT_OF_FOLD
                sets.setdefault(name, []).append(_Row(cases[row.case_id], row))
    return sets


def _table(rows: Sequence[_Row], class_names: tuple[str, ...], exclusive: bool) -> ScoreTable:
    truth = np.array([[name in row.case.case.classes for name in class_names] for row in rows])
    return ScoreTable(np.array([row.prediction.probabilities for row in rows]), truth, class_names, exclusive)


def _calibrated(
    tables: Mapping[str, ScoreTable], sets: Mapping[str, list[_Row]]
) -> tuple[dict[str, ScoreTable], dict[str, Any]]:
    """Scale by a temperature that was fitted on other cases: other folds for one fold, all folds for test cases."""
    if OUT_OF_FOLD not in tables:
        raise ConfigError("evaluate.calibrate: needs predictions out of fold; expected at least one fold in the run.")
    source, folds = tables[OUT_OF_FOLD], np.array([row.prediction.fold for row in sets[OUT_OF_FOLD]])
    made, noted = dict(tables), {}
    if np.unique(folds).size > 1:
        cooled, noted[OUT_OF_FOLD] = np.empty_like(source.probabilities), dict[str, float]()
        for fold in np.unique(folds):
            here = folds == fold
            temperature = fit_temperature(_part(source, ~here))
            cooled[here] = apply_temperature(source.probabilities[here], temperature, exclusive=source.exclusive)
            noted[OUT_OF_FOLD][str(fold)] = temperature
        made[OUT_OF_FOLD] = ScoreTable(cooled, source.truth, source.class_names, source.exclusive)
    if TEST in tables:
        temperature, test = fit_temperature(source), tables[TEST]
        cooled = apply_temperature(test.probabilities, temperature, exclusive=test.exclusive)
        made[TEST] = ScoreTable(cooled, test.truth, test.class_names, test.exclusive)
        noted[TEST] = {"all": temperature}
    return made, noted


def _part(table: ScoreTable, rows: Any) -> ScoreTable:
    return ScoreTable(table.probabilities[rows], table.truth[rows], table.class_names, table.exclusive)


def _baselines(
    rows: Sequence[_Row], which: str, ingest: CaseTable, cache: Path, options: ClassOptions, exclusive: bool
) -> dict[str, Any]:
    """Return name -> what it is and its figures, on the same cases."""
    found: dict[str, Any] = {}
    if options.logistic_baseline and not exclusive:
        raise ConfigError("evaluate.logistic_baseline: it names one class a case; found several. Leave it out.")
    if options.logistic_baseline:
        found["logistic regression"] = _logistic(rows, which, ingest, cache)
    if options.compare_column is not None:
        found[options.compare_column] = _column(rows, ingest, options.compare_column, exclusive)
    return found


def _logistic(rows: Sequence[_Row], which: str, ingest: CaseTable, cache: Path) -> dict[str, Any]:
    """Fit logistic regression on the voxels of the training cases and score it; fold by fold for those out of fold."""
    probabilities = np.zeros((len(rows), len(ingest.class_names)))
    # Out of fold, a fit for each fold would cost as much as the networks do: where there are test cases, they suffice.
    if which == OUT_OF_FOLD and ingest.test_ids:
        return {}
    for fold in sorted({row.prediction.fold for row in rows}, key=str):
        here = [number for number, row in enumerate(rows) if row.prediction.fold == fold]
        train = [ingest.by_id()[case_id] for case_id in ingest.fold_ids(fold)[0]]
        x, z = _voxels(train, cache), _voxels([rows[number].case for number in here], cache)
        probabilities[here] = _fit_logistic(x, [row.case.classes[0] for row in train], z, ingest.class_names)
    table = ScoreTable(probabilities, _table(rows, ingest.class_names, True).truth, ingest.class_names, True)
    figures = summarise_table(table, [row.case.case.patient for row in rows], [Accuracy(), Auroc()])["figures"]
    return {"about": "logistic regression on the same voxels", "figures": figures}


def _voxels(rows: Sequence[IngestedCase], cache: Path) -> Any:
    opened = open_prepared(cache, rows)
    shapes = {case.shape for case in opened.values()}
    if len(shapes) > 1:
        raise ConfigError(
            f"evaluate.logistic_baseline: volumes are of {plural(len(shapes), 'size')}; expected one. Leave it out, or "
            "bring all to one size with ingest.resize."
        )
    return np.stack([case.read((0, 0, 0), case.shape).ravel() for case in opened.values()]).astype(np.float32)


def _fit_logistic(x: Any, names: Sequence[str], z: Any, class_names: Sequence[str]) -> Any:
    """Return probabilities (N, K) in the order of the class names; voxels are scaled by one common spread."""
    import warnings

    from sklearn.linear_model import LogisticRegression

    scale = max(float(x.std()), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cut off early it does better on new cases than when it has converged
        model = LogisticRegression(max_iter=_MOST_ITERATIONS, C=0.01).fit(x / scale, list(names))
    found = np.zeros((len(z), len(class_names)))
    found[:, [list(class_names).index(name) for name in model.classes_]] = model.predict_proba(z / scale)
    return found


def _column(rows: Sequence[_Row], ingest: CaseTable, column: str, exclusive: bool) -> dict[str, Any]:
    """Score one number that the data set has of each case as if it were the answer, for one class against the other."""
    if len(ingest.class_names) > 2 or (len(ingest.class_names) == 2 and not exclusive):
        raise ConfigError(
            f"evaluate.compare_column: one number is compared with one class against another; found classes "
            f"{', '.join(ingest.class_names)}. Leave it out."
        )
    known = ingest.metadata.get("columns", {})
    if column not in known:
        raise ConfigError(
            f"evaluate.compare_column: the data set has no column {column!r}; it has {', '.join(known) or 'none'}. "
            "Name one of these."
        )
    values = known[column]
    try:
        numbers = np.array([float(values[row.case.case.case_id]) for row in rows])
    except (KeyError, ValueError) as error:
        raise ConfigError(f"evaluate.compare_column: column {column!r} is no number in each case ({error}).") from None
    truth = np.array([ingest.class_names[-1] in row.case.case.classes for row in rows])
    table = ScoreTable(
        np.stack([-numbers, numbers], axis=1), np.stack([~truth, truth], axis=1), ("other", "class"), True
    )
    figures = summarise_table(table, [row.case.case.patient for row in rows], [Auroc()])["figures"]
    return {"about": f"{column} alone, for {ingest.class_names[-1]}", "figures": figures}


def _frame(sets: Mapping[str, list[_Row]], tables: Mapping[str, ScoreTable]) -> pd.DataFrame:
    """Return one row a case: who it is, its classes, what is said of it, and the probabilities."""
    import pandas as pd

    lines = []
    for name, rows in sets.items():
        said = decided(tables[name])
        for row, probabilities, yes in zip(rows, tables[name].probabilities, said, strict=True):
            case = row.case.case
            line = {
                "case_id": case.case_id, "group": case.patient, "site": case.site, "set": name,
                "fold": row.prediction.fold, "truth": "|".join(case.classes),
                "predicted": "|".join(np.array(tables[name].class_names)[yes]),
            }  # fmt: skip
            lines.append(line | dict(zip((f"p_{c}" for c in tables[name].class_names), probabilities, strict=True)))
    return pd.DataFrame(lines).astype({"fold": "Int64"})


def _headline(summary: Mapping[str, Any]) -> dict[str, float]:
    found = {}
    for name, part in summary.items():
        prefix = "test " if name == TEST else ""
        for figure in _HEADLINE:
            value = part["figures"].get(figure, {}).get("value")
            if value is not None:
                found[f"{prefix}{figure.replace('_', ' ')}"] = round(value, 4)
        for baseline, made in part["baselines"].items():
            for figure, entry in made.get("figures", {}).items():
                found[f"{prefix}{figure} of {baseline}"] = round(entry["value"], 4)
    return found
