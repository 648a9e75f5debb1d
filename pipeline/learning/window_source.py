"""Where windows of a prepared case come from: its store, the memory of a GPU; and which lie outside of interest."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError
from pipeline.imaging.geometry import apply
from pipeline.imaging.normalise import Window
from pipeline.imaging.resample import axis_points
from pipeline.imaging.store import LoadedCase, StoredCase
from pipeline.learning.sliding_window import Box

PreparedCase = LoadedCase | StoredCase


def outside(roi: NDArray[Any], case: PreparedCase) -> Callable[[Box], bool]:
    """Return what says of a part of the working grid that no voxel of the region of interest lies in it.

    Raises:
        DataError: the region lies on another grid than the image.
    """
    placement = case.meta.placement
    if roi.shape != placement.source.shape:
        raise DataError(
            f"case {case.meta.case_id}: the region of interest has the shape {roi.shape}; expected that of the image, "
            f"{placement.source.shape}. Draw it on this image."
        )
    crop = tuple(slice(start, stop) for start, stop in zip(placement.start, placement.stop, strict=True))
    inside = apply(roi, placement.reorientation)[crop]
    places = axis_points(placement.cropped, placement.working)

    def is_outside(box: Box) -> bool:
        # One voxel more on each side, from which interpolation may take its share.
        ranges = [
            np.searchsorted(points, (part.start - 1, part.stop)) for points, part in zip(places, box, strict=True)
        ]
        return not inside[tuple(slice(int(first), int(last)) for first, last in ranges)].any()

    return is_outside


def from_store(case: PreparedCase) -> Callable[[list[Window], Box], Tensor]:
    """Return what reads and normalises a window on the CPU."""

    def read(maps: list[Window], box: Box) -> Tensor:
        raw = case.read(*corners(box))
        return torch.from_numpy(np.stack([one.apply(channel) for one, channel in zip(maps, raw, strict=True)]))

    return read


def on_device(case: PreparedCase, device: torch.device) -> Callable[[list[Window], Box], Tensor]:
    """Return what does the same on a GPU, which holds the whole prepared volume: the CPU could not feed it."""
    raw_CDHW = torch.from_numpy(np.ascontiguousarray(case.read((0, 0, 0), case.shape))).to(device)

    def read(maps: list[Window], box: Box) -> Tensor:
        channels = [
            raw_CDHW[(index, *box)].float().clamp_(one.lower, one.upper).sub_(one.shift).mul_(one.scale)
            for index, one in enumerate(maps)
        ]
        return torch.stack(channels)

    return read


def corners(box: Box) -> tuple[list[int], list[int]]:
    """Return where a part begins and ends along (D, H, W)."""
    return [part.start for part in box], [part.stop for part in box]
