"""Figures over cases: mean, spread, median and interval for each class and metric, and over classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.metrics.intervals import (
    DRAWS,
    LEVEL,
    Interval,
    Resampling,
    interval_of_mean,
    interval_of_mean_of_means,
    resample_groups,
)
from pipeline.metrics.scoring import PRESENCES

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

KEYS = ("case_id", "group", "site", "set", "fold", "class", "presence")
"""Columns of the table that are no figures."""


def summarise(rows: pd.DataFrame, *, headline: Sequence[str] = ()) -> dict[str, Any]:
    """Condense the table of cases and classes.

    An undefined figure (NaN) counts nowhere: `n` says how many cases a mean is over, and the counts of
    `presence` say why it is fewer than all. `classes_mean` is the mean over classes of their means over cases, so
    that a class that few cases have weighs as much as one that all have.

    Args:
        rows: One row a case and class: `case_id`, `group`, `class`, `presence`, then metric columns.
        headline: Classes that `classes_mean` is over; empty for all.

    Returns:
        What `summary.json` holds: `cases`, `groups`, `interval` (how intervals were made), `classes` (name ->
        `presence` counts and `metrics`: column -> mean, std, median, min, max, n, groups, low, high),
        `classes_mean` (column -> mean, low, high) and `headline` (the classes that it is over). `std` is None for
        one case, `low` and `high` are None for fewer than two groups, everything is None where n is 0.
    """
    columns = [name for name in rows.columns if name not in KEYS]
    cases = rows.drop_duplicates("case_id")
    resampling = resample_groups(cases["group"].tolist())
    order = {case: number for number, case in enumerate(cases["case_id"])}
    names = list(dict.fromkeys(rows["class"]))
    tables = {
        name: _by_case(rows[rows["class"] == name], columns, order) for name in names
    }  # class -> (cases, columns)
    classes = {}
    for name in names:
        presence = rows.loc[rows["class"] == name, "presence"].value_counts()
        classes[name] = {
            "presence": {what: int(presence.get(what, 0)) for what in PRESENCES},
            "metrics": {
                column: _describe(tables[name][:, number], resampling) for number, column in enumerate(columns)
            },
        }
    chosen = [name for name in names if name in headline] if headline else names
    return {
        "cases": len(cases),
        "groups": int(cases["group"].nunique()),
        "interval": {"level": LEVEL, "draws": DRAWS, "method": "bootstrap over groups, expanded percentiles"},
        "classes": classes,
        "headline": chosen,
        "classes_mean": {
            column: _over_classes(np.stack([tables[name][:, number] for name in chosen], axis=1), resampling)
            for number, column in enumerate(columns)
            if chosen
        },
    }


def _by_case(rows: pd.DataFrame, columns: Sequence[str], order: dict[str, int]) -> NDArray[np.float64]:
    """Return the figures of one class, (cases, columns), NaN for cases that have no row."""
    table = np.full((len(order), len(columns)), np.nan)
    table[[order[case] for case in rows["case_id"]]] = rows[list(columns)].to_numpy(np.float64)
    return table


def _describe(values: NDArray[np.float64], resampling: Resampling) -> dict[str, float | int | None]:
    finite = np.isfinite(values)
    known = values[finite]
    if known.size == 0:
        return dict.fromkeys(("mean", "std", "median", "min", "max", "low", "high")) | {"n": 0, "groups": 0}
    interval = interval_of_mean(np.where(finite, values, np.nan), resampling)
    return {
        "mean": float(known.mean()),
        "std": float(known.std(ddof=1)) if known.size > 1 else None,
        "median": float(np.median(known)),
        "min": float(known.min()),
        "max": float(known.max()),
        "n": int(known.size),
        "groups": int(np.unique(resampling.group_of_row[finite]).size),
        **_ends(interval),
    }


def _over_classes(values: NDArray[np.float64], resampling: Resampling) -> dict[str, float | None]:
    means = [column[np.isfinite(column)].mean() for column in values.T if np.isfinite(column).any()]
    return {"mean": float(np.mean(means)) if means else None, **_ends(interval_of_mean_of_means(values, resampling))}


def _ends(interval: Interval | None) -> dict[str, float | None]:
    return {"low": interval.low if interval else None, "high": interval.high if interval else None}
