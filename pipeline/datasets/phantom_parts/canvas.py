"""Painting soft-edged shapes, tubes and smooth random fields into a volume; what the phantom is drawn with."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Positions = tuple[Array, Array, Array]
"""x, y and z in mm of every voxel of a part of the grid."""
Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]
"""x, y and z in mm."""
Axes = tuple[Array, Array, Array]
"""Positions in mm along the axes of a grid: z, y, x."""

KEEP = -1
"""Paint over the intensities and leave the label as it is."""

_MARGIN_MM = 16.0  # positions are bent by less than this
_FIELD_HALF_MM = 300.0


@dataclass(frozen=True)
class SmoothField:
    """A random field with mean 0 and standard deviation near 1 that is fixed in the patient, in any grid.

    Cubic B-splines over white noise on a lattice of `scale_mm`: separable, so that it costs little, and
    made of sums in a fixed order, so that equal seeds give equal bytes.
    """

    knots: Array
    scale_mm: float

    @classmethod
    def draw(cls, rng: np.random.Generator, scale_mm: float) -> "SmoothField":
        """Draw a field whose features are about `scale_mm` wide."""
        count = int(2 * _FIELD_HALF_MM / scale_mm) + 5
        # The squares of a cubic B-spline's weights add up to 151/315 on average, along each of three axes.
        return cls(rng.standard_normal((count, count, count), np.float32) * np.float32((315 / 151) ** 1.5), scale_mm)

    def at(self, axes: Axes) -> Array:
        """Return the values (Z, Y, X) at the points of a regular grid."""
        values = self.knots
        for axis, positions in enumerate(axes):
            values = _interpolate(values, positions, self.scale_mm, axis)
        return values


class Canvas:
    """Intensities and labels on a grid along the patient's axes, over which shapes are painted in order.

    Positions are in mm: x to the left, y to the back, z to the head; arrays are (Z, Y, X). Shapes are drawn
    at positions bent by the patient's own deformation, so that what is drawn straight comes out bent.
    """

    def __init__(self, axes: Axes, edge_mm: float, bend: Sequence[Array]) -> None:
        self.axes, self.edge_mm = axes, edge_mm
        z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
        self.at_z, self.at_y, self.at_x = z + bend[0], y + bend[1], x + bend[2]
        self.hu = np.full(self.at_z.shape, -1000, np.float32)
        self.label = np.zeros(self.at_z.shape, np.uint8)

    def lay_down(self, turn: float, shift: tuple[float, float]) -> None:
        """Shift the patient by (x, y) in mm and turn it about z by an angle in radians."""
        x, y = self.at_x - shift[0], self.at_y - shift[1]
        self.at_x = x * np.float32(np.cos(turn)) + y * np.float32(np.sin(turn))
        self.at_y = y * np.float32(np.cos(turn)) - x * np.float32(np.sin(turn))

    def box(self, low: Point, high: Point) -> Box:
        """Return the part of the grid where shapes between two corners (x, y, z) can lie."""
        ranges = zip(self.axes, low[::-1], high[::-1], strict=True)
        z, y, x = (slice(*np.searchsorted(axis, (a - _MARGIN_MM, b + _MARGIN_MM))) for axis, a, b in ranges)
        return z, y, x

    def around(self, centre: Point, radius: float) -> Box:
        """Return the part of the grid around a point (x, y, z)."""
        x, y, z = centre
        return self.box((x - radius, y - radius, z - radius), (x + radius, y + radius, z + radius))

    def positions(self, box: Box) -> Positions:
        """Return the bent x, y and z of the voxels in `box`."""
        return self.at_x[box], self.at_y[box], self.at_z[box]

    def paint(self, box: Box, distance: Array, hu: float | Array, label: int) -> None:
        """Fill where `distance` (mm to the surface, negative inside) says; edges are mixed by partial volume."""
        cover = np.clip(0.5 - distance / self.edge_mm, 0, 1)
        part = self.hu[box]
        part += cover * (hu - part)
        if label != KEEP:
            self.label[box][cover > 0.5] = label

    def paint_tube(
        self, points: Sequence[Point], radii: Sequence[float], hu: float, label: int, *, inside: Array | None = None
    ) -> None:
        """Paint a tube through `points` with a radius at each; only where `inside` (mm over the grid) is negative."""
        for start, end, *ends in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
            box = self.box_of(start, end, max(ends))
            distance = tube_piece(self.positions(box), start, end, (ends[0], ends[1]))
            self.paint(box, distance if inside is None else np.maximum(distance, inside[box]), hu, label)

    def box_of(self, start: Point, end: Point, radius: float) -> Box:
        """Return the part of the grid around a straight piece of tube."""
        low, high = np.minimum(start, end) - radius, np.maximum(start, end) + radius
        return self.box(_point(low), _point(high))


def ellipsoid(positions: Positions, centre: Point, radii: Point, *, turn: float = 0.0, tilt: float = 0.0) -> Array:
    """Return the approximate distance in mm to an ellipsoid, negative inside.

    Args:
        positions: x, y and z of the voxels.
        centre: Its middle (x, y, z).
        radii: Half axes along x, y, z before turning.
        turn: Rotation about z in radians.
        tilt: Rotation about y in radians: the upper end goes towards +x.
    """
    x, y, z = (axis - middle for axis, middle in zip(positions, centre, strict=True))
    if tilt:
        x, z = x * np.cos(tilt) - z * np.sin(tilt), x * np.sin(tilt) + z * np.cos(tilt)
    if turn:
        x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    x, y, z = (axis / radius for axis, radius in zip((x, y, z), radii, strict=True))
    scaled = np.sqrt(x * x + y * y + z * z) + 1e-6
    x, y, z = (axis / radius for axis, radius in zip((x, y, z), radii, strict=True))
    return np.asarray(scaled * (scaled - 1) / (np.sqrt(x * x + y * y + z * z) + 1e-6 / min(radii)), np.float32)


def tube_piece(positions: Positions, start: Point, end: Point, radii: tuple[float, float]) -> Array:
    """Return the distance in mm to a straight piece of tube with the given radii at its ends, negative inside."""
    axis = [b - a for a, b in zip(start, end, strict=True)]
    x, y, z = (here - a for here, a in zip(positions, start, strict=True))
    along = (x * axis[0] + y * axis[1] + z * axis[2]) / max(sum(step * step for step in axis), 1e-6)
    along = np.clip(along, 0, 1)
    x, y, z = x - along * axis[0], y - along * axis[1], z - along * axis[2]
    return np.asarray(np.sqrt(x * x + y * y + z * z) - (radii[0] + along * (radii[1] - radii[0])), np.float32)


def grow_tree(
    rng: np.random.Generator, root: Point, towards: Point, *, length: float, radius: float, levels: int
) -> list[tuple[tuple[Point, Point], tuple[float, float]]]:
    """Return the pieces (ends, radii at the ends) of a tree that forks at each level."""
    pieces = []
    heads = [(np.asarray(root, float), np.asarray(towards, float), length, radius)]
    for _ in range(levels):
        grown = []
        for start, direction, reach, thick in heads:
            heading = direction / np.linalg.norm(direction)
            end = start + heading * reach * rng.uniform(0.8, 1.2)
            pieces.append(((_point(start), _point(end)), (thick, thick * 0.85)))
            side = np.cross(heading, rng.standard_normal(3))
            side /= np.linalg.norm(side) + 1e-9
            for sign in (-1, 1):
                spread = rng.uniform(0.45, 0.85)
                grown.append((end, heading + sign * spread * side, reach * 0.8, thick * rng.uniform(0.68, 0.82)))
        heads = grown
    return pieces


def _point(position: NDArray[np.floating]) -> Point:
    return float(position[0]), float(position[1]), float(position[2])


def _interpolate(values: Array, positions: Array, scale_mm: float, axis: int) -> Array:
    """Evaluate cubic B-splines along one axis."""
    place = (positions + _FIELD_HALF_MM) / scale_mm
    first = np.clip(np.floor(place).astype(int), 0, values.shape[axis] - 4)
    t = (place - first).astype(np.float32)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
    shape = [1, 1, 1]
    shape[axis] = -1
    total = np.zeros(1, np.float32)
    for step, weight in enumerate(weights):
        total = total + np.take(values, first + step, axis) * (weight / 6).reshape(shape)
    return total
