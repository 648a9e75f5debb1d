"""Values against SciPy at the same points; invariants of the grid; the same numbers from any number of threads."""

import threading

import numpy as np
import pytest
from scipy import ndimage

from pipeline.imaging.encoding import Encoding
from pipeline.imaging.geometry import resampled_geometry, to_physical
from pipeline.imaging.resample import axis_points, label_on_grid, resample, resample_label
from pipeline.imaging.volume import Geometry, Volume

RANDOM = np.random.default_rng(11)
GRID = Geometry(shape=(30, 40, 50), spacing_mm=(2.0, 0.8, 0.7), origin=(5, -7, 11))
SPACINGS = [(1.5, 1.5, 1.5), (3.0, 0.5, 1.1), (2.0, 0.8, 0.4), (0.9, 2.5, 3.1)]


def rough_ct(grid: Geometry = GRID) -> np.ndarray:
    """Noise, edges of 3000 HU, and single bright voxels: harder than any anatomy."""
    voxels = RANDOM.normal(0, 60, grid.shape)
    voxels[:, 10:20, 10:30] += 1500
    voxels[:5] = -1000
    voxels[RANDOM.random(grid.shape) < 0.01] = 3000
    return voxels.round().astype(np.int16)


def at_points(voxels: np.ndarray, target: Geometry, source: Geometry, order: int, mode: str) -> np.ndarray:
    points = np.meshgrid(*axis_points(target, source), indexing="ij")
    return ndimage.map_coordinates(voxels.astype(float), points, order=order, mode=mode)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("order", [1, 3])
def test_image_equals_scipy(spacing: tuple[float, float, float], order: int) -> None:
    voxels = rough_ct()
    for source in (voxels, voxels.astype(np.float32), voxels.astype(np.float64)):
        out = resample(Volume(source[None], GRID), spacing, order=order)
        assert out.voxels.dtype == np.float32
        assert out.geometry == resampled_geometry(GRID, spacing)
        assert np.abs(out.voxels[0] - at_points(voxels, out.geometry, GRID, order, "mirror")).max() < 0.05


@pytest.mark.parametrize("shape", [(1, 2, 3), (4, 7, 11), (19, 21, 20), (1, 1, 64)])
def test_volumes_smaller_than_the_band(shape: tuple[int, int, int]) -> None:
    grid = Geometry(shape=shape, spacing_mm=(2, 1, 1))
    voxels = RANDOM.normal(0, 500, shape).astype(np.float32)
    for order in (1, 3):
        for spacing in ((1.3, 0.7, 2.1), (5.0, 0.3, 0.6)):
            out = resample(Volume(voxels[None], grid), spacing, order=order)
            expected = at_points(voxels, out.geometry, grid, order, "mirror")
            assert np.abs(out.voxels[0] - expected).max() < 0.05


def test_points_share_the_centre_of_the_field_of_view() -> None:
    target = resampled_geometry(GRID, (1.5, 1.5, 1.5))
    points = axis_points(target, GRID)
    for axis in range(3):
        assert points[axis].mean() == pytest.approx((GRID.shape[axis] - 1) / 2, abs=1e-6)
    corner = [points[axis][-1] for axis in range(3)]
    assert to_physical(GRID, corner) == pytest.approx(to_physical(target, np.subtract(target.shape, 1)), abs=1e-5)


def test_grids_with_other_axes_are_refused() -> None:
    turned = GRID.model_copy(update={"direction": (0, 1, 0, 1, 0, 0, 0, 0, 1)})
    with pytest.raises(ValueError, match="share no axes"):
        axis_points(turned, GRID)


def test_constants_and_own_spacing_are_kept() -> None:
    flat = np.full((2, *GRID.shape), 37, np.int16)
    assert np.abs(resample(Volume(flat, GRID), (1, 1, 1)).voxels - 37).max() < 1e-4
    voxels = rough_ct()
    same = resample(Volume(voxels[None], GRID), GRID.spacing_mm, encodings=(Encoding(),))
    assert np.array_equal(same.voxels[0], voxels)


def test_a_finer_grid_and_back_is_the_identity() -> None:
    smooth = ndimage.gaussian_filter(RANDOM.normal(0, 1000, GRID.shape), 2).astype(np.float32)
    fine = resample(Volume(smooth[None], GRID), (2 / 3, 0.8 / 3, 0.7 / 3))
    back = resample(fine, GRID.spacing_mm)
    inner = (slice(5, -5),) * 3
    assert np.abs(back.voxels[0][inner] - smooth[inner]).max() < 0.02 * smooth.std()


def test_stored_type_is_the_rounded_float() -> None:
    voxels = np.stack([rough_ct(), rough_ct() * 2])
    encodings = (Encoding(slope=0.25, inter=100), Encoding(slope=2.0))
    plain = resample(Volume(voxels, GRID), (1.5, 1.5, 1.5))
    stored = resample(Volume(voxels, GRID), (1.5, 1.5, 1.5), encodings=encodings)
    assert stored.voxels.dtype == np.int16
    for channel, encoding, values in zip(stored.voxels, encodings, plain.voxels):
        assert np.array_equal(channel, encoding.encode(values))


def test_thick_slices() -> None:
    grid = Geometry(shape=(9, 40, 40), spacing_mm=(5, 0.8, 0.8))
    voxels = rough_ct(grid)
    for thick, order in (("linear", 1), ("nearest", 0), ("same", 3)):
        out = resample(Volume(voxels[None], grid), (2.0, 1.5, 1.5), thick=thick)
        points = axis_points(out.geometry, grid)
        plane = [
            ndimage.map_coordinates(one, np.meshgrid(*points[1:], indexing="ij"), order=3, mode="mirror")
            for one in voxels.astype(float)
        ]
        if order == 0:
            expected = np.stack(plane)[np.clip(np.ceil(points[0] - 0.5), 0, 8).astype(int)]
        else:
            where = np.meshgrid(points[0], *(np.arange(n) for n in plane[0].shape), indexing="ij")
            expected = ndimage.map_coordinates(np.stack(plane), where, order=order, mode="mirror")
        assert np.abs(out.voxels[0] - expected).max() < 0.05
    thin = Geometry(shape=(9, 40, 40), spacing_mm=(2.0, 0.8, 0.8))
    once = resample(Volume(voxels[None], thin), (1, 1, 1), thick="nearest")
    assert np.array_equal(once.voxels, resample(Volume(voxels[None], thin), (1, 1, 1)).voxels)


def test_antialiasing_averages_and_keeps_the_mean() -> None:
    grid = Geometry(shape=(40, 40, 40))
    noise = RANDOM.normal(0, 100, grid.shape).astype(np.float32)
    plain = resample(Volume(noise[None], grid), (2.5, 2.5, 2.5)).voxels
    smooth = resample(Volume(noise[None], grid), (2.5, 2.5, 2.5), antialias=True).voxels
    assert smooth.std() < 0.5 * plain.std()
    assert smooth.mean() == pytest.approx(noise.mean(), abs=1.0)
    up = (0.5, 0.5, 0.5)
    assert np.array_equal(
        resample(Volume(noise[None], grid), up).voxels, resample(Volume(noise[None], grid), up, antialias=True).voxels
    )


def test_antialiasing_is_the_mean_of_the_spline_over_the_new_voxel() -> None:
    grid = Geometry(shape=(1, 1, 60))
    line = RANDOM.normal(0, 100, grid.shape).astype(np.float32)
    out = resample(Volume(line[None], grid), (1, 1, 2.7), antialias=True)
    points = axis_points(out.geometry, grid)[2]
    fine = points[:, None] + (np.arange(2000) + 0.5) / 2000 * 2.7 - 1.35
    spline = ndimage.map_coordinates(line[0, 0].astype(float), [fine], order=3, mode="mirror").mean(axis=1)
    assert np.abs(out.voxels[0, 0, 0] - spline).max() < 0.5


def blobs(grid: Geometry, classes: int = 9) -> np.ndarray:
    fields = [ndimage.gaussian_filter(RANDOM.normal(size=grid.shape), 2) for _ in range(classes)]
    label = np.argmax(fields, axis=0).astype(np.uint8)
    label[label == 7] = 255
    return label


@pytest.mark.parametrize("spacing", SPACINGS)
def test_label_equals_argmax_of_interpolated_one_hot_volumes(spacing: tuple[float, float, float]) -> None:
    label = blobs(GRID)
    target = resampled_geometry(GRID, spacing)
    classes = np.unique(label)
    shares = np.stack([at_points(label == index, target, GRID, 1, "nearest") for index in classes])
    best = np.sort(shares, axis=0)
    tied = best[-1] - best[-2] < 1e-6
    found = resample_label(label, GRID, spacing)
    assert np.array_equal(found[~tied], classes[shares.argmax(axis=0)][~tied])
    of_found = np.take_along_axis(shares, np.searchsorted(classes, found)[None], axis=0)[0]
    assert np.all(of_found >= best[-1] - 1e-6)


def test_ties_favour_no_class() -> None:
    label = (RANDOM.random((40, 40, 40)) < 0.5).astype(np.uint8)
    half = resample_label(label, Geometry(shape=label.shape), (2.0, 2.0, 2.0))
    assert half.mean() == pytest.approx(0.5, abs=0.03)


def test_ties_go_to_the_first_corner() -> None:
    label = np.array([[[3, 1, 255, 2]]], np.uint8)
    grid, target = Geometry(shape=(1, 1, 4)), Geometry(shape=(1, 1, 3), origin=(0.5, 0, 0))
    assert label_on_grid(label, grid, target).tolist() == [[[3, 1, 255]]]


def test_nearest_label_and_no_new_values() -> None:
    label = blobs(GRID)
    out = resample_label(label, GRID, (1.1, 1.1, 1.1), order=0)
    target = resampled_geometry(GRID, (1.1, 1.1, 1.1))
    halves = np.zeros(target.shape, bool)
    for axis, points in enumerate(axis_points(target, GRID)):
        halves |= np.expand_dims(points % 1 == 0.5, tuple({0, 1, 2} - {axis}))
    assert np.array_equal(out[~halves], at_points(label, target, GRID, 0, "nearest").astype(np.uint8)[~halves])
    assert set(np.unique(resample_label(label, GRID, (1.1, 1.1, 1.1)))) <= set(np.unique(label))
    assert resample_label(label, GRID, GRID.spacing_mm) is label


def test_label_volume_in_ml_is_kept() -> None:
    grid = Geometry(shape=(60, 60, 60))
    d, h, w = np.ogrid[:60, :60, :60]
    ball = ((d - 30) ** 2 + (h - 28) ** 2 + (w - 31) ** 2 < 20**2).astype(np.uint8)
    for spacing in ((2.3, 1.7, 0.6), (0.5, 0.9, 1.3)):
        out = resample_label(ball, grid, spacing)
        assert out.sum() * np.prod(spacing) == pytest.approx(float(ball.sum()), rel=0.02)


def test_numbers_do_not_depend_on_threads_or_callers() -> None:
    volume, label = Volume(rough_ct()[None], GRID), blobs(GRID)
    expected = resample(volume, (1, 1, 1), threads=1).voxels
    votes = resample_label(label, GRID, (1, 1, 1), threads=1)
    wrong: list[str] = []

    def work() -> None:
        for threads in (1, 2, 5):
            if not np.array_equal(resample(volume, (1, 1, 1), threads=threads).voxels, expected):
                wrong.append("image")
            if not np.array_equal(resample_label(label, GRID, (1, 1, 1), threads=threads), votes):
                wrong.append("label")

    callers = [threading.Thread(target=work) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_views_and_other_types_give_the_same() -> None:
    voxels = np.abs(rough_ct()) % 256
    expected = resample(Volume(voxels[None], GRID), (1, 1, 1)).voxels
    turned = np.asfortranarray(voxels)[None]
    assert np.array_equal(resample(Volume(turned, GRID), (1, 1, 1)).voxels, expected)
    for kind in (np.uint8, np.uint16, np.int32, np.float64):
        found = resample(Volume(voxels.astype(kind)[None], GRID), (1, 1, 1)).voxels
        assert np.abs(found - expected).max() < 1e-3
