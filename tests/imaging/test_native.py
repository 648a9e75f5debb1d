"""The fused decision against interpolating every class, whole and in slabs along any axis."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.imaging.geometry import reorientation_of, resampled_geometry
from pipeline.imaging.native import (
    decide_on_grid,
    interpolate_on_grid,
    label_to_source,
    logits_to_source,
    needed_range,
    ready_stop,
)
from pipeline.imaging.placement import Placement
from pipeline.imaging.resample import axis_points, label_on_grid
from pipeline.imaging.volume import Geometry

RANDOM = np.random.default_rng(2)
NATIVE = Geometry(shape=(40, 60, 50), spacing_mm=(1.0, 0.8, 0.9), origin=(-3, 2, 8))
WORKING = resampled_geometry(NATIVE, (1.5, 1.5, 1.5))


def smooth_logits(classes: int, grid: Geometry = WORKING) -> np.ndarray:
    fields = [ndimage.gaussian_filter(RANDOM.normal(size=grid.shape), 1.5) * 20 for _ in range(classes)]
    return np.stack(fields).astype(np.float32)


def full(logits: np.ndarray, working: Geometry = WORKING, native: Geometry = NATIVE) -> np.ndarray:
    """Every class interpolated by SciPy in float64."""
    points = np.meshgrid(*axis_points(native, working), indexing="ij")
    return np.stack([ndimage.map_coordinates(one.astype(float), points, order=1, mode="nearest") for one in logits])


def near_tie(values: np.ndarray) -> np.ndarray:
    top = np.sort(values, axis=0)
    return top[-1] - top[-2] < 1e-4


@pytest.mark.parametrize("classes", [2, 7, 40])
@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (4.0, 0.8, 0.5), (1.0, 0.8, 0.9)])
def test_equals_the_full_computation(classes: int, spacing: tuple[float, float, float]) -> None:
    working = resampled_geometry(NATIVE, spacing)
    logits = smooth_logits(classes, working)
    values = full(logits, working)
    found = decide_on_grid(logits, working, NATIVE)
    assert found.dtype == np.uint8
    different = found != values.argmax(axis=0)
    assert not np.any(different & ~near_tie(values))
    assert different.mean() < 1e-4
    assert np.abs(interpolate_on_grid(logits, working, NATIVE) - values).max() < 1e-3


def test_random_logits_where_every_cell_is_mixed() -> None:
    logits = RANDOM.normal(size=(12, *WORKING.shape)).astype(np.float32)
    values = full(logits)
    assert not np.any((decide_on_grid(logits, WORKING, NATIVE) != values.argmax(axis=0)) & ~near_tie(values))


def test_the_winner_need_not_be_first_anywhere_around() -> None:
    working, native = Geometry(shape=(1, 1, 2), spacing_mm=(1, 1, 2)), Geometry(shape=(1, 1, 3))
    logits = np.array([[[[10, 0]]], [[[0, 10]]], [[[9, 9]]]], np.float32)
    assert decide_on_grid(logits, working, native).tolist() == [[[0, 2, 1]]]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_along_any_axis_give_the_same(axis: int) -> None:
    logits = smooth_logits(6)
    expected = decide_on_grid(logits, WORKING, NATIVE)
    interpolated = interpolate_on_grid(logits, WORKING, NATIVE)
    out, done = np.full_like(expected, 99), 0
    for finished in (*range(5, WORKING.shape[axis], 7), WORKING.shape[axis]):
        stop = ready_stop(finished, axis, WORKING, NATIVE)
        if stop == done:
            continue
        first, last = needed_range((done, stop), axis, WORKING, NATIVE)
        assert last <= finished
        start, low, high = [0, 0, 0], [0, 0, 0], list(NATIVE.shape)
        start[axis], low[axis], high[axis] = first, done, stop
        slab = np.take(logits, range(first, last), axis=axis + 1)
        box = (tuple(low), tuple(high))
        where = tuple(slice(a, b) for a, b in zip(low, high))
        out[where] = decide_on_grid(slab, WORKING, NATIVE, start=tuple(start), box=box)
        part = interpolate_on_grid(slab, WORKING, NATIVE, start=tuple(start), box=box)
        assert np.array_equal(part, interpolated[(slice(None), *where)])
        done = stop
    assert done == NATIVE.shape[axis]
    assert np.array_equal(out, expected)


def test_a_slab_that_is_too_small_is_refused() -> None:
    logits = smooth_logits(3)
    with pytest.raises(ValueError, match="along D"):
        decide_on_grid(logits[:, 3:9], WORKING, NATIVE, start=(3, 0, 0))
    with pytest.raises(ValueError, match="along W"):
        interpolate_on_grid(logits[..., :5], WORKING, NATIVE)


def test_single_slices_and_threads() -> None:
    native = Geometry(shape=(1, 9, 8), spacing_mm=(5, 1, 1))
    working = resampled_geometry(native, (5, 2, 2))
    logits = smooth_logits(4, working)
    values = full(logits, working, native)
    assert np.array_equal(decide_on_grid(logits, working, native), values.argmax(axis=0))
    assert np.abs(interpolate_on_grid(logits, working, native) - values).max() < 1e-4
    many = smooth_logits(6)
    one, three = (decide_on_grid(many, WORKING, NATIVE, threads=threads) for threads in (1, 3))
    assert np.array_equal(one, three)


def test_back_to_the_source_grid() -> None:
    direction = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    source = Geometry(shape=(44, 66, 54), spacing_mm=NATIVE.spacing_mm, direction=direction)
    start, stop = (2, 3, 4), (42, 63, 54)
    placement = Placement(reorientation=reorientation_of(source), start=start, stop=stop, working=NATIVE)
    working = resampled_geometry(placement.cropped, (1.5, 1.5, 1.5))
    placement = placement.model_copy(update={"working": working})
    logits = smooth_logits(5, working)
    mask = logits_to_source(logits, placement)
    assert mask.shape == source.shape
    inside = mask[2:42, ::-1, ::-1][:, 3:63, 4:54]
    assert np.array_equal(inside, decide_on_grid(logits, working, placement.cropped))
    assert mask.astype(bool).sum() == inside.astype(bool).sum()
    indices = logits.argmax(axis=0).astype(np.uint8)
    votes = label_to_source(indices, placement)[2:42, ::-1, ::-1][:, 3:63, 4:54]
    assert np.array_equal(votes, label_on_grid(indices, working, placement.cropped))
