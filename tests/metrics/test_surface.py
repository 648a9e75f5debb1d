"""Surface metrics against formulas, brute force and MONAI."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist

from pipeline.metrics.base import MaskPair
from pipeline.metrics.surface import Assd, Hd95, Nsd, surface_distances

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.7, 1.2)]


def blobs(seed, shape=(14, 18, 20)):
    """Two overlapping random blobs, some of which touch the border of the image."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    masks = []
    for _ in range(2):
        mask = np.zeros(shape, bool)
        for _ in range(3):
            centre, radius = random.uniform(0.2, 0.8, 3) * shape, random.uniform(2, 6)
            mask |= ((grid - centre) ** 2).sum(-1) < radius**2
        masks.append(mask)
    return masks


def brute_force(prediction, reference, spacing):
    """Every surface voxel against every other one, with SciPy's erosion."""
    points = [np.argwhere(mask & ~binary_erosion(mask)) * spacing for mask in (prediction, reference)]
    all_pairs = cdist(*points)
    return all_pairs.min(axis=1), all_pairs.min(axis=0)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_distances_equal_brute_force(seed, spacing):
    prediction, reference = blobs(seed)
    found = surface_distances(prediction, reference, spacing)
    forward, backward = brute_force(prediction, reference, spacing)
    np.testing.assert_allclose(np.sort(found.of_prediction), np.sort(forward), atol=1e-4)
    np.testing.assert_allclose(np.sort(found.of_reference), np.sort(backward), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_monai(seed, spacing):
    torch = pytest.importorskip("torch")
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    prediction, reference = blobs(seed)
    one_hot = [torch.from_numpy(np.stack([~mask, mask])[None]) for mask in (prediction, reference)]
    pair = MaskPair(prediction, reference, spacing)
    hd95 = compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing).item()
    assd = compute_average_surface_distance(*one_hot, symmetric=True, spacing=spacing).item()
    nsd = compute_surface_dice(*one_hot, class_thresholds=[1.5], spacing=spacing).item()
    assert Hd95().score(pair)["hd95_mm"] == pytest.approx(hd95, abs=1e-4)
    assert Assd().score(pair)["assd_mm"] == pytest.approx(assd, abs=1e-4)
    assert Nsd(tolerance_mm=1.5).score(pair)["nsd_1.5mm"] == pytest.approx(nsd, abs=1e-6)


def test_shifted_box_is_off_by_the_shift():
    reference = np.zeros((30, 40, 40), bool)
    reference[5:15, 10:30, 10:30] = True
    prediction = np.roll(reference, 4, axis=0)
    pair = MaskPair(prediction, reference, (2.5, 1.0, 1.0))
    # The moved top and bottom faces are 4 slices of 2.5 mm away from the nearest face, and they are
    # more than 5 % of the surface, so that HD95 is the whole shift.
    assert Hd95().score(pair)["hd95_mm"] == pytest.approx(10.0)
    assert Nsd(tolerance_mm=10.0).score(pair)["nsd_10mm"] == 1.0
    assert 0.3 < Nsd(tolerance_mm=2.0).score(pair)["nsd_2mm"] < 0.8


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concentric_spheres_are_apart_by_the_difference_of_radii(axis):
    spacing = [0.8, 0.8, 0.8]
    spacing[axis] = 1.6
    shape = [60, 60, 60]
    shape[axis] = 30
    centre = (np.array(shape) - 1) / 2
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    radius = np.sqrt((((grid - centre) * spacing) ** 2).sum(-1))
    pair = MaskPair(radius < 20, radius < 15, tuple(spacing))
    assert Assd().score(pair)["assd_mm"] == pytest.approx(5.0, abs=0.8)  # half a voxel of the thick axis
    assert Hd95().score(pair)["hd95_mm"] == pytest.approx(5.0, abs=1.0)
    assert Nsd(tolerance_mm=3.0).score(pair)["nsd_3mm"] == 0.0


def test_a_mask_equals_itself():
    mask, _ = blobs(0)
    pair = MaskPair(mask, mask.copy(), (1.0, 2.0, 3.0))
    assert Hd95().score(pair) == {"hd95_mm": 0.0}
    assert Assd().score(pair) == {"assd_mm": 0.0}
    assert Nsd().score(pair) == {"nsd_2mm": 1.0}


def test_cut_at_the_image_border_is_surface():
    whole = np.ones((4, 5, 6), bool)
    found = surface_distances(whole, whole, (1.0, 1.0, 1.0))
    assert found.of_prediction.size == 4 * 5 * 6 - 2 * 3 * 4


@pytest.mark.parametrize("empty", ["prediction", "reference"])
def test_one_empty_mask_has_no_distance_and_no_surface_in_common(empty):
    mask, _ = blobs(0)
    nothing = np.zeros_like(mask)
    pair = MaskPair(nothing, mask, SPACINGS[1]) if empty == "prediction" else MaskPair(mask, nothing, SPACINGS[1])
    assert np.isnan(Hd95().score(pair)["hd95_mm"])
    assert np.isnan(Assd().score(pair)["assd_mm"])
    assert Nsd().score(pair)["nsd_2mm"] == 0.0
    assert Hd95(empty_mm=374).score(pair)["hd95_mm"] == 374.0
    assert Assd(empty_mm=374).score(pair)["assd_mm"] == 374.0


def test_both_empty_is_undefined():
    nothing = np.zeros((3, 4, 5), bool)
    pair = MaskPair(nothing, nothing, SPACINGS[0])
    for metric in (Hd95(), Hd95(empty_mm=10), Assd(), Nsd()):
        assert all(np.isnan(value) for value in metric.score(pair).values())


def test_order_of_the_two_masks_does_not_matter():
    one, other = blobs(3)
    forward, backward = MaskPair(one, other, SPACINGS[1]), MaskPair(other, one, SPACINGS[1])
    for metric in (Hd95(), Assd(), Nsd()):
        assert list(metric.score(forward).values()) == pytest.approx(list(metric.score(backward).values()))
