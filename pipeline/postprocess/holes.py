"""Post-processing that fills cavities inside a class."""

from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from pipeline.postprocess.base import PostProcess, postprocesses


@postprocesses.register
class FillHoles(PostProcess):
    """Give background that one class encloses on all sides to that class.

    A hole is a set of background voxels, connected by faces, that touches neither the border of the image nor
    any other class; another class inside stays what it is.
    """

    name: Literal["fill_holes"] = "fill_holes"
    classes: tuple[PositiveInt, ...] = ()
    """Class indices to mend; all where empty."""
    max_ml: PositiveFloat | None = None
    """Larger holes stay; None fills all."""

    def apply(self, mask: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
        """Return the mask (D, H, W) with holes filled."""
        holes, count = cc3d.connected_components(np.ascontiguousarray(mask == 0), connectivity=6, return_N=True)
        lowest, highest = _neighbours(holes, mask, count)
        # A hole that meets the border of the image has seen class 0 there, and so has no single neighbour.
        encloses = np.where(lowest == highest, lowest, 0).astype(np.uint8)
        if self.max_ml is not None:
            voxels = np.bincount(holes.ravel(), minlength=count + 1)
            encloses[voxels * float(np.prod(spacing_mm)) / 1000.0 > self.max_ml] = 0
        if self.classes:
            encloses[~np.isin(encloses, self.classes)] = 0
        encloses[0] = 0
        return np.where(mask == 0, encloses[holes], mask)


def _neighbours(
    holes: NDArray[np.unsignedinteger], mask: NDArray[np.uint8], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the lowest and the highest class that touches each hole by a face; 0 for the border of the image."""
    lowest, highest = np.full(count + 1, 256), np.full(count + 1, -1)
    for axis in range(3):
        hole, beside = np.moveaxis(holes, axis, 0), np.moveaxis(mask, axis, 0)
        for own, other in ((hole[1:], beside[:-1]), (hole[:-1], beside[1:])):
            meets = (own > 0) & (other > 0)
            np.minimum.at(lowest, own[meets], other[meets])
            np.maximum.at(highest, own[meets], other[meets])
        for end in (0, -1):
            lowest[hole[end].ravel()] = 0
    return lowest, highest
