"""A 3-D image and the grid on which it lies in the patient."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from pipeline.plugin import Settings

Shape = tuple[PositiveInt, PositiveInt, PositiveInt]
"""Voxels along (D, H, W)."""
Spacing = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
"""Voxel size in mm along (D, H, W)."""


class Geometry(Settings):
    """A regular grid in the patient: what turns a voxel's index into a position in mm.

    Shape and spacing are in array order; origin and direction are as SimpleITK and DICOM have them,
    with x towards the patient's left, y towards the back (posterior) and z towards the head (superior).
    """

    shape: Shape
    """Voxels along (D, H, W)."""
    spacing_mm: Spacing = (1.0, 1.0, 1.0)
    """Voxel size along (D, H, W), in mm."""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Position (x, y, z) of the centre of the first voxel, in mm, LPS+."""
    direction: tuple[float, float, float, float, float, float, float, float, float] = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    """3 x 3 matrix row by row; its columns are the unit vectors along W, H and D, as SimpleITK has it."""

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        depth, height, width = self.spacing_mm
        return depth * height * width / 1000

    @property
    def extent_mm(self) -> tuple[float, float, float]:
        """Field of view along (D, H, W) in mm, outer voxel faces included."""
        depth, height, width = (n * step for n, step in zip(self.shape, self.spacing_mm, strict=True))
        return depth, height, width


@dataclass(frozen=True, eq=False)
class Volume:
    """A 3-D image and where it lies in the patient.

    voxels:   (C, D, H, W) array: channels, then depth (slices), height (rows), width (columns);
              the order of SimpleITK.GetArrayFromImage. CT in Hounsfield units.
    geometry: shape, spacing, origin and direction in mm, LPS+, as SimpleITK and DICOM have them.
    """

    voxels: NDArray[Any]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.voxels.ndim != 4 or self.voxels.shape[1:] != self.geometry.shape:
            raise ValueError(f"voxels {self.voxels.shape} are not (C, D, H, W) of a grid {self.geometry.shape}")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.voxels.shape[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return self.voxels.dtype

    def with_voxels(self, voxels: NDArray[Any]) -> "Volume":
        """Return other voxels (C', D, H, W) on the same grid."""
        return Volume(voxels, self.geometry)
