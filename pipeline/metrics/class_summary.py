"""What an evaluation of whole volumes comes down to: figures with intervals, confusion, curves, calibration."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.base import ScoreTable
from pipeline.metrics.classification import ClassMetric, Floats, decided
from pipeline.metrics.intervals import DRAWS, LEVEL, interval_of_draws, resample_groups

_AT_ONCE = 500_000
"""Weights in memory at once."""


def summarise_table(table: ScoreTable, groups: Sequence[str], metrics: Sequence[ClassMetric]) -> dict[str, Any]:
    """Condense the predictions of whole volumes.

    Args:
        table: Probabilities and truth.
        groups: Patient of each case; whole patients are resampled.
        metrics: Figures of merit.

    Returns:
        What `summary.json` holds: `cases`, `groups`, `interval`, `figures` (name -> value, low, high), `classes` (name
        -> `n` and figures of the class) and `confusion` (true class -> said class -> cases; with several labels None).
        `low` and `high` are None for fewer than two groups.
    """
    resampling = resample_groups(groups)
    weights = resampling.times[:, resampling.group_of_row]
    figures, classes = {}, {name: {"n": int(n)} for name, n in zip(table.class_names, table.truth.sum(0), strict=True)}
    for metric in metrics:
        value, drawn = metric.score(table), _drawn(metric, table, weights, resampling.groups)
        figures[metric.name] = _entry(value[metric.name], None if drawn is None else drawn[:, 0], resampling.groups)
        for number, name in enumerate(table.class_names, 1):
            if f"{metric.name}_{name}" in value:
                own = None if drawn is None else drawn[:, number]
                entry: Any = _entry(value[f"{metric.name}_{name}"], own, resampling.groups)
                classes[name][metric.name] = entry
    return {
        "cases": len(table.truth),
        "groups": resampling.groups,
        "interval": {"level": LEVEL, "draws": DRAWS, "method": "bootstrap over groups, expanded percentiles"},
        "figures": figures,
        "classes": classes,
        "confusion": confusion(table) if table.exclusive else None,
    }


def confusion(table: ScoreTable) -> dict[str, dict[str, int]]:
    """Count cases by their true class and the class that is said."""
    counts = table.truth.astype(int).T @ decided(table).astype(int)
    return {
        true: dict(zip(table.class_names, map(int, row), strict=True))
        for true, row in zip(table.class_names, counts, strict=True)
    }


def fit_temperature(table: ScoreTable) -> float:
    """Return the temperature that makes probabilities most likely (Guo 2017): above 1 they were too sure."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        temperature = float(np.exp(log_temperature))
        cooled = np.clip(apply_temperature(table.probabilities, temperature, exclusive=table.exclusive),
                         1e-12, 1)  # fmt: skip
        if table.exclusive:
            return float(-np.log(cooled[table.truth]).mean())
        return float(-np.where(table.truth, np.log(cooled), np.log(np.clip(1 - cooled, 1e-12, 1))).mean())

    found = minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded")
    return float(np.exp(found.x))


def apply_temperature(probabilities: Floats, temperature: float, *, exclusive: bool) -> Floats:
    """Divide the logits that probabilities (N, K) stand for by a temperature, and give the probabilities again."""
    tiny = 1e-12
    if exclusive:
        logits = np.log(np.clip(probabilities, tiny, 1)) / temperature
        raised = np.exp(logits - logits.max(1, keepdims=True))
        shares: Floats = raised / raised.sum(1, keepdims=True)
        return shares
    inside = np.clip(probabilities, tiny, 1 - tiny)
    cooled: Floats = 1 / (1 + np.exp(-(np.log(inside) - np.log1p(-inside)) / temperature))
    return cooled


def roc_curve(scores: Floats, truth: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the false and the true positive rate at each distinct score, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    true = np.cumsum(truth[order])[ends]
    false = ends + 1 - true
    return np.r_[0, false / max(false[-1], 1)], np.r_[0, true / max(true[-1], 1)]


def _drawn(metric: ClassMetric, table: ScoreTable, weights: Floats, groups: int) -> Floats | None:
    """Return the figure over all bootstrap samples, (R, 1), or (R, 1 + K) with those of classes."""
    if groups < 2:
        return None
    rows = max(1, _AT_ONCE // max(1, len(table.truth)))
    parts = []
    for first in range(0, len(weights), rows):
        part = weights[first : first + rows]
        overall, each = metric.overall(table, part)[:, None], metric.by_class(table, part)
        parts.append(overall if each is None else np.concatenate([overall, each], axis=1))
    return np.concatenate(parts)


def _entry(value: float, drawn: Floats | None, groups: int) -> dict[str, float | None]:
    interval = None if drawn is None else interval_of_draws(drawn, groups)
    return {
        "value": value if np.isfinite(value) else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }
