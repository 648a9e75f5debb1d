"""Sheared stacks onto a right-angled grid, and uneven steps onto even ones; linear, so that no value is invented."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dicom.geometry import Stack, grid_of
from pipeline.imaging.volume import Volume


def straighten(voxels: NDArray[Any], stack: Stack, fill: Any = None) -> Volume:
    """Shift every slice back by its drift, onto a grid that is as much larger as the slices drift.

    Args:
        voxels: (N, H, W), even steps along the normal.
        stack: Where the slices lie.
        fill: Value of what no slice covers; None for the lowest of the image.

    Returns:
        Volume (1, N, H', W').
    """
    size = np.array(stack.shape)
    pixel = np.array(stack.spacing_mm)
    drift = stack.drift[:, ::-1] / pixel  # in pixels along (H, W)
    first = np.floor(drift.min(axis=0) + 1e-6).astype(int)
    last = np.ceil(drift.max(axis=0) + size - 1 - 1e-6).astype(int)
    target = last - first + 1
    fill = voxels.min() if fill is None else fill
    out = np.full((len(voxels), *target), fill, voxels.dtype)
    for into, section, shift in zip(out, voxels, drift - first, strict=True):
        _shifted(section, shift, into, fill)
    origin = stack.origin + (first * pixel)[::-1] @ stack.axes[:2]
    height, width = (int(side) for side in target)
    straight = replace(stack, origin=origin, shape=(height, width), drift=np.zeros_like(stack.drift))
    return Volume(out[None], grid_of(straight))


def even_out(voxels: NDArray[Any], stack: Stack) -> tuple[NDArray[Any], Stack]:
    """Interpolate slices (N, H, W) at even steps of the usual size, from the first slice to not beyond the last."""
    step = stack.usual_step_mm
    count = int((stack.heights[-1] - stack.heights[0]) / step + 1e-6) + 1
    heights = stack.heights[0] + step * np.arange(count)
    above = np.clip(np.searchsorted(stack.heights, heights, side="right"), 1, len(stack.heights) - 1)
    share = (heights - stack.heights[above - 1]) / (stack.heights[above] - stack.heights[above - 1])
    out = np.empty((count, *voxels.shape[1:]), voxels.dtype)
    for into, at, part in zip(out, above, share, strict=True):
        into[...] = _typed(voxels[at - 1] * (1 - part) + voxels[at] * part, voxels.dtype)
    drift = np.stack([np.interp(heights, stack.heights, stack.drift[:, axis]) for axis in range(2)], axis=1)
    return out, replace(stack, heights=heights, drift=drift)


def _shifted(section: NDArray[Any], shift: NDArray[Any], into: NDArray[Any], fill: Any) -> None:
    """Write a slice (H, W) into a larger one, shifted by a number of pixels along (H, W) that need not be whole."""
    whole = np.floor(shift + 1e-9).astype(int)
    part = np.clip(shift - whole, 0, 1)
    ringed = np.pad(section.astype(np.float64), ((1, 1), (1, 1)), mode="edge")
    mixed = ringed[1:] * (1 - part[0]) + ringed[:-1] * part[0]
    mixed = mixed[:, 1:] * (1 - part[1]) + mixed[:, :-1] * part[1]
    # Where the shift is whole the last row or column only repeats the edge, and may not fit.
    rows = section.shape[0] + (part[0] > 1e-6)
    columns = section.shape[1] + (part[1] > 1e-6)
    rows, columns = min(rows, into.shape[0] - whole[0]), min(columns, into.shape[1] - whole[1])
    into[whole[0] : whole[0] + rows, whole[1] : whole[1] + columns] = _typed(mixed[:rows, :columns], into.dtype)


def _typed(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.asarray(np.rint(values) if dtype.kind in "iu" else values, dtype)
