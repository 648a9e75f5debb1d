"""Post-processing by connected components: keep the largest, or drop the small ones."""

from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt

from pipeline.postprocess.base import PostProcess, postprocesses


@postprocesses.register
class LargestComponent(PostProcess):
    """Keep the largest components of each class; what is dropped becomes background."""

    name: Literal["largest_component"] = "largest_component"
    classes: tuple[PositiveInt, ...] = ()
    """Class indices to mend; all where empty."""
    keep: PositiveInt = 1
    """Components to keep in each class, the largest first."""
    connectivity: Literal[6, 18, 26] = 26
    """Neighbours that belong together: by faces, edges or corners."""

    def apply(self, mask: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
        """Return the mask (D, H, W) with at most `keep` components a class."""
        components, classes, voxels = _components(mask, self.connectivity)
        mended = self.classes or np.unique(classes[1:])
        kept = ~np.isin(classes, mended)
        for index in mended:
            # Stable by number of voxels, so that of equals the first one in the volume stays.
            own = np.flatnonzero(classes == index)
            kept[own[np.argsort(-voxels[own], kind="stable")[: self.keep]]] = True
        return _keep(mask, components, kept)


@postprocesses.register
class MinimumVolume(PostProcess):
    """Drop components smaller than a volume; they become background."""

    name: Literal["minimum_volume"] = "minimum_volume"
    volume_ml: PositiveFloat
    """Components of less than this are dropped."""
    classes: tuple[PositiveInt, ...] = ()
    """Class indices to mend; all where empty."""
    connectivity: Literal[6, 18, 26] = 26
    """Neighbours that belong together: by faces, edges or corners."""

    def apply(self, mask: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
        """Return the mask (D, H, W) without small components; a class may be gone altogether."""
        components, classes, voxels = _components(mask, self.connectivity)
        kept = voxels * float(np.prod(spacing_mm)) / 1000.0 >= self.volume_ml
        if self.classes:
            kept |= ~np.isin(classes, self.classes)
        return _keep(mask, components, kept)


def _components(
    mask: NDArray[np.uint8], connectivity: int
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.uint8], NDArray[np.int64]]:
    """Find the components of all classes at once.

    Returns:
        The component of each voxel (0 the background); the class of each component; its number of voxels.
    """
    components, count = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=connectivity, return_N=True)
    classes = np.zeros(count + 1, np.uint8)
    classes[components.ravel()] = mask.ravel()
    return components, classes, np.bincount(components.ravel(), minlength=count + 1)


def _keep(
    mask: NDArray[np.uint8], components: NDArray[np.unsignedinteger], kept: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    return np.where(kept[components], mask, np.uint8(0))
