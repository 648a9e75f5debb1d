"""Resampling of images and labels to another voxel size, keeping the position in the patient."""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.encoding import Encoding
from pipeline.imaging.geometry import resampled_geometry, to_index
from pipeline.imaging.volume import Geometry, Spacing, Volume

Order = Literal[0, 1, 3]
Thick = Literal["same", "linear", "nearest"]
ANISOTROPY = 3.0
"""An axis is thick where its voxel size is more than this multiple of the smallest one."""

_POLE = np.sqrt(3.0) - 2
_REACH = 10  # taps on each side of a point: what is cut off is below 0.01 HU of a 4000 HU alternating pattern
_FAR = 16


class Band(NamedTuple):
    """A banded matrix: out[j] = sum over t of weights[j, t] * in[begin[j] + t]."""

    begin: NDArray[np.intp]
    weights: NDArray[np.float32]


class Between(NamedTuple):
    """Where points lie between two neighbours: (1 - share) * in[lower] + share * in[upper]."""

    lower: NDArray[np.uint32]
    upper: NDArray[np.uint32]
    share: NDArray[np.float32]


def resample(
    volume: Volume,
    spacing_mm: Spacing,
    *,
    order: Order = 3,
    thick: Thick = "same",
    antialias: bool = False,
    encodings: tuple[Encoding, ...] | None = None,
    threads: int | None = None,
) -> Volume:
    """Resample an image to a new voxel size, keeping its position in the patient.

    The values are those of `scipy.ndimage.map_coordinates(order=order, mode="mirror")` at the same points to
    within 0.05 HU: the spline's prefilter is folded into banded weights along each axis (Unser 1999). Memory
    beside input and output is a few slices.

    Args:
        volume: Image; int16 and float32 are read directly, other types are copied channel by channel.
        spacing_mm: New voxel size along (D, H, W), in mm.
        order: 3 for a cubic B-spline, 1 for linear, 0 for the nearest voxel.
        thick: What to do along thick axes, where a spline overshoots: the same, linear, or nearest.
        antialias: Where voxels grow, average the spline over the new voxel instead of reading it at its centre:
            less noise, no aliasing, a little less sharp.
        encodings: Stored type of each channel, rounded on the way; None for float32.
        threads: One a core where None, but one in a worker process. They do not change the numbers.

    Returns:
        Volume (C, D', H', W') on `resampled_geometry(volume.geometry, spacing_mm)`; where that is the volume's own
        grid, the voxels may be those of the input, not copied.
    """
    target = resampled_geometry(volume.geometry, spacing_mm)
    encodings = encodings or (Encoding(dtype="float32"),) * volume.channels
    if target == volume.geometry:
        same = [encoding.encode(channel) for encoding, channel in zip(encodings, volume.voxels, strict=True)]
        return Volume(same[0][None] if len(same) == 1 else np.stack(same), target)
    bands = _bands(volume.geometry, target, order, thick, antialias)
    out = np.empty((volume.channels, *target.shape), np.dtype(encodings[0].dtype))
    for source, encoding, into in zip(volume.voxels, encodings, out, strict=True):
        filter_volume(source, into, bands, encoding, threads)
    return Volume(out, target)


def resample_label(
    label: NDArray[np.uint8],
    geometry: Geometry,
    spacing_mm: Spacing,
    *,
    order: Literal[0, 1] = 1,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Resample class indices to a new voxel size.

    Order 1 gives the argmax over classes of the linearly interpolated one-hot volumes, in one pass and without
    making them: only the up to eight classes around a point can win. Of equals, which are common where voxels
    double, the class of the first corner in raster order wins: always the lower index would shrink every organ.
    Beyond the outermost voxel centres the outermost voxels go on.

    Args:
        label: (D, H, W) class indices.
        geometry: Their grid.
        spacing_mm: New voxel size along (D, H, W), in mm.
        order: 1 as above, 0 for the nearest voxel.
        threads: One a core where None, but one in a worker process.

    Returns:
        (D', H', W') class indices on `resampled_geometry(geometry, spacing_mm)`.
    """
    return label_on_grid(label, geometry, resampled_geometry(geometry, spacing_mm), order=order, threads=threads)


def label_on_grid(
    label: NDArray[np.uint8],
    geometry: Geometry,
    target: Geometry,
    *,
    order: Literal[0, 1] = 1,
    threads: int | None = None,
) -> NDArray[np.uint8]:
    """Bring class indices to another grid with the same axes, as `resample_label` does."""
    from pipeline.imaging import kernels

    if target == geometry:
        return label
    points = axis_points(target, geometry)
    if order == 0:
        nearest = [_nearest(x, n) for x, n in zip(points, label.shape, strict=True)]
        return np.ascontiguousarray(label[np.ix_(*nearest)])
    source, out = np.ascontiguousarray(label), np.empty(target.shape, np.uint8)
    along = [between(x, n) for x, n in zip(points, label.shape, strict=True)]
    kernels.in_slices(lambda first, last: kernels.vote_slices(source, out, first, last, *along), len(out), threads)
    return out


def filter_volume(
    source: NDArray[Any], out: NDArray[Any], bands: tuple[Band, Band, Band], encoding: Encoding, threads: int | None
) -> None:
    """Fill `out` (D', H', W') with banded weights along the axes of `source` (D, H, W)."""
    from pipeline.imaging import kernels

    if source.dtype in (np.int8, np.uint8):
        source = source.astype(np.int16)
    elif source.dtype != np.int16:
        source = source.astype(np.float32, copy=False)
    source = np.ascontiguousarray(source)
    per_step = np.float32(1 / encoding.slope if encoding.dtype == "int16" else 0)
    inter = np.float32(encoding.inter)
    along = [tuple(band) for band in bands]
    kernels.in_slices(
        lambda first, last: kernels.filter_slices(source, out, first, last, *along, per_step, inter), len(out), threads
    )


def axis_points(target: Geometry, source: Geometry) -> tuple[NDArray[np.float64], ...]:
    """Return, along each axis (D, H, W), where the voxels of `target` lie in voxels of `source`.

    Raises:
        ValueError: the axes of the grids have other directions.
    """
    if not np.allclose(target.direction, source.direction, atol=1e-4):
        raise ValueError(f"grids with directions {target.direction} and {source.direction} share no axes")
    first = to_index(source, target.origin)
    steps = np.divide(target.spacing_mm, source.spacing_mm)
    # Rounded, since a point on a voxel must not lie 1e-12 beside it: ties of labels would turn on that.
    return tuple(
        np.round(start + np.arange(n) * step, 8) for start, n, step in zip(first, target.shape, steps, strict=True)
    )


def between(points: NDArray[np.float64], n: int) -> Between:
    """Find the neighbours of points on an axis of `n` voxels; the outermost voxels go on beyond the edges."""
    inside = np.clip(points, 0, n - 1)
    lower = np.minimum(np.floor(inside), max(n - 2, 0))
    upper = np.minimum(lower + 1, n - 1)
    return Between(lower.astype(np.uint32), upper.astype(np.uint32), (inside - lower).astype(np.float32))


def linear_band(points: NDArray[np.float64], n: int) -> Band:
    """Return linear interpolation as a band; the outermost voxels go on beyond the edges."""
    lower, _, share = between(points, n)
    weights = np.stack([1 - share, share], axis=1) if n > 1 else np.ones((len(points), 1), np.float32)
    return Band(lower.astype(np.intp), weights)


def spline_band(points: NDArray[np.float64], n: int, width: float = 0.0) -> Band:
    """Return cubic B-spline interpolation with mirrored edges as a band.

    Args:
        points: Positions, in voxels of the input.
        n: Voxels of the input.
        width: Average the spline over this many voxels about each point; 0 reads it there.
    """
    nodes, shares = np.polynomial.legendre.leggauss(max(1, 4 * int(np.ceil(width))))
    reach = _REACH + int(np.ceil(width / 2))
    base = np.floor(points).astype(np.intp)
    offsets = np.arange(1 - reach, reach + 1)
    total = np.zeros((len(points), len(offsets)))
    for node, share in zip(nodes * width / 2, shares / 2, strict=True):
        total += share * _cardinal(points[:, None] + node - (base[:, None] + offsets))
    return _folded(base[:, None] + offsets, total / total.sum(axis=1, keepdims=True), n)


def _bands(source: Geometry, target: Geometry, order: Order, thick: Thick, antialias: bool) -> tuple[Band, Band, Band]:
    limit = ANISOTROPY * min(source.spacing_mm)
    bands = []
    for axis, points in enumerate(axis_points(target, source)):
        n, step = source.shape[axis], target.spacing_mm[axis] / source.spacing_mm[axis]
        here: int = order
        if thick != "same" and source.spacing_mm[axis] > limit:
            here = min(order, {"linear": 1, "nearest": 0}[thick])
        whole = np.array_equal(points, np.clip(np.rint(points), 0, n - 1))
        width = step if antialias and step > 1 and order == 3 else 0.0
        if here == 0 or (whole and not width):
            bands.append(Band(_nearest(points, n), np.ones((len(points), 1), np.float32)))
        elif here == 1:
            bands.append(_mirrored_linear(points, n))
        else:
            bands.append(spline_band(points, n, width))
    return bands[0], bands[1], bands[2]


def _nearest(points: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """Return the nearest voxel; the lower one of equals, so that doubling the size repeats each voxel."""
    return np.clip(np.ceil(points - 0.5), 0, n - 1).astype(np.intp)


def _mirrored_linear(points: NDArray[np.float64], n: int) -> Band:
    base = np.floor(points)
    weights = np.stack([1 - (points - base), points - base], axis=1)
    return _folded(base.astype(np.intp)[:, None] + np.arange(2), weights, n)


def _cardinal(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cubic cardinal spline: the interpolating kernel, B-spline and its prefilter in one (Unser 1999)."""
    total = np.zeros_like(distance)
    for k in range(-_FAR, _FAR + 1):
        total += np.sqrt(3.0) * _POLE ** abs(k) * _b_spline(distance - k)
    return total


def _b_spline(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    far = np.abs(distance)
    near = 2 / 3 - far**2 + far**3 / 2
    return np.where(far < 1, near, np.where(far < 2, (2 - far) ** 3 / 6, 0.0))


def _folded(indices: NDArray[np.intp], weights: NDArray[np.float64], n: int) -> Band:
    """Mirror indices beyond the edges about the outermost voxel centres, and pack the rows as a band."""
    period = max(2 * (n - 1), 1)
    inside = np.abs((indices + n - 1) % period - (n - 1)) if n > 1 else np.zeros_like(indices)
    taps = min(indices.shape[1], n)
    begin = np.clip(indices[:, 0], 0, n - taps)
    packed = np.zeros((len(indices), taps))
    rows = np.broadcast_to(np.arange(len(indices))[:, None], inside.shape)
    np.add.at(packed, (rows, inside - begin[:, None]), weights)
    return Band(begin.astype(np.intp), packed.astype(np.float32))
