"""Components kept and dropped, against SciPy's labelling and volumes in ml."""

import numpy as np
import pytest
from scipy.ndimage import generate_binary_structure, label

from pipeline.postprocess.components import LargestComponent, MinimumVolume

SPACING = (2.0, 1.0, 1.0)


@pytest.fixture
def mask():
    """Two classes of random specks."""
    random = np.random.default_rng(0)
    return random.choice(np.array([0, 1, 2], np.uint8), size=(12, 14, 16), p=[0.8, 0.1, 0.1])


@pytest.mark.parametrize(("connectivity", "rank"), [(6, 1), (18, 2), (26, 3)])
def test_largest_equals_scipy(mask, connectivity, rank):
    found = LargestComponent(connectivity=connectivity).apply(mask, SPACING)
    for index in (1, 2):
        parts, _ = label(mask == index, generate_binary_structure(3, rank))
        sizes = np.bincount(parts.ravel())[1:]
        kept = np.unique(parts[found == index])
        assert kept.size == 1
        assert (found == index).sum() == sizes.max()


def test_keeps_several_and_leaves_other_classes():
    mask = np.zeros((1, 1, 20), np.uint8)
    mask[..., 0:5], mask[..., 6:9], mask[..., 10:11] = 1, 1, 1
    mask[..., 12:15], mask[..., 17:18] = 2, 2
    found = LargestComponent(classes=(1,), keep=2).apply(mask, SPACING)
    assert found[..., :9].sum() == 8
    assert found[..., 10] == 0
    assert np.array_equal(found[..., 12:], mask[..., 12:])


def test_touching_classes_do_not_merge():
    mask = np.zeros((1, 1, 10), np.uint8)
    mask[..., 0:4], mask[..., 4:6], mask[..., 8:9] = 1, 2, 2
    found = LargestComponent().apply(mask, SPACING)
    assert found[0, 0].tolist() == [1, 1, 1, 1, 2, 2, 0, 0, 0, 0]


def test_minimum_volume_counts_millilitres():
    mask = np.zeros((10, 40, 40), np.uint8)
    mask[0:5, 0:10, 0:10] = 1  # 500 voxels of 2 mm3: 1.0 ml
    mask[0:5, 20:30, 20:29] = 1  # 0.9 ml
    found = MinimumVolume(volume_ml=0.95).apply(mask, SPACING)
    assert found.sum() == 500
    assert MinimumVolume(volume_ml=0.95, classes=(2,)).apply(mask, SPACING).sum() == 950


@pytest.mark.parametrize("step", [LargestComponent(), MinimumVolume(volume_ml=0.001)])
def test_empty_mask_stays_empty_and_input_unchanged(step, mask):
    before = mask.copy()
    step.apply(mask, SPACING)
    assert np.array_equal(mask, before)
    empty = np.zeros((3, 4, 5), np.uint8)
    assert np.array_equal(step.apply(empty, SPACING), empty)


@pytest.mark.parametrize("step", [LargestComponent(), MinimumVolume(volume_ml=0.01)])
def test_twice_is_once(step, mask):
    once = step.apply(mask, SPACING)
    assert np.array_equal(step.apply(once, SPACING), once)


def test_of_equals_the_first_in_the_volume_stays():
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[1, 1, 1:3] = mask[6, 6, 5:7] = 1
    assert np.argwhere(LargestComponent().apply(mask, SPACING)).tolist() == [[1, 1, 1], [1, 1, 2]]
