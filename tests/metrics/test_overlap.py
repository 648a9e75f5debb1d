"""Overlap metrics against counts that can be done by hand."""

import numpy as np
import pytest

from pipeline.metrics.base import MaskPair
from pipeline.metrics.overlap import Dice, Precision, Recall

SPACING = (1.0, 1.0, 1.0)


def pair(predicted, true):
    """Masks of ten voxels in which the given ones are set."""
    masks = np.zeros((2, 1, 1, 10), bool)
    masks[0, ..., predicted] = True
    masks[1, ..., true] = True
    return MaskPair(masks[0], masks[1], SPACING)


def test_counted_by_hand():
    sample = pair([0, 1, 2, 3], [2, 3, 4])
    assert Dice().score(sample)["dice"] == pytest.approx(4 / 7)
    assert Recall().score(sample)["recall"] == pytest.approx(2 / 3)
    assert Precision().score(sample)["precision"] == pytest.approx(2 / 4)


def test_missed_class():
    sample = pair([], [1, 2])
    assert Dice().score(sample)["dice"] == 0.0
    assert Recall().score(sample)["recall"] == 0.0
    assert np.isnan(Precision().score(sample)["precision"])


def test_class_found_where_there_is_none():
    sample = pair([1, 2], [])
    assert Dice().score(sample)["dice"] == 0.0
    assert np.isnan(Recall().score(sample)["recall"])
    assert Precision().score(sample)["precision"] == 0.0


def test_both_empty_is_undefined():
    sample = pair([], [])
    for metric in (Dice(), Recall(), Precision()):
        assert all(np.isnan(value) for value in metric.score(sample).values())


def test_dice_is_harmonic_mean_of_sensitivity_and_precision():
    random = np.random.default_rng(0)
    sample = MaskPair(random.random((5, 6, 7)) < 0.4, random.random((5, 6, 7)) < 0.3, SPACING)
    recall, precision = Recall().score(sample)["recall"], Precision().score(sample)["precision"]
    assert Dice().score(sample)["dice"] == pytest.approx(2 / (1 / recall + 1 / precision))
