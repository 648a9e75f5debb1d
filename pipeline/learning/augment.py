"""Where a patch lies in its volume, and the one step that cuts, turns, scales, mirrors and normalises it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import Window
from pipeline.learning import gather
from pipeline.transforms.base import Transform

Size = tuple[int, int, int]
"""Voxels along (D, H, W)."""
Drawn = tuple[Any, ...]
"""What each transform drew, in their order; None where it leaves the patch alone."""


class Voxels(Protocol):
    """A prepared case, on disk or in memory (`imaging.store`)."""

    @property
    def shape(self) -> Size:
        """Voxels along (D, H, W)."""

    def read(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        """Return the intensities (C, d, h, w) of a box."""

    def read_label(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.uint8]:
        """Return the class indices (d, h, w) of a box."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Where the voxels of a patch lie: patch voxel x shows the volume at matrix @ x + offset.

    size:   Patch (D, H, W).
    matrix: (3, 3) float64 over (D, H, W), in voxels of the volume.
    offset: (3,) float64, voxel of the volume at the first voxel of the patch.
    """

    size: Size
    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    @property
    def is_on_grid(self) -> bool:
        """Whether every voxel of the patch is one of the volume, in order or mirrored: nothing is interpolated."""
        is_upright = np.array_equal(np.abs(self.matrix), np.eye(3))
        return is_upright and np.array_equal(self.offset, np.rint(self.offset))

    @property
    def exchanges_sides(self) -> bool:
        """Whether W runs backwards, so that what lay on the left is shown on the right; see `Flip` for the rule."""
        return bool(self.matrix[2, 2] < 0)

    def box(self, shape: Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return start and stop (D, H, W) of the voxels that are needed, inside the volume; never empty."""
        reach = self.matrix * (np.array(self.size) - 1)
        low = self.offset + np.minimum(reach, 0).sum(axis=1)
        high = self.offset + np.maximum(reach, 0).sum(axis=1)
        # Rounding must not ask for a voxel more where the patch lies on the grid.
        start = np.clip(np.floor(low + 1e-9), 0, np.array(shape) - 1).astype(int)
        stop = np.clip(np.ceil(high - 1e-9) + 1, start + 1, np.array(shape)).astype(int)
        return tuple(start.tolist()), tuple(stop.tolist())


@dataclass(frozen=True, eq=False)
class Box:
    """The part of a volume that a patch needs.

    start:  Its first voxel (D, H, W) in the volume.
    voxels: (C, d, h, w) stored intensities, int16 or float32, contiguous.
    label:  (d, h, w) class indices, contiguous; None where they are not wanted.
    """

    start: tuple[int, ...]
    voxels: NDArray[Any]
    label: NDArray[np.uint8] | None


def place(start: Size, size: Size, spacing_mm: Sequence[float], transforms: Sequence[Transform], drawn: Drawn) -> Frame:
    """Return the frame of a patch: an upright one at `start`, turned about its centre by the spatial transforms.

    Args:
        start: First voxel (D, H, W) before turning; negative where the patch is larger than the volume.
        size: Patch (D, H, W).
        spacing_mm: Voxel size of the volume: turning is done in mm, so that thick slices are not sheared.
        transforms: Of all kinds; those of intensity are passed over.
        drawn: What each of them drew.
    """
    matrix = torch.diag(torch.tensor(spacing_mm, dtype=torch.float64))
    for transform, parameters in zip(transforms, drawn, strict=True):
        if transform.spatial:
            matrix = transform.apply(matrix, parameters)
    in_voxels = matrix.numpy() / np.array(spacing_mm)[:, None]
    half = (np.array(size) - 1) / 2
    return Frame(size, in_voxels, np.array(start) + half - in_voxels @ half)


def read_box(case: Voxels, frame: Frame, *, with_label: bool) -> Box:
    """Read what a patch needs, and no more."""
    start, stop = frame.box(case.shape)
    voxels = case.read(start, stop)
    # Two types have compiled kernels; int16 is what most cases are stored in.
    voxels = np.ascontiguousarray(voxels, np.int16 if voxels.dtype == np.int16 else np.float32)
    return Box(start, voxels, np.ascontiguousarray(case.read_label(start, stop)) if with_label else None)


def cut(
    box: Box, windows: Sequence[Window], frame: Frame, sides: NDArray[np.uint8], device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Normalise a box and cut the patch out of it.

    Args:
        box: From `read_box` with the same frame.
        windows: Normalisation of each channel.
        frame: Where the patch lies.
        sides: `side_table` of the labels.
        device: Where the patch is made.

    Returns:
        Image (C, D, H, W) float32, background outside the volume; labels (D, H, W) uint8, 255 outside, None
        where the box has none.
    """
    table = sides if frame.exchanges_sides else np.arange(256, dtype=np.uint8)
    numbers = np.array([(w.lower, w.upper, w.shift, w.scale, w.background) for w in windows], np.float32)
    return (cut_on_cpu if device.type == "cpu" else partial(cut_on_device, device=device))(box, frame, numbers, table)


def cut_on_cpu(
    box: Box, frame: Frame, numbers: NDArray[np.float32], table: NDArray[np.uint8]
) -> tuple[Tensor, Tensor | None]:
    """Cut with compiled kernels: copied where the patch is on the grid, else interpolated.

    Args:
        box: What was read.
        frame: Where the patch lies.
        numbers: (C, 5): lower, upper, shift, scale, background of each channel.
        table: (256,) class index -> class index.
    """
    image = np.empty((len(box.voxels), *frame.size), np.float32)
    truth = np.empty(frame.size, np.uint8) if box.label is not None else None
    if frame.is_on_grid:
        overlap = _overlap(frame, box)
        gather.crop_image(box.voxels, overlap, numbers, image)
        if box.label is not None and truth is not None:
            gather.crop_label(box.label, overlap, table, truth)
    else:
        offset = frame.offset - box.start
        gather.gather_image(_normalised(box.voxels, numbers), frame.matrix, offset, numbers[:, 4].copy(), image)
        if box.label is not None and truth is not None:
            gather.gather_label(box.label, frame.matrix, offset, table, truth)
    return torch.from_numpy(image), None if truth is None else torch.from_numpy(truth)


def cut_on_device(
    box: Box, frame: Frame, numbers: NDArray[np.float32], table: NDArray[np.uint8], device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Do the same in torch: the box travels in its stored type, the rest is done by the device."""
    lower, upper, shift, scale, background = torch.from_numpy(numbers).to(device).T[..., None, None, None]
    voxels = torch.from_numpy(box.voxels).to(device).float()
    normalised = (voxels.clamp(lower, upper) - shift) * scale
    label = torch.from_numpy(box.label).to(device) if box.label is not None else None
    return gather.gather_on_device(
        normalised,
        label,
        matrix=frame.matrix,
        offset=frame.offset - box.start,
        background_C=background.flatten(),
        table=torch.from_numpy(table),
        size=frame.size,
    )


def change_intensity(transforms: Sequence[Transform], drawn: Drawn, image: Tensor) -> Tensor:
    """Apply the intensity transforms to a cut patch (C, D, H, W), in their order, in place."""
    for transform, parameters in zip(transforms, drawn, strict=True):
        if not transform.spatial:
            image = transform.apply(image, parameters)
    return image


def side_table(labels: Labels) -> NDArray[np.uint8]:
    """Return (256,) class index -> class index after left and right have changed places."""
    table = np.arange(256, dtype=np.uint8)
    for one, other in labels.swaps():
        table[one], table[other] = other, one
    return table


def _normalised(box: NDArray[Any], numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise before interpolating: clipping and interpolating do not commute."""
    out = np.empty(box.shape, np.float32)
    gather.crop_image(box, np.array([(0, 0, 0), (1, 1, 1), (0, 0, 0), box.shape[1:]], np.int64), numbers, out)
    return out


def _overlap(frame: Frame, box: Box) -> NDArray[np.int64]:
    """Return (4, 3) what of a patch on the grid the box fills, as `gather.crop_image` wants it."""
    step = np.sign(np.diag(frame.matrix)).astype(np.int64)
    at_zero, extent = np.rint(frame.offset).astype(np.int64) - box.start, np.array(box.voxels.shape[1:])
    first = np.maximum(np.where(step > 0, -at_zero, at_zero - extent + 1), 0)
    last = np.minimum(np.where(step > 0, extent - at_zero, at_zero + 1), frame.size)
    return np.stack([at_zero + step * first, step, first, np.maximum(last, first)])
