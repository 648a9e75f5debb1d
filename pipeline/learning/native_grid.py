"""From finished slabs of logits to masks on the grid of the input, slab by slab.

Letters of a shape: K classes; D H W the working grid, on which logits live; d h w the native one, on which masks do.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.imaging.geometry import apply
from pipeline.imaging.labels import Labels
from pipeline.imaging.native import decide_on_grid
from pipeline.imaging.placement import Index, Placement
from pipeline.imaging.resample import Between, axis_points, between
from pipeline.imaging.volume import Geometry, Spacing
from pipeline.learning.sliding_window import Slab

_PIECE_BYTES = {"cpu": 1 << 27, "cuda": 1 << 30}
"""Logits that are looked at or interpolated at once, by device."""


@dataclass(frozen=True)
class Grids:
    """The grid of the logits and that of the input, with the same axes."""

    working: Geometry
    native: Geometry

    @cached_property
    def neighbours(self) -> tuple[Between, ...]:
        """Along each axis, the working voxels on both sides of each native one; the outermost go on beyond the edge."""
        points = axis_points(self.native, self.working)
        return tuple(between(along, n) for along, n in zip(points, self.working.shape, strict=True))


@dataclass(frozen=True)
class Part:
    """Where a piece of logits begins on the working grid, and the native box (from, to before) that it decides."""

    start: Index
    low: Index
    high: Index


Decide = Callable[[Tensor, Grids, Part], NDArray[Any]]
"""(logits (K, D, H, W) of a part, grids, part) -> what they say of the native box, (..., d, h, w)."""


class Target(Protocol):
    """What takes parts of an array: an ndarray, or a compressed one on disk."""

    def __setitem__(self, where: Any, values: NDArray[Any], /) -> None:
        """Take a part."""


@dataclass(frozen=True, eq=False)
class Output:
    """One thing that is made of the logits.

    decide:       What they mean.
    array:        (..., d, h, w) on the whole native grid, in memory or on disk; filled as slabs arrive.
    interpolates: Whether `decide` holds all K classes of all its native voxels at once.
    """

    decide: Decide
    array: "Target"
    interpolates: bool = False


class SourceMask:
    """A mask on the grid of the file, written through a view of it as it lies on the cropped canonical grid.

    whole: (D, H, W) label values on the grid of the file; background outside the crop.
    view:  The part of it that logits speak of, in canonical orientation.
    """

    def __init__(self, labels: Labels, placement: Placement) -> None:
        self.labels, self.voxel_ml, self._source = labels, placement.cropped.voxel_ml, placement.source
        self.whole = np.full(placement.source.shape, labels.to_values(np.zeros(1, np.uint8))[0])
        box = tuple(slice(start, stop) for start, stop in zip(placement.start, placement.stop, strict=True))
        self.view = apply(self.whole, placement.reorientation)[box]
        self._voxels = np.zeros(256, np.int64)

    def deciding(self, decide: Decide) -> Decide:
        """Return a decision that gives label values instead of class indices, and counts voxels on its way."""

        def decide_values(logits_KDHW: Tensor, grids: Grids, part: Part) -> NDArray[Any]:
            found = decide(logits_KDHW, grids, part)
            self._voxels += np.bincount(found.ravel(), minlength=256)
            return self.labels.to_values(found)

        return decide_values

    @property
    def spacing_mm(self) -> Spacing:
        """Voxel size of `whole`."""
        return self._source.spacing_mm

    def replaced(self, indices: NDArray[np.uint8]) -> "SourceMask":
        """Return a mask of other class indices (D, H, W) on the grid of the file, with their volumes."""
        other = copy(self)
        other.whole = self.labels.to_values(indices)
        other._voxels = np.bincount(indices.ravel(), minlength=256)
        return other

    def volumes_ml(self) -> dict[str, float]:
        """Return the volume of each foreground class, or of each region."""
        order = {name: index for index, name in enumerate(self.labels.classes)}
        groups = self.labels.regions or {name: (name,) for name in self.labels.foreground}
        voxels = {name: sum(int(self._voxels[order[one]]) for one in members) for name, members in groups.items()}
        return {name: count * self.voxel_ml for name, count in voxels.items()}


def write_native(slabs: Iterable[Slab], grids: Grids, outputs: Sequence[Output]) -> None:
    """Consume slabs as they are finished and fill every output.

    A native slice needs the working rows on both sides of it, so the last row of a slab is kept for the next one.

    Args:
        slabs: In order and without a gap.
        grids: The slabs' and the outputs' grid.
        outputs: What to make; their arrays are written in place.
    """
    done, last = 0, torch.empty(0)
    for slab in slabs:
        dim, rows = slab.axis + 1, slab.stop - slab.start
        lower, upper, _ = grids.neighbours[slab.axis]
        across, ready = np.searchsorted(upper, (slab.start + 1, slab.stop)).tolist()
        if done < across and int(lower[done]) < slab.start:
            seam = torch.cat([last, slab.logits.narrow(dim, 0, 1)], dim)
            _write(Slab(slab.start - 1, slab.start + 1, slab.axis, seam), (done, across), grids, outputs)
            done = across
        _write(slab, (done, ready), grids, outputs)
        done, last = ready, slab.logits.narrow(dim, rows - 1, 1).clone()


def decide_class(logits_KDHW: Tensor, grids: Grids, part: Part) -> NDArray[np.uint8]:
    """Return the strongest class (d, h, w) of linearly interpolated logits: numba on the CPU, torch on a GPU."""
    if logits_KDHW.device.type != "cpu":
        return decide_class_torch(logits_KDHW, grids, part)
    logits = logits_KDHW.float().contiguous().numpy()
    return decide_on_grid(logits, grids.working, grids.native, start=part.start, box=(part.low, part.high))


def decide_class_torch(logits_KDHW: Tensor, grids: Grids, part: Part) -> NDArray[np.uint8]:
    """Do in torch what `imaging.native.decide_on_grid` does; equal but for ties.

    Where the eight neighbours agree, their class is the strongest of any mean of them, and nothing is interpolated.
    """
    corners, shares = _cells(logits_KDHW, grids, part)
    low, high = _extremes_of_cells(logits_KDHW.argmax(0).to(torch.uint8))
    # An axis of one voxel has no cell but the voxel itself.
    cells = [first.clamp(max=count - 1) for (first, _), count in zip(corners, low.shape, strict=True)]
    found = _take(low, cells)
    mixed = (found != _take(high, cells)).nonzero()
    for where in torch.split(mixed, max(1, _piece_bytes(logits_KDHW) // (8 * logits_KDHW.shape[0]))):
        found[tuple(where.T)] = _at(logits_KDHW, corners, shares, where).argmax(0).to(torch.uint8)
    return found.cpu().numpy()


def decide_interpolated(say: Callable[[Tensor], Tensor]) -> Decide:
    """Return a decision that needs the interpolated logits themselves: of regions, or probabilities.

    Args:
        say: Logits (K, d, h, w) float32 -> uint8 (..., d, h, w).
    """
    return lambda logits_KDHW, grids, part: say(interpolate(logits_KDHW, grids, part)).cpu().numpy()


def in_255ths(logits_KDHW: Tensor, *, exclusive: bool) -> Tensor:
    """Turn logits into probabilities in 255ths, uint8.

    Args:
        logits_KDHW: Float32; overwritten.
        exclusive: One class a voxel (softmax), else each on its own (sigmoid).
    """
    shares = logits_KDHW.softmax(0) if exclusive else logits_KDHW.sigmoid_()
    return shares.mul_(255).round_().to(torch.uint8)


def interpolate(logits_KDHW: Tensor, grids: Grids, part: Part) -> Tensor:
    """Interpolate linearly: (K, d, h, w) float32."""
    corners, shares = _cells(logits_KDHW, grids, part)
    values = logits_KDHW.float()
    # Axes that shrink come first, so that what lies between is as small as it can be.
    for axis in sorted(range(3), key=lambda axis: len(shares[axis]) / logits_KDHW.shape[axis + 1]):
        form = [-1 if axis == other else 1 for other in range(3)]
        first, second = (values.index_select(axis + 1, index) for index in corners[axis])
        values = first.lerp_(second, shares[axis].view(form))
    return values


def _write(slab: Slab, native: tuple[int, int], grids: Grids, outputs: Sequence[Output]) -> None:
    """Decide a range of native slices, some at a time, from rows that hold all they need."""
    axis, shape = slab.axis, grids.native.shape
    lower, upper, _ = grids.neighbours[axis]
    interpolates = any(output.interpolates for output in outputs)
    for first, after in _pieces(slab.logits, axis, native, grids, interpolates=interpolates):
        begin, end = int(lower[first]), int(upper[after - 1]) + 1
        piece = slab.logits.narrow(axis + 1, begin - slab.start, end - begin)
        part = Part(_with((0, 0, 0), axis, begin), _with((0, 0, 0), axis, first), _with(shape, axis, after))
        box: list[Any] = [slice(low, high) for low, high in zip(part.low, part.high, strict=True)]
        for output in outputs:
            output.array[(..., *box)] = output.decide(piece, grids, part)


def _pieces(
    logits: Tensor, axis: int, native: tuple[int, int], grids: Grids, *, interpolates: bool
) -> Iterator[tuple[int, int]]:
    """Cut a range of native slices so that the logits they need, and their own where made, stay within the limit."""
    lower, upper, _ = grids.neighbours[axis]
    limit, classes, shape = _piece_bytes(logits), logits.shape[0], grids.native.shape
    most_rows = max(2, limit * logits.shape[axis + 1] // (4 * logits.numel()))
    most_slices = max(1, limit * shape[axis] // (4 * classes * math.prod(shape))) if interpolates else shape[axis]
    first, end = native
    while first < end:
        fitting = int(np.searchsorted(upper, int(lower[first]) + most_rows))
        after = min(max(fitting, first + 1), first + most_slices, end)
        yield first, after
        first = after


def _with(index: Index, axis: int, value: int) -> Index:
    changed = list(index)
    changed[axis] = value
    return changed[0], changed[1], changed[2]


def _piece_bytes(logits: Tensor) -> int:
    return _PIECE_BYTES.get(logits.device.type, _PIECE_BYTES["cpu"])


def _cells(logits_KDHW: Tensor, grids: Grids, part: Part) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
    """Return, along each axis, the two neighbours of each native voxel and the share of the second."""
    corners, shares, device = [], [], logits_KDHW.device
    for (lower, upper, share), start, low, high in zip(grids.neighbours, part.start, part.low, part.high, strict=True):
        first, second = (side[low:high].astype(np.int64) - start for side in (lower, upper))
        corners.append((torch.from_numpy(first).to(device), torch.from_numpy(second).to(device)))
        shares.append(torch.from_numpy(share[low:high]).to(device))
    return corners, shares


def _extremes_of_cells(best_DHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and highest class at the corners of each cell, one cell fewer than voxels along an axis."""
    low = high = best_DHW
    for axis, count in enumerate(best_DHW.shape):
        if count > 1:
            low = torch.minimum(low.narrow(axis, 0, count - 1), low.narrow(axis, 1, count - 1))
            high = torch.maximum(high.narrow(axis, 0, count - 1), high.narrow(axis, 1, count - 1))
    return low, high


def _take(values_DHW: Tensor, index: list[Tensor]) -> Tensor:
    for axis, along in enumerate(index):
        values_DHW = values_DHW.index_select(axis, along)
    return values_DHW


def _at(logits_KDHW: Tensor, corners: list[tuple[Tensor, Tensor]], shares: list[Tensor], where: Tensor) -> Tensor:
    """Interpolate at single native voxels (n, 3): (K, n) float32."""
    total = torch.zeros((), device=logits_KDHW.device)
    parts = [shares[axis][where[:, axis]] for axis in range(3)]
    for corner in np.ndindex(2, 2, 2):
        index = [corners[axis][side][where[:, axis]] for axis, side in enumerate(corner)]
        weights = [part if side else 1 - part for part, side in zip(parts, corner, strict=True)]
        total = total + logits_KDHW[:, index[0], index[1], index[2]].float() * (weights[0] * weights[1] * weights[2])
    return total
