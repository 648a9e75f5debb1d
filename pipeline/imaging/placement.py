"""How the working grid of a case lies in its source: orientation, crop and voxel size."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.geometry import Reorientation, apply, canonical_geometry, cropped_geometry, restore
from pipeline.imaging.volume import Geometry
from pipeline.plugin import Settings

Index = tuple[int, int, int]
"""Array index along (D, H, W)."""


class Placement(Settings):
    """The way from a source grid to the working grid; enough to bring a mask back voxel for voxel.

    source --reorient--> canonical --crop--> cropped --resample--> working.
    """

    reorientation: Reorientation
    """From the source's axes to the canonical ones."""
    start: Index
    """First voxel of the crop, on the canonical native grid."""
    stop: Index
    """One past the last voxel of the crop, on the canonical native grid."""
    working: Geometry
    """Grid of the stored voxels."""

    @property
    def source(self) -> Geometry:
        """Grid of the input file."""
        return self.reorientation.source

    @property
    def cropped(self) -> Geometry:
        """Grid of the native voxels within the crop, axes canonical."""
        return cropped_geometry(canonical_geometry(self.reorientation), self.start, self.stop)

    def to_source(self, cropped: NDArray[Any], fill: int | float = 0) -> NDArray[Any]:
        """Put an array back onto the source grid.

        Args:
            cropped: (..., D, H, W) on the grid `cropped`.
            fill: Value outside the crop: background.

        Returns:
            (..., D, H, W) on the grid `source`, contiguous.
        """
        canonical_shape = canonical_geometry(self.reorientation).shape
        if cropped.shape[-3:] == canonical_shape:
            return np.ascontiguousarray(restore(cropped, self.reorientation))
        whole = np.full((*cropped.shape[:-3], *self.source.shape), fill, cropped.dtype)
        view = apply(whole, self.reorientation)
        view[..., *_slices(self.start, self.stop)] = cropped
        return whole


def _slices(start: Index, stop: Index) -> tuple[slice, slice, slice]:
    return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])
