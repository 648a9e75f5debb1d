"""Where voxels lie in the patient: the one place where (x, y, z) and (D, H, W) are exchanged."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from pipeline.errors import DataError
from pipeline.imaging.volume import Geometry, Spacing, Volume
from pipeline.plugin import Settings

Array = NDArray[Any]
Matrix = NDArray[np.float64]

TOLERANCE_MM = 0.1
"""Two grids are one when no corner of theirs is further apart than this (or half a voxel, if that is less)."""

_OBLIQUE_DEGREES = 0.1
_TOWARDS = (("R", "L"), ("A", "P"), ("I", "S"))


class Reorientation(Settings):
    """How a canonical array was made from its source, so that it can be undone voxel for voxel."""

    source: Geometry
    """Grid of the array before."""
    axes: tuple[int, int, int]
    """For each canonical axis (D, H, W), the source axis that it was."""
    flips: tuple[bool, bool, bool]
    """For each canonical axis, whether it runs against the source axis."""


def affine(geometry: Geometry) -> Matrix:
    """Return the 4 x 4 matrix from an array index (d, h, w, 1) to a position (x, y, z, 1) in mm, LPS+."""
    matrix = np.eye(4)
    matrix[:3, :3] = (_direction(geometry) * geometry.spacing_mm[::-1])[:, ::-1]
    matrix[:3, 3] = geometry.origin
    return matrix


def to_physical(geometry: Geometry, indices: ArrayLike) -> Matrix:
    """Turn array indices (..., 3) in order (D, H, W), whole or not, into positions (..., 3) in mm, LPS+."""
    matrix = affine(geometry)
    return np.asarray(np.asarray(indices, float) @ matrix[:3, :3].T + matrix[:3, 3])


def to_index(geometry: Geometry, positions: ArrayLike) -> Matrix:
    """Turn positions (..., 3) in mm, LPS+, into continuous array indices (..., 3) in order (D, H, W)."""
    matrix = affine(geometry)
    return np.asarray((np.asarray(positions, float) - matrix[:3, 3]) @ np.linalg.inv(matrix[:3, :3]).T)


def from_xyz(
    size: Sequence[int], spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> Geometry:
    """Make a geometry from what libraries with (x, y, z) order say; all in LPS+ and mm.

    Args:
        size: Voxels along the file's first (fastest), second and third axis.
        spacing: Voxel size in mm along the same axes.
        origin: Position of the first voxel's centre.
        direction: 3 x 3 row by row; columns are unit vectors along the file's axes.

    Raises:
        DataError: a size or spacing is not above 0, or a number is not finite.
    """
    fields = {"shape": size[::-1], "spacing_mm": spacing[::-1], "origin": tuple(origin), "direction": tuple(direction)}
    try:
        return Geometry.model_validate(fields)
    except ValidationError as error:
        wrong = sorted({str(problem["loc"][0]) for problem in error.errors()})
        found = ", ".join(f"{name} {_numbers(fields[name])}" for name in wrong)
        raise DataError(
            f"its header gives an impossible grid: {found}; expected finite numbers and sizes above 0."
        ) from None


def from_affine(matrix: Matrix, shape: Sequence[int]) -> Geometry:
    """Make a geometry from the 4 x 4 matrix that `affine` gives (array index to LPS+ mm) and a shape (D, H, W)."""
    columns = matrix[:3, 2::-1]
    spacing = np.linalg.norm(columns, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        direction = columns / spacing
    return from_xyz(shape[::-1], spacing.tolist(), matrix[:3, 3].tolist(), direction.ravel().tolist())


def geometry_of(image: Any) -> Geometry:
    """Return the grid of a three-dimensional SimpleITK image."""
    return from_xyz(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def image_of(array: Array, geometry: Geometry) -> Any:
    """Return a SimpleITK image with the voxels (D, H, W), or (C, D, H, W) as its components, on that grid."""
    import SimpleITK as sitk

    many = array.ndim == 4
    image = sitk.GetImageFromArray(np.moveaxis(array, 0, -1) if many else array, isVector=many)
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def canonical(volume: Volume) -> tuple[Volume, Reorientation]:
    """Turn and mirror the axes so that D runs to the head, H to the back and W to the left, as nearly as they can.

    Equal to `SimpleITK.DICOMOrient(image, "LPS")`: no voxel is interpolated, so an oblique grid stays oblique.

    Returns:
        The volume, whose voxels are a view of the given ones, and what `restore` needs.
    """
    reorientation = reorientation_of(volume.geometry)
    geometry = canonical_geometry(reorientation)
    return Volume(apply(volume.voxels, reorientation), geometry), reorientation


def reorientation_of(geometry: Geometry) -> Reorientation:
    """Find the axes and mirrors that bring a grid to the canonical orientation."""
    along = _nearest_axes(geometry)
    # `along` speaks of (x, y, z); canonical D is patient axis z, and source axis D is the file's third.
    axes = [2 - [axis for axis, _ in along].index(patient) for patient in (2, 1, 0)]
    flips = [along[2 - axis][1] < 0 for axis in axes]
    return Reorientation.model_validate({"source": geometry, "axes": axes, "flips": flips})


def canonical_geometry(reorientation: Reorientation) -> Geometry:
    """Return the grid that `canonical` gives; spacing and direction are taken over exactly, never recomputed."""
    source, axes, flips = reorientation.source, reorientation.axes, reorientation.flips
    first = [source.shape[axis] - 1 if flip else 0 for axis, flip in zip(axes, flips, strict=True)]
    corner = [first[axes.index(axis)] for axis in range(3)]
    # Columns in array order (D, H, W); adding zero turns -0.0 into 0.0.
    columns = _direction(source)[:, ::-1][:, list(axes)] * np.where(flips, -1.0, 1.0) + 0.0
    return from_xyz(
        size=[source.shape[axis] for axis in axes][::-1],
        spacing=[source.spacing_mm[axis] for axis in axes][::-1],
        origin=to_physical(source, corner).tolist(),
        direction=columns[:, ::-1].ravel().tolist(),
    )


def apply(array: Array, reorientation: Reorientation) -> Array:
    """Bring an array (..., D, H, W) from the source grid to the canonical one; a view."""
    lead = array.ndim - 3
    turned: Array = array.transpose(*range(lead), *(lead + axis for axis in reorientation.axes))
    mirrored: Array = turned[_mirror(reorientation)]
    return mirrored


def restore(array: Array, reorientation: Reorientation) -> Array:
    """Bring a mask or logits (..., D, H, W) from the canonical grid back to the source grid; a view."""
    lead = array.ndim - 3
    back = [reorientation.axes.index(axis) for axis in range(3)]
    mirrored: Array = array[_mirror(reorientation)]
    return mirrored.transpose(*range(lead), *(lead + axis for axis in back))


def orientation(geometry: Geometry) -> str:
    """Name the patient's side to which the file's first, second and third axis (W, H, D) run: `LPS`, `RAS` ..."""
    return "".join(_TOWARDS[axis][sign > 0] for axis, sign in _nearest_axes(geometry))


def is_oblique(geometry: Geometry) -> bool:
    """Say whether an axis of the grid is more than 0.1 degrees off an axis of the patient."""
    return bool(np.abs(_direction(geometry)).max(axis=0).min() < math.cos(math.radians(_OBLIQUE_DEGREES)))


def shear_degrees(direction: Sequence[float]) -> float:
    """Return how far the most slanted pair of axes of a 3 x 3 direction (row by row) is off a right angle."""
    axes = np.reshape(np.asarray(direction, float), (3, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        axes = axes / np.linalg.norm(axes, axis=0)
    return float(np.degrees(np.arcsin(np.clip(np.abs(axes.T @ axes - np.eye(3)).max(), 0, 1))))


def difference(a: Geometry, b: Geometry, tolerance_mm: float = TOLERANCE_MM) -> list[str]:
    """Say what differs between two grids; an empty list where they are one.

    They are one when their shapes are equal and no corner of the grid moves by more than the tolerance,
    or by more than half a voxel where voxels are that small.

    Returns:
        Texts such as `shape (20, 256, 256) against (24, 256, 256)` or `origin 12.5 mm apart along D`.
    """
    if a.shape != b.shape:
        return [f"shape {a.shape} against {b.shape}", *_parts(a, b, TOLERANCE_MM)]
    limit = min(tolerance_mm, min(a.spacing_mm) / 2)
    apart = float(np.linalg.norm(to_physical(a, _corners(a)) - to_physical(b, _corners(b)), axis=1).max())
    if apart <= limit:
        return []
    # Several small parts can add up: then each is named that has a share in it.
    return _parts(a, b, limit) or _parts(a, b, limit / 4)


def resampled_geometry(geometry: Geometry, spacing_mm: Spacing) -> Geometry:
    """Return the grid of a new voxel size: n' = round(n s / s'), at least 1, both fields of view sharing their centre.

    Args:
        geometry: Grid to start from.
        spacing_mm: Exact new voxel size along (D, H, W), in mm.
    """
    shape = tuple(
        max(1, round(n * old / new))
        for n, old, new in zip(geometry.shape, geometry.spacing_mm, spacing_mm, strict=True)
    )
    centre = to_physical(geometry, (np.asarray(geometry.shape) - 1) / 2)
    other = geometry.model_copy(update={"shape": shape, "spacing_mm": tuple(float(step) for step in spacing_mm)})
    half = to_physical(other, (np.asarray(shape) - 1) / 2) - np.asarray(geometry.origin)
    return other.model_copy(update={"origin": tuple((centre - half).tolist())})


def cropped_geometry(geometry: Geometry, start: Sequence[int], stop: Sequence[int]) -> Geometry:
    """Return the grid of the voxels from `start` to before `stop` in (D, H, W); beyond the edge, of a padded array.

    Raises:
        ValueError: `stop` is not beyond `start`.
    """
    shape = tuple(int(end) - int(begin) for begin, end in zip(start, stop, strict=True))
    if min(shape) < 1:
        raise ValueError(f"nothing between {tuple(start)} and {tuple(stop)}")
    origin = tuple(to_physical(geometry, start).tolist())
    return geometry.model_copy(update={"shape": shape, "origin": origin})


def _direction(geometry: Geometry) -> Matrix:
    return np.reshape(np.asarray(geometry.direction, float), (3, 3))


def _nearest_axes(geometry: Geometry) -> list[tuple[int, int]]:
    """For the file's axes in order (x, y, z): the patient axis nearest to it and the sign along it.

    The largest entry of the direction decides first, then its row and column are struck out, as ITK does;
    between equal ones the later row, then the later column, wins there too.
    """
    direction = _direction(geometry)
    entries = ((abs(direction[row, column]), row, column) for row in range(3) for column in range(3))
    nearest: dict[int, tuple[int, int]] = {}
    for _, row, column in sorted(entries, reverse=True):
        if column not in nearest and row not in [taken for taken, _ in nearest.values()]:
            nearest[column] = (row, 1 if direction[row, column] > 0 else -1)
    return [nearest[column] for column in range(3)]


def _mirror(reorientation: Reorientation) -> tuple[Any, ...]:
    return (..., *(slice(None, None, -1) if flip else slice(None) for flip in reorientation.flips))


def _corners(geometry: Geometry) -> Matrix:
    return np.array(list(np.ndindex(2, 2, 2))) * (np.asarray(geometry.shape) - 1.0)


def _parts(a: Geometry, b: Geometry, limit: float) -> list[str]:
    """Name spacing, orientation or direction, and origin where each moves a corner by more than `limit` mm."""
    steps = np.asarray(a.shape) - 1
    found = []
    if np.any(np.abs(np.subtract(a.spacing_mm, b.spacing_mm)) * np.maximum(steps, 1) > limit):
        found.append(f"spacing {_numbers(a.spacing_mm)} against {_numbers(b.spacing_mm)} mm")
    if orientation(a) != orientation(b):
        found.append(f"orientation {orientation(a)} against {orientation(b)}")
    elif np.linalg.norm(steps * a.spacing_mm) * math.radians(angle := _angle(a, b)) > limit:
        found.append(f"direction {angle:.3g} degrees apart")
    offset = np.subtract(b.origin, a.origin) @ _direction(a)
    moved = [(abs(mm), axis) for mm, axis in zip(offset[::-1], "DHW", strict=True) if abs(mm) > limit]
    return found + [f"origin {mm:.4g} mm apart along {axis}" for mm, axis in moved]


def _angle(a: Geometry, b: Geometry) -> float:
    """Largest angle between the like axes of two grids, in degrees."""
    sines = np.linalg.norm(np.cross(_direction(a), _direction(b), axis=0), axis=0)
    cosines = np.sum(_direction(a) * _direction(b), axis=0)
    return float(np.degrees(np.arctan2(sines, cosines)).max())


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"
