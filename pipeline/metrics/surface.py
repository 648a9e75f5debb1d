"""Distances between the surfaces of two masks, and the metrics made of them: HD95, NSD and ASSD."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import edt
import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat

from pipeline.metrics.base import MaskPair, Metric, Spacing, metrics


@metrics.register
class Hd95(Metric):
    """95th percentile of the Hausdorff distance in mm: the larger of the two directed percentiles.

    Taking the larger one, and not the percentile of both directions together, is MONAI's definition too.
    Where one mask is empty there is no distance: the result is NaN, left out of means, and the case is
    counted as missed or false positive beside them. A number in its place, such as the diagonal of the
    image, would depend on the field of view more than on the error; who needs one sets `empty_mm`.
    """

    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "mm"

    name: Literal["hd95"] = "hd95"
    empty_mm: PositiveFloat | None = None
    """Distance in mm to count where exactly one of the masks is empty; None leaves such cases out."""

    def score(self, sample: MaskPair) -> dict[str, float]:
        """Return `hd95_mm`; NaN where both masks are empty."""
        surfaces: SurfaceDistances = sample.surfaces
        if surfaces.is_incomplete:
            return {"hd95_mm": _distance_of_empty(surfaces, self.empty_mm)}
        return {"hd95_mm": max(_percentile(surfaces.of_prediction, 95.0), _percentile(surfaces.of_reference, 95.0))}


@metrics.register
class Assd(Metric):
    """Average symmetric surface distance in mm: the mean over the voxels of both surfaces together.

    NaN where one mask is empty, as for HD95, unless `empty_mm` says what to count.
    """

    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "mm"

    name: Literal["assd"] = "assd"
    empty_mm: PositiveFloat | None = None
    """Distance in mm to count where exactly one of the masks is empty; None leaves such cases out."""

    def score(self, sample: MaskPair) -> dict[str, float]:
        """Return `assd_mm`; NaN where both masks are empty."""
        surfaces: SurfaceDistances = sample.surfaces
        if surfaces.is_incomplete:
            return {"assd_mm": _distance_of_empty(surfaces, self.empty_mm)}
        both = np.concatenate([surfaces.of_prediction, surfaces.of_reference])
        return {"assd_mm": float(both.mean(dtype=np.float64))}


@metrics.register
class Nsd(Metric):
    """Normalised surface Dice: share of both surfaces that lies within a tolerance of the other one.

    Counts surface voxels, as MONAI does without sub-voxel areas. 0 where exactly one mask is empty,
    NaN where both are.
    """

    name: Literal["nsd"] = "nsd"
    tolerance_mm: PositiveFloat = 2.0
    """How far in mm a surface may be off and still count as right."""

    def score(self, sample: MaskPair) -> dict[str, float]:
        """Return e.g. `nsd_2mm`; the tolerance is part of the name."""
        surfaces: SurfaceDistances = sample.surfaces
        voxels = surfaces.of_prediction.size + surfaces.of_reference.size
        column = f"nsd_{self.tolerance_mm:g}mm"
        if voxels == 0:
            return {column: float("nan")}
        # NaN, the distance to an empty mask, is within no tolerance.
        near = sum(int((side <= self.tolerance_mm).sum()) for side in (surfaces.of_prediction, surfaces.of_reference))
        return {column: near / voxels}


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """How far the surface voxels of two masks are from the other surface, in mm, in no particular order.

    of_prediction: one value for each surface voxel of the prediction: distance to the reference's surface.
    of_reference: the same the other way round. NaN where the other mask is empty.
    """

    of_prediction: NDArray[np.float32]
    of_reference: NDArray[np.float32]

    @property
    def is_incomplete(self) -> bool:
        """Whether at least one mask is empty, so that no distance exists."""
        return self.of_prediction.size == 0 or self.of_reference.size == 0


def surface_distances(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], spacing_mm: Spacing
) -> SurfaceDistances:
    """Measure how far each surface lies from the other one.

    The surface of a mask is its border voxels: those with a face towards a voxel outside the mask (the
    definition of MONAI and of `scipy.ndimage.binary_erosion`). What lies outside the image counts as outside
    the mask, so an organ that the field of view cuts off has surface voxels at the cut. Distances run between
    voxel centres.

    Args:
        prediction: (D, H, W) mask.
        reference: (D, H, W) mask on the same grid.
        spacing_mm: Voxel size along (D, H, W), in mm.

    Returns:
        Distances in both directions. Exact, though only the box around both masks is looked at.
    """
    box = _bounding_box(prediction | reference)
    borders = [_border(mask[box]) for mask in (prediction, reference)]
    return SurfaceDistances(
        of_prediction=_distances(borders[0], borders[1], spacing_mm),
        of_reference=_distances(borders[1], borders[0], spacing_mm),
    )


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds all of `mask`; empty slices where there is nothing."""
    sides = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        sides.append(slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0))
    return sides[0], sides[1], sides[2]


def _border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the voxels of `mask` with at least one of six neighbours outside it."""
    inside = mask.copy()
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        inside[tuple(ahead)] &= mask[tuple(behind)]
        inside[tuple(behind)] &= mask[tuple(ahead)]
        for end in (slice(None, 1), slice(-1, None)):
            edge = [slice(None)] * 3
            edge[axis] = end
            inside[tuple(edge)] = False
    return np.asarray(mask & ~inside)


def _distances(start: NDArray[np.bool_], target: NDArray[np.bool_], spacing_mm: Spacing) -> NDArray[np.float32]:
    """Return the distance from each voxel of `start` to the nearest one of `target`, in mm."""
    if not target.any():
        return np.full(int(start.sum()), np.nan, np.float32)
    if not start.any():
        return np.empty(0, np.float32)
    field = edt.edt(np.ascontiguousarray(~target), anisotropy=spacing_mm, black_border=False, parallel=1)
    return np.asarray(field[start], np.float32)


def _percentile(values: NDArray[np.float32], percent: float) -> float:
    return float(np.percentile(values, percent))


def _distance_of_empty(surfaces: SurfaceDistances, empty_mm: float | None) -> float:
    both_empty = surfaces.of_prediction.size + surfaces.of_reference.size == 0
    return float("nan") if both_empty or empty_mm is None else empty_mm
