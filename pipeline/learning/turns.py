"""The matrices of a whole batch of spatial changes, a thousand rows in the time of ten."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.transforms.base import Transform


def turns_of(transforms: Sequence[Transform], drawn: Sequence[Sequence[Any]]) -> NDArray[np.float64] | None:
    """Return the matrix of each row, from voxels of the patch to voxels of a volume with cubic voxels.

    Args:
        transforms: Of all kinds; those of intensity are passed over.
        drawn: What each of them drew, row by row.

    Returns:
        (B, 3, 3) over (D, H, W); None where nothing is turned.
    """
    spatial = [number for number, transform in enumerate(transforms) if transform.spatial]
    if not any(row[number] is not None for row in drawn for number in spatial):
        return None
    found = np.empty((len(drawn), 3, 3))
    for place, row in enumerate(drawn):
        matrix = torch.eye(3, dtype=torch.float64)
        for number in spatial:
            if row[number] is not None:
                matrix = transforms[number].apply(matrix, row[number])
        found[place] = matrix.numpy()
    return found
