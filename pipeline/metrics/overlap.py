"""Metrics that count voxels two masks share: Dice, recall and precision."""

from typing import Literal

import numpy as np

from pipeline.metrics.base import MaskPair, Metric, metrics


@metrics.register
class Dice(Metric):
    """Dice coefficient: twice the shared volume by the sum of both volumes.

    0 where exactly one mask is empty (a class missed, or found where there is none), NaN where both are.
    """

    name: Literal["dice"] = "dice"

    def score(self, sample: MaskPair) -> dict[str, float]:
        """Return `dice`, 0 to 1."""
        shared, predicted, true = _counts(sample)
        return {"dice": _ratio(2 * shared, predicted + true)}


@metrics.register
class Recall(Metric):
    """Share of the reference that was found; NaN where the reference is empty."""

    name: Literal["recall"] = "recall"

    def score(self, sample: MaskPair) -> dict[str, float]:
        """Return `recall`, 0 to 1."""
        shared, _, true = _counts(sample)
        return {"recall": _ratio(shared, true)}


@metrics.register
class Precision(Metric):
    """Share of the prediction that is right; NaN where nothing was predicted."""

    name: Literal["precision"] = "precision"

    def score(self, sample: MaskPair) -> dict[str, float]:
        """Return `precision`, 0 to 1."""
        shared, predicted, _ = _counts(sample)
        return {"precision": _ratio(shared, predicted)}


def _counts(sample: MaskPair) -> tuple[int, int, int]:
    """Return the voxels in both masks, in the prediction and in the reference."""
    masks = (sample.prediction & sample.reference, sample.prediction, sample.reference)
    shared, predicted, true = (int(np.count_nonzero(mask)) for mask in masks)
    return shared, predicted, true


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
