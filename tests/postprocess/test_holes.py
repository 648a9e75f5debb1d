"""Holes filled, against SciPy and scenes drawn by hand."""

import numpy as np
from scipy.ndimage import binary_fill_holes

from pipeline.postprocess.holes import FillHoles

SPACING = (2.0, 1.0, 1.0)


def shell(index=1):
    """A hollow box with a cavity of 3 x 4 x 5 voxels, 0.12 ml."""
    mask = np.zeros((9, 10, 11), np.uint8)
    mask[2:7, 2:8, 2:9] = index
    mask[3:6, 3:7, 3:8] = 0
    return mask


def test_equals_scipy_for_one_class():
    random = np.random.default_rng(0)
    mask = (random.random((15, 16, 17)) < 0.75).astype(np.uint8)
    assert np.array_equal(FillHoles().apply(mask, SPACING) > 0, binary_fill_holes(mask))


def test_cavity_gets_the_class_around_it():
    found = FillHoles().apply(shell(3), SPACING)
    assert (found == 3).sum() == 5 * 6 * 7


def test_open_cavity_and_border_stay():
    mask = shell()
    mask[2, 4, 4] = 0
    assert np.array_equal(FillHoles().apply(mask, SPACING), mask)
    cut = shell()[4:]
    assert np.array_equal(FillHoles().apply(cut, SPACING), cut)


def test_hole_between_two_classes_stays():
    mask = shell(1)
    mask[:, :, 5:][mask[:, :, 5:] == 1] = 2
    assert np.array_equal(FillHoles().apply(mask, SPACING), mask)


def test_another_class_inside_stays():
    mask = shell(1)
    mask[3:6, 3:7, 3:8] = 2
    assert np.array_equal(FillHoles().apply(mask, SPACING), mask)


def test_limits_by_volume_and_class():
    mask = shell()
    assert np.array_equal(FillHoles(max_ml=0.1).apply(mask, SPACING), mask)
    assert FillHoles(max_ml=0.13).apply(mask, SPACING).sum() == 5 * 6 * 7
    assert np.array_equal(FillHoles(classes=(2,)).apply(mask, SPACING), mask)


def test_empty_and_full_stay():
    for mask in (np.zeros((3, 4, 5), np.uint8), np.ones((3, 4, 5), np.uint8)):
        assert np.array_equal(FillHoles().apply(mask, SPACING), mask)
