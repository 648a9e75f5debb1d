"""How the planes of a series lie to each other: steps, tilt and stray slices, and the grid that they make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dicom.plane import Plane
from pipeline.imaging.geometry import from_xyz
from pipeline.imaging.volume import Geometry

Array = NDArray[np.float64]
EVEN = 0.01
"""Share of the step by which a slice may be off its place without a word."""
NEARLY_EVEN = 0.1
"""Share of the step by which a slice may be off its place with a note."""
GAP = 1.5
"""A step of more than this multiple of the usual one leaves a slice out."""

DRIFT = 0.1
"""Share of a pixel by which slices may drift sideways without being sheared back."""
ROUNDING_DEGREES = 0.006
"""Tilt that comes from positions written with few decimals; the grid follows it, as readers of NIfTI accept it."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Where the planes of a series lie; N planes in the order of the series."""

    axes: Array
    """(3, 3): rows are the unit vectors along W, H and the normal, LPS+."""
    spacing_mm: tuple[float, float]
    """Pixel size along (H, W), in mm."""
    heights: Array
    """(N,) positions along the normal in mm, ascending."""
    drift: Array
    """(N, 2) offset of each plane from the first one along W and H, in mm."""
    origin: Array
    """Position (x, y, z) of the first plane's first pixel, in mm, LPS+."""
    shape: tuple[int, int]
    """Pixels along (H, W)."""

    @property
    def steps(self) -> Array:
        """(N - 1,) distances from plane to plane in mm."""
        return np.diff(self.heights)

    @property
    def step_mm(self) -> float:
        """Mean distance of planes in mm."""
        return float((self.heights[-1] - self.heights[0]) / max(1, len(self.heights) - 1))

    @property
    def usual_step_mm(self) -> float:
        """Median distance of planes in mm, which a missing slice does not change."""
        return float(np.median(self.steps))

    @property
    def unevenness_mm(self) -> float:
        """Most that a plane is off its place on a regular grid from the first to the last, in mm."""
        regular = self.heights[0] + self.step_mm * np.arange(len(self.heights))
        return float(np.abs(self.heights - regular).max())

    @property
    def drift_mm(self) -> float:
        """Most that a plane is shifted sideways against the first, in mm."""
        return float(np.linalg.norm(self.drift, axis=1).max())

    @property
    def tilt_degrees(self) -> float:
        """Angle between the line of the planes' origins and their normal."""
        height = float(self.heights[-1] - self.heights[0])
        return math.degrees(math.atan2(float(np.linalg.norm(self.drift[-1])), height))

    @property
    def is_sheared(self) -> bool:
        """Whether planes drift sideways more than rounded positions do: by more than a tenth of a pixel."""
        return self.drift_mm > DRIFT * min(self.spacing_mm) and self.tilt_degrees > ROUNDING_DEGREES

    @property
    def stray_mm(self) -> float:
        """Most that a plane lies off the line from the first to the last, sideways, in mm."""
        share = (self.heights - self.heights[0]) / max(1e-9, float(self.heights[-1] - self.heights[0]))
        return float(np.linalg.norm(self.drift - share[:, None] * self.drift[-1], axis=1).max())


def stack_of(planes: Sequence[Plane]) -> Stack:
    """Measure how planes with a position, an orientation and a pixel spacing lie; in their order along the normal."""
    first = planes[0]
    row, column = _unit(first.orientation[:3]), _unit(first.orientation[3:])
    normal = _unit(np.cross(row, column))
    axes = np.stack([row, column, normal])
    positions = np.array([plane.position for plane in planes], float)
    along = (positions - positions[0]) @ axes.T
    return Stack(
        axes=axes,
        spacing_mm=(first.pixel_spacing[0], first.pixel_spacing[1]),
        heights=along[:, 2] + float(positions[0] @ normal),
        drift=along[:, :2],
        origin=positions[0],
        shape=(first.header.rows, first.header.columns),
    )


def lies_right(orientation: Sequence[float]) -> bool:
    """Say whether six cosines are two unit vectors at a right angle, to 0.1 degrees."""
    if len(orientation) != 6:
        return False
    row, column = np.asarray(orientation[:3], float), np.asarray(orientation[3:], float)
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if any(abs(length - 1) > 0.01 for length in lengths):
        return False
    return abs(float(row @ column) / float(lengths[0] * lengths[1])) < math.sin(math.radians(0.1))


def height_of(plane: Plane) -> float | None:
    """Return the position of a plane along its own normal in mm; None without a position or orientation."""
    if plane.position is None or len(plane.orientation) != 6:
        return None
    with np.errstate(all="ignore"):
        return float(np.dot(plane.position, np.cross(plane.orientation[:3], plane.orientation[3:])))


def grid_of(stack: Stack) -> Geometry:
    """Return the grid of an even, unsheared stack: D from the first slice to the last, along their normal.

    Where positions were rounded, D runs from origin to origin, so that every slice is where its header says.
    """
    height, width = stack.spacing_mm
    depth, axes = stack.step_mm, stack.axes
    if len(stack.heights) < 2:
        depth = 1.0
    elif stack.tilt_degrees <= ROUNDING_DEGREES:
        along = (*stack.drift[-1], stack.heights[-1] - stack.heights[0]) @ axes
        depth = float(np.linalg.norm(along)) / (len(stack.heights) - 1)
        axes = np.stack([*axes[:2], _unit(along)])
    return from_xyz(
        size=(stack.shape[1], stack.shape[0], len(stack.heights)),
        spacing=(width, height, depth),
        origin=stack.origin.tolist(),
        direction=axes.T.ravel().tolist(),
    )


def _unit(vector: Any) -> Array:
    values = np.asarray(vector, float)
    return np.asarray(values / np.linalg.norm(values))
