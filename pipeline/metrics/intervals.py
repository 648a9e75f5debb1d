"""Confidence intervals of means over cases, by resampling whole groups (patients)."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 2000
"""Bootstrap samples; the interval's ends then vary by a few hundredths of its width between seeds."""
LEVEL = 0.95
SEED = 20210


@dataclass(frozen=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Resampling:
    """How often each group is drawn in each bootstrap sample; one drawing serves all classes and metrics.

    group_of_row: (N,) index of the group of each case.
    times: (draws, G) how often group g is in a sample; each row sums to G.
    """

    group_of_row: NDArray[np.intp]
    times: NDArray[np.float64]

    @property
    def groups(self) -> int:
        """Number of groups G."""
        return int(self.times.shape[1])


def resample_groups(groups: Sequence[Hashable], draws: int = DRAWS, seed: int = SEED) -> Resampling:
    """Draw groups with replacement, as many as there are.

    Args:
        groups: Group of each of the N cases, e.g. the patient; cases of one group stay together,
            since they are more alike than strangers.
        draws: Bootstrap samples.
        seed: Key of the Philox generator; equal seeds and groups give equal draws.
    """
    index: dict[Hashable, int] = {}
    rows = np.array([index.setdefault(group, len(index)) for group in groups], np.intp)
    count = len(index)
    random = np.random.Generator(np.random.Philox(key=seed))
    drawn = random.integers(0, max(1, count), size=(draws, count))
    flat = (drawn + np.arange(draws)[:, None] * count).ravel()
    return Resampling(rows, np.bincount(flat, minlength=draws * count).reshape(draws, count).astype(np.float64))


def interval_of_mean(values: NDArray[np.float64], resampling: Resampling, level: float = LEVEL) -> Interval | None:
    """Return the bootstrap interval of the mean over cases.

    Args:
        values: (N,) figure of each case; NaN where undefined, which counts neither in the mean nor in the interval.
        resampling: Groups of the same N cases.
        level: Share of such intervals that hold the true mean.

    Returns:
        The interval, or None where fewer than two groups have a value: one patient says nothing about others.
    """
    return interval_of_mean_of_means(values[:, None], resampling, level)


def interval_of_mean_of_means(
    values: NDArray[np.float64], resampling: Resampling, level: float = LEVEL
) -> Interval | None:
    """Return the bootstrap interval of the mean over columns (classes) of the means over cases.

    The tails are those of Hesterberg's expanded percentile interval (The American Statistician 69:371, 2015,
    section 5.3): plain percentiles are too narrow by sqrt((G-1)/G) and know nothing of the t distribution,
    so that with ten patients only about 90 of 100 such intervals would hold the true mean.

    Args:
        values: (N, K) figure of each case and class; NaN where undefined.
        resampling: Groups of the same N cases.
        level: Share of such intervals that hold the true value.

    Returns:
        The interval, or None where fewer than two groups have a value.
    """
    finite = np.isfinite(values)
    informed = np.unique(resampling.group_of_row[finite.any(axis=1)]).size
    if informed < 2:
        return None
    sums = _by_group(np.where(finite, values, 0.0), resampling)
    counts = _by_group(finite.astype(np.float64), resampling)
    drawn = _divide(resampling.times @ sums, resampling.times @ counts)
    tail = _expanded_tail(informed, level)
    low, high = np.nanquantile(_mean_of_columns(drawn), [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def interval_of_draws(drawn: NDArray[np.float64], groups: int, level: float = LEVEL) -> Interval | None:
    """Return the interval of any figure from its values over bootstrap samples, with the same tails.

    Args:
        drawn: (draws,) the figure over each sample; NaN where it is undefined there.
        groups: Number of groups that were resampled.
        level: Share of such intervals that hold the true value.

    Returns:
        The interval, or None where there are fewer than two groups or the figure is never defined.
    """
    known = drawn[np.isfinite(drawn)]
    if groups < 2 or known.size == 0:
        return None
    tail = _expanded_tail(groups, level)
    low, high = np.quantile(known, [tail, 1.0 - tail])
    return Interval(float(low), float(high))


def _by_group(values: NDArray[np.float64], resampling: Resampling) -> NDArray[np.float64]:
    """Add the rows of each group: (N, K) to (G, K)."""
    total = np.zeros((resampling.groups, values.shape[1]))
    np.add.at(total, resampling.group_of_row, values)
    return total


def _divide(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    # The sums are of values times small whole numbers; a sample without any value of a class has no mean.
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def _mean_of_columns(means: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = np.isfinite(means)
    return _divide(np.where(finite, means, 0.0).sum(axis=1), finite.sum(axis=1).astype(np.float64))


def _expanded_tail(groups: int, level: float) -> float:
    """Return the probability to cut off at each end: Phi(-sqrt(G / (G-1)) t), t of G-1 degrees of freedom."""
    from scipy.special import ndtr, stdtrit

    t = stdtrit(groups - 1, 0.5 + level / 2)
    return float(ndtr(-np.sqrt(groups / (groups - 1)) * t))
