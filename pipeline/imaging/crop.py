"""Which part of a volume is worth keeping: the bounding box of the body, or of what is not zero."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import cc3d
import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.normalise import body_threshold
from pipeline.imaging.placement import Index
from pipeline.imaging.volume import Geometry, Volume

_COARSE_MM = 3.0
_SMALLEST_SHARE = 0.05


class Box(NamedTuple):
    """A box of voxels on a grid, from `start` to before `stop`, both (D, H, W)."""

    start: Index
    stop: Index

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """Index of the box in an array (D, H, W)."""
        depth, height, width = (slice(begin, end) for begin, end in zip(self.start, self.stop, strict=True))
        return depth, height, width


def whole_box(shape: Index) -> Box:
    """Return the box of a whole grid."""
    return Box((0, 0, 0), shape)


def body_box(volume: Volume, margin_mm: float) -> Box:
    """Return the bounding box of the body.

    Body is what lies above `body_threshold` in any channel: for CT -500 HU, else the smallest intensity, which is
    the zero around a head. It is looked for on every third millimetre; of its components the largest counts and
    all with at least a twentieth of its voxels (arms, a second leg), so that table and noise fall away.

    Args:
        volume: Any orientation.
        margin_mm: Added on all sides, beside one step of the coarse search.

    Returns:
        The box; the whole grid where nothing lies above the threshold.
    """
    geometry = volume.geometry
    steps = [max(1, int(_COARSE_MM / spacing)) for spacing in geometry.spacing_mm]
    sample = volume.voxels[:, :: steps[0], :: steps[1], :: steps[2]]
    mask = np.zeros(sample.shape[1:], bool)
    for channel, coarse in zip(volume.voxels, sample, strict=True):
        mask |= coarse > body_threshold(float(channel.min()))
    if not mask.any():
        return whole_box(geometry.shape)
    box = _bounds(_largest(mask))
    start = [begin * step for begin, step in zip(box.start, steps, strict=True)]
    stop = [(end - 1) * step + 1 for end, step in zip(box.stop, steps, strict=True)]
    # Beyond the last sampled voxel the body may go on for less than one step.
    return _grown(start, stop, [step - 1 for step in steps], margin_mm, geometry)


def nonzero_box(volume: Volume, margin_mm: float) -> Box:
    """Return the bounding box of all voxels that are not 0 in any channel, with a margin; the whole grid if none is."""
    mask = (volume.voxels != 0).any(axis=0)
    if not mask.any():
        return whole_box(volume.geometry.shape)
    box = _bounds(mask)
    return _grown(list(box.start), list(box.stop), [0, 0, 0], margin_mm, volume.geometry)


def cover(box: Box, label: NDArray[np.uint8]) -> Box:
    """Return the smallest box that holds `box` and every labelled voxel."""
    mask = label > 0
    if not mask.any():
        return box
    other = _bounds(mask)
    start = tuple(min(a, b) for a, b in zip(box.start, other.start, strict=True))
    stop = tuple(max(a, b) for a, b in zip(box.stop, other.stop, strict=True))
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def middle(box: Box, spacing_mm: Sequence[float], extent_mm: Sequence[float]) -> Box:
    """Return the middle of a box, of at most a given extent along (D, H, W) and at least one voxel."""
    start, stop = [], []
    for begin, end, step, extent in zip(box.start, box.stop, spacing_mm, extent_mm, strict=True):
        kept = min(end - begin, max(1, round(extent / step)))
        start.append(begin + (end - begin - kept) // 2)
        stop.append(start[-1] + kept)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    components = cc3d.connected_components(mask, connectivity=6)
    counts = np.bincount(components.ravel())
    counts[0] = 0
    keep: NDArray[np.bool_] = (counts >= _SMALLEST_SHARE * counts.max()) & (counts > 0)
    kept: NDArray[np.bool_] = keep[components]
    return kept


def _bounds(mask: NDArray[np.bool_]) -> Box:
    edges = []
    for others in ((1, 2), (0, 2), (0, 1)):
        found = np.flatnonzero(np.any(mask, axis=others))
        edges.append((int(found[0]), int(found[-1]) + 1))
    (d0, d1), (h0, h1), (w0, w1) = edges
    return Box((d0, h0, w0), (d1, h1, w1))


def _grown(start: list[int], stop: list[int], voxels: list[int], margin_mm: float, geometry: Geometry) -> Box:
    extra = [n + int(np.ceil(margin_mm / mm)) for n, mm in zip(voxels, geometry.spacing_mm, strict=True)]
    low: list[Any] = [max(0, begin - more) for begin, more in zip(start, extra, strict=True)]
    high: list[Any] = [min(n, end + more) for n, end, more in zip(geometry.shape, stop, extra, strict=True)]
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))
