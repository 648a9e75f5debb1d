"""A label written anew on the grid of its image, in whole numbers: what a worker process does for a repair."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.imaging.facts import content_sha256
from pipeline.imaging.geometry import apply, canonical_geometry, difference, reorientation_of, restore
from pipeline.imaging.read import WHOLE, open_volume
from pipeline.imaging.volume import Geometry
from pipeline.imaging.write import write_mask

_TYPES = (np.uint8, np.uint16, np.int16, np.int32)


def mend_label(source: Path, target: Path, grid: Geometry, case_id: str) -> tuple[str, str]:
    """Write a label on the grid of its image; the source stays as it is.

    Where both grids cover the same voxels of the patient, the label's axes are exchanged and mirrored so that
    each value keeps its place; else the label takes the grid over, voxel for voxel. No value is changed but for
    floats next to a whole number.

    Args:
        source: Label file of any format that can be read.
        target: `.nii.gz` to write, whole or not at all; equal sources give equal bytes.
        grid: Grid of the image.
        case_id: Named in errors.

    Returns:
        sha256 of the source's and of the target's bytes.

    Raises:
        DataError: the label has another shape than the image, or values that are not whole numbers.
    """
    label = open_volume(source, 1)
    here, there = reorientation_of(label.geometry), reorientation_of(grid)
    values: NDArray[Any] = label.voxels[0]
    if not difference(canonical_geometry(here), canonical_geometry(there)):
        values = restore(apply(values, here), there)
    if values.shape != grid.shape:
        raise DataError(f"case {case_id}: the label has shape {values.shape}; expected {grid.shape}. Leave it out.")
    write_mask(_whole(values, case_id), grid, target)
    return content_sha256(source), content_sha256(target)


def _whole(values: NDArray[Any], case_id: str) -> NDArray[Any]:
    """Return the values in the smallest type of a mask that holds them."""
    rounded = np.rint(values) if values.dtype.kind == "f" else values
    if values.dtype.kind == "f" and not (np.abs(values - rounded) <= WHOLE).all():
        raise DataError(f"case {case_id}: the label has values that are not whole numbers. Correct the file.")
    lowest, highest = float(rounded.min()), float(rounded.max())
    for kind in _TYPES:
        if np.iinfo(kind).min <= lowest and highest <= np.iinfo(kind).max:
            return np.ascontiguousarray(rounded.astype(kind))
    raise DataError(f"case {case_id}: label values from {lowest:g} to {highest:g}; expected 32 bits. Correct the file.")
