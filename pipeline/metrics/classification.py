"""Figures of whole-volume classification, each also over many reweighted copies of the cases at once.

Shapes: N cases, K classes, R reweightings (bootstrap samples).
"""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from pipeline.metrics.base import Metric, ScoreTable, metrics

Floats = NDArray[np.float64]


class ClassMetric(Metric):
    """A figure over all cases, and where it makes sense one of each class.

    `weights` say how often each case counts, so that a bootstrap is one call: (R, N) to (R,).
    """

    kind: ClassVar[type] = ScoreTable

    def score(self, sample: Any) -> dict[str, float]:
        """Return the figure under the metric's name and, where there is one, `name_class` of each class."""
        ones = np.ones((1, len(sample.truth)))
        found = {self.name: float(self.overall(sample, ones)[0])}
        each = self.by_class(sample, ones)
        if each is not None:
            found |= {
                f"{self.name}_{name}": float(value) for name, value in zip(sample.class_names, each[0], strict=True)
            }
        return found

    def overall(self, table: ScoreTable, weights: Floats) -> Floats:
        """Return the figure (R,): the mean over the classes that have one, unless a metric says otherwise."""
        each = self.by_class(table, weights)
        assert each is not None
        return mean_of_classes(each)

    def by_class(self, table: ScoreTable, weights: Floats) -> Floats | None:
        """Return the figure of each class (R, K), NaN where undefined; None where there is none."""
        return None


@metrics.register
class Accuracy(ClassMetric):
    """Share of volumes whose most probable class is right; with several labels, of right yes and no."""

    name: Literal["accuracy"] = "accuracy"

    def overall(self, table: ScoreTable, weights: Floats) -> Floats:
        """Return (R,)."""
        right = (
            (decided(table) == table.truth).mean(1) if not table.exclusive else (decided(table) & table.truth).any(1)
        )
        return _weighted_mean(right.astype(float), weights)


@metrics.register
class BalancedAccuracy(ClassMetric):
    """Mean over classes of the sensitivity; with several labels, of the mean of sensitivity and specificity."""

    name: Literal["balanced_accuracy"] = "balanced_accuracy"

    def overall(self, table: ScoreTable, weights: Floats) -> Floats:
        """Return (R,)."""
        found = Sensitivity().by_class(table, weights)
        if not table.exclusive:
            found = (found + Specificity().by_class(table, weights)) / 2
        return mean_of_classes(found)


@metrics.register
class Sensitivity(ClassMetric):
    """Share of the volumes of a class that are said to be of it; NaN where there are none."""

    name: Literal["sensitivity"] = "sensitivity"

    def by_class(self, table: ScoreTable, weights: Floats) -> Floats:
        """Return (R, K)."""
        said, true = decided(table), table.truth
        return _ratio(weights @ (said & true), weights @ true.astype(float))


@metrics.register
class Specificity(ClassMetric):
    """Share of the volumes of other classes that are not said to be of a class."""

    name: Literal["specificity"] = "specificity"

    def by_class(self, table: ScoreTable, weights: Floats) -> Floats:
        """Return (R, K)."""
        said, true = decided(table), table.truth
        return _ratio(weights @ (~said & ~true), weights @ (~true).astype(float))


@metrics.register
class F1(ClassMetric):
    """Harmonic mean of sensitivity and precision: 2 TP / (2 TP + FP + FN)."""

    name: Literal["f1"] = "f1"

    def by_class(self, table: ScoreTable, weights: Floats) -> Floats:
        """Return (R, K)."""
        said, true = decided(table), table.truth
        return _ratio(2 * (weights @ (said & true)), weights @ (said.astype(float) + true))


class _Ranking(ClassMetric):
    """A figure of how the probabilities of a class rank the cases."""

    def by_class(self, table: ScoreTable, weights: Floats) -> Floats:
        """Return (R, K)."""
        columns = [
            self.of_scores(table.probabilities[:, k], table.truth[:, k], weights) for k in range(len(table.class_names))
        ]
        return np.stack(columns, axis=1)

    @abstractmethod
    def of_scores(self, scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> Floats:
        """Return the figure (R,) of one class from scores (N,) and truth (N,)."""


@metrics.register
class Auroc(_Ranking):
    """Area under the ROC curve: how often a volume of the class is ranked above one that is not; ties count half."""

    name: Literal["auroc"] = "auroc"

    def of_scores(self, scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> Floats:
        """Return (R,)."""
        true, false = _up_to_score(scores, truth, weights)
        # What shares a score with a true case counts half: the mean of what lies below and of what does not lie above.
        area = np.einsum("sr,sr->r", np.diff(true, axis=0), false[1:] + false[:-1]) / 2
        return _ratio(area, true[-1] * false[-1])


@metrics.register
class Auprc(_Ranking):
    """Area under the precision-recall curve, as average precision: the step-wise sum, not interpolated."""

    name: Literal["auprc"] = "auprc"

    def of_scores(self, scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> Floats:
        """Return (R,)."""
        true, false = _up_to_score(-scores, truth, weights)
        said = true[1:] + false[1:]
        precision = true[1:] / np.maximum(said, 1e-300)  # where nothing is said, nothing is found either
        return _ratio(np.einsum("sr,sr->r", np.diff(true, axis=0), precision), true[-1])


@metrics.register
class Brier(ClassMetric):
    """Mean squared difference of probabilities and truth, summed over classes; halved where there are two."""

    name: Literal["brier"] = "brier"
    higher_is_better: ClassVar[bool] = False

    def overall(self, table: ScoreTable, weights: Floats) -> Floats:
        """Return (R,)."""
        squares = (table.probabilities - table.truth) ** 2
        several = table.exclusive and len(table.class_names) > 2
        return _weighted_mean(squares.sum(1) if several else squares.mean(1), weights)


@metrics.register
class Ece(ClassMetric):
    """Expected calibration error (Guo 2017): how far confidence and accuracy lie apart, over bins of confidence."""

    name: Literal["ece"] = "ece"
    bins: PositiveInt = 15
    """Bins of equal width from 0 to 1."""
    higher_is_better: ClassVar[bool] = False

    def overall(self, table: ScoreTable, weights: Floats) -> Floats:
        """Return (R,): sum over bins of their share times the gap."""
        confidence, right = confidences(table)
        bin_of = np.minimum((confidence * self.bins).astype(int), self.bins - 1)
        total = np.zeros(len(weights))
        counts = weights if len(confidence) == weights.shape[1] else np.repeat(weights, len(table.class_names), axis=1)
        for number in range(self.bins):
            here = bin_of == number
            if here.any():
                total += np.abs(counts[:, here] @ (confidence[here] - right[here]))
        return _ratio(total, counts.sum(1))


def decided(table: ScoreTable) -> NDArray[np.bool_]:
    """Return what the probabilities say, (N, K): the most probable class, or each class from one half on."""
    if not table.exclusive:
        yes: NDArray[np.bool_] = table.probabilities >= 0.5
        return yes
    one_hot: NDArray[np.bool_] = np.arange(table.probabilities.shape[1]) == table.probabilities.argmax(1)[:, None]
    return one_hot


def confidences(table: ScoreTable) -> tuple[Floats, Floats]:
    """Return how sure each answer is and whether it is right (1) or not (0): of each case, or each yes and no."""
    if table.exclusive:
        return table.probabilities.max(1), (decided(table) & table.truth).any(1).astype(float)
    sure = np.maximum(table.probabilities, 1 - table.probabilities)
    return sure.ravel(), (decided(table) == table.truth).ravel().astype(float)


def mean_of_classes(each: Floats) -> Floats:
    """Return the mean (R,) over the classes of (R, K) that have a figure; NaN where none has."""
    known = np.isfinite(each)
    return _ratio(np.where(known, each, 0).sum(1), known.sum(1).astype(float))


def _up_to_score(scores: Floats, truth: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Return the weight of the true and of the other cases up to each distinct score, from 0 on: (1 + scores, R)."""
    order = np.argsort(scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) > 0, True])
    # With the reweightings side by side, sorting moves whole rows, and sums over cases are vector code.
    every = np.ascontiguousarray(weights.T)[order]
    none = np.zeros((1, len(weights)))
    true = np.concatenate([none, np.cumsum(every * truth[order, None], axis=0)[ends]])
    return true, np.concatenate([none, np.cumsum(every, axis=0)[ends]]) - true


def _weighted_mean(values: Floats, weights: Floats) -> Floats:
    return _ratio(weights @ values, weights.sum(1))


def _ratio(above: Floats, below: Floats) -> Floats:
    undefined = np.full_like(np.asarray(above, float), np.nan)
    ratio: Floats = np.divide(above, below, out=undefined, where=below > 0)
    return ratio
