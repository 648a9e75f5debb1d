"""From the working grid back to the native one, slab by slab if need be, without interpolating every class."""

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.encoding import Encoding
from pipeline.imaging.placement import Index, Placement
from pipeline.imaging.resample import Band, Between, axis_points, between, filter_volume, label_on_grid
from pipeline.imaging.volume import Geometry

Range = tuple[int, int]
"""First voxel and one past the last, along one axis."""


def decide_on_grid(
    logits: NDArray[np.float32],
    working: Geometry,
    native: Geometry,
    *,
    start: Index = (0, 0, 0),
    box: tuple[Index, Index] | None = None,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Return the argmax over classes of logits that are interpolated linearly to the native grid.

    Equal to interpolating every class and taking the argmax (ties excepted): where the up to eight neighbours of
    a voxel have one winner, that class wins between them, so only the few other voxels look at all classes.
    The outermost voxels of the working grid go on beyond its edges.

    Args:
        logits: (K, d, h, w) float32, K <= 255: a part of the working grid; read in place where contiguous.
        working: The whole working grid.
        native: The whole native grid; its axes are those of `working`.
        start: Voxel of the working grid at which `logits` begins, (D, H, W).
        box: Part of the native grid to decide, from (D, H, W) to before (D, H, W); None for all of it.
        threads: One a core where None, but one in a worker process.

    Returns:
        Class indices of the box, (D', H', W').

    Raises:
        ValueError: the grids have other axes, or `logits` does not cover what the box needs (`needed_range`).
    """
    from pipeline.imaging import kernels

    logits = np.ascontiguousarray(logits, np.float32)
    along = _neighbours(logits.shape[1:], working, native, start, box)
    winners = np.empty(logits.shape[1:], np.uint8)
    out = np.empty([len(axis.lower) for axis in along], np.uint8)
    kernels.in_slices(lambda first, last: kernels.strongest_slices(logits, winners, first, last), len(winners), threads)
    kernels.in_slices(
        lambda first, last: kernels.decide_slices(logits, winners, out, first, last, *along), len(out), threads
    )
    return out


def interpolate_on_grid(
    values: NDArray[np.float32],
    working: Geometry,
    native: Geometry,
    *,
    start: Index = (0, 0, 0),
    box: tuple[Index, Index] | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return values (K, d, h, w) of the working grid, interpolated linearly to the native one: (K, D', H', W').

    For probabilities, and for regions, whose decision needs the interpolated value itself. Arguments and errors
    are those of `decide_on_grid`.
    """
    along = _neighbours(values.shape[1:], working, native, start, box)
    bands = [_band(axis) for axis in along]
    out = np.empty((len(values), *(len(axis.lower) for axis in along)), np.float32)
    for source, target in zip(values, out, strict=True):
        filter_volume(source, target, (bands[0], bands[1], bands[2]), Encoding(dtype="float32"), threads)
    return out


def needed_range(native_range: Range, axis: int, working: Geometry, native: Geometry) -> Range:
    """Return which voxels of the working grid along `axis` a range of native ones is interpolated from."""
    first, last = native_range
    lower, upper, _ = between(axis_points(native, working)[axis][first:last], working.shape[axis])
    return int(lower.min()), int(upper.max()) + 1


def ready_stop(finished: int, axis: int, working: Geometry, native: Geometry) -> int:
    """Return how many native voxels along `axis`, from the first, need only the first `finished` working ones."""
    upper = between(axis_points(native, working)[axis], working.shape[axis]).upper
    return int(np.searchsorted(upper, finished))


def logits_to_source(
    logits: NDArray[np.float32], placement: Placement, threads: int | None = None
) -> NDArray[np.uint8]:
    """Decide logits (K, D, H, W) of a whole working grid on the grid of the file; background outside the crop."""
    return placement.to_source(decide_on_grid(logits, placement.working, placement.cropped, threads=threads))


def label_to_source(indices: NDArray[np.uint8], placement: Placement, threads: int | None = None) -> NDArray[np.uint8]:
    """Bring class indices (D, H, W) of a case's working grid to the grid of its file, by linear votes."""
    return placement.to_source(label_on_grid(indices, placement.working, placement.cropped, threads=threads))


def _neighbours(
    shape: tuple[int, ...], working: Geometry, native: Geometry, start: Index, box: tuple[Index, Index] | None
) -> list[Between]:
    """Find, along each axis, the neighbours of the native voxels in a part of the working grid."""
    low, high = box or ((0, 0, 0), native.shape)
    along = []
    for axis, points in enumerate(axis_points(native, working)):
        lower, upper, share = between(points[low[axis] : high[axis]], working.shape[axis])
        begin, end = start[axis], start[axis] + shape[axis]
        if len(lower) == 0 or lower.min() < begin or upper.max() >= end:
            raise ValueError(
                f"along {'DHW'[axis]} the voxels {begin} to {end} of the working grid do not cover "
                f"the native voxels {low[axis]} to {high[axis]}"
            )
        along.append(Between(lower - np.uint32(begin), upper - np.uint32(begin), share))
    return along


def _band(axis: Between) -> Band:
    if np.array_equal(axis.lower, axis.upper):  # an axis of one voxel
        return Band(axis.lower.astype(np.intp), np.ones((len(axis.lower), 1), np.float32))
    return Band(axis.lower.astype(np.intp), np.stack([1 - axis.share, axis.share], axis=1))
