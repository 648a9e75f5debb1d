"""The geometry of a plan: patch, strides and kernels from extents and voxel sizes. Everything is along (D, H, W)."""

from collections.abc import Sequence
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sides = tuple[int, int, int]
Values = Sequence[float] | NDArray[Any]

FEWEST_VOXELS = 4
"""An axis is halved only as long as this many voxels are left of it at the next level (nnU-Net's rule)."""
COARSE = 2.0
"""An axis whose voxels are this many times the finest is not halved, and gets kernels of 1, until it no longer is."""
MOST_STEPS = 5


def three(values: Values) -> Sides:
    """Return three whole numbers as a tuple of that type."""
    depth, height, width = (int(value) for value in values)
    return depth, height, width


def wanted_patch(extent_voxels: Values, most_voxels: int) -> Sides:
    """Return the sides of a volume, the widest cut down until `most_voxels` are not exceeded."""
    sides = [max(1, ceil(side - 1e-6)) for side in extent_voxels]
    while prod(sides) > most_voxels:
        sides[int(np.argmax(sides))] -= 1
    return three(sides)


def halvings(patch: Sequence[int], spacing_mm: Sequence[float]) -> list[Sides]:
    """Return the step from each level to the next: an axis is halved where it has voxels left and is not coarse."""
    sides, spacing = np.array(patch, float), np.array(spacing_mm, float)
    steps: list[Sides] = []
    while len(steps) < MOST_STEPS:
        has_room = sides >= 2 * FEWEST_VOXELS
        if not has_room.any():
            break
        is_halved = has_room & (spacing < COARSE * spacing[has_room].min() - 1e-6)
        step = np.where(is_halved, 2, 1)
        sides, spacing = sides / step, spacing * step
        steps.append(three(step))
    return steps


def kernels_of(spacing_mm: Sequence[float], strides: Sequence[Sequence[int]]) -> list[Sides] | None:
    """Return the kernel at each level: 1 along axes that are coarse there, else 3; None where it is 3 everywhere."""
    spacing, found = np.array(spacing_mm, float), []
    for step in [(1, 1, 1), *strides]:
        spacing = spacing * np.array(step)
        found.append(three(np.where(spacing < COARSE * spacing.min() - 1e-6, 3, 1)))
    return None if all(kernel == (3, 3, 3) for kernel in found) else found


def divisor_of(strides: Sequence[Sequence[int]]) -> Sides:
    """Return what each side of a patch must be divisible by."""
    return three([prod(step[axis] for step in strides) for axis in range(3)])


def fitted_patch(extent_voxels: Values, divisor: Sequence[int], most_voxels: float) -> Sides:
    """Return the sides of a volume rounded up to what the network divides by, the widest cut down to `most_voxels`."""
    step = np.array(divisor)
    sides = np.maximum(1, np.ceil(np.array(extent_voxels) / step - 1e-6)) * step
    while np.prod(sides) > most_voxels and (sides > step).any():
        widest = np.argmax(np.where(sides > step, sides, 0))
        sides[widest] -= step[widest]
    return three(sides)


def coarser(spacing_mm: Values, extent_mm: Values, most_voxels: float) -> float:
    """Return the voxel size (mm) below which no axis may stay for the extent to have at most `most_voxels`.

    The finest axes grow first; 0 where the volume is small enough as it is. Rounded up to 0.1 mm.
    """
    spacing, extent = np.array(spacing_mm, float), np.array(extent_mm, float)

    def voxels(floor: float) -> float:
        return float(np.prod(extent / np.maximum(spacing, floor)))

    if voxels(0.0) <= most_voxels:
        return 0.0
    low, high = float(spacing.min()), float(extent.max())
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if voxels(middle) <= most_voxels else (middle, high)
    return ceil(high * 10 - 1e-6) / 10
