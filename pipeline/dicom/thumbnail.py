"""A small picture of a series, usable or refused: the middle slice of what can be decoded."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dicom.decode import stored_values
from pipeline.dicom.series import Series
from pipeline.errors import DataError


def thumbnail(series: Series, side: int = 128) -> NDArray[np.uint8]:
    """Draw the middle slice in grey, as it is stored, with the patient's proportions.

    Call it where the files come from outside in a child process, as decoding.

    Args:
        series: From an audit.
        side: Longest side in pixels.

    Returns:
        (h, w) grey levels; (0, 0) where nothing can be shown.
    """
    plane = series.planes[len(series.planes) // 2]
    header = plane.header
    if header.pixels.fault or header.samples != 1 or header.bits_allocated not in (8, 16, 32):
        return np.empty((0, 0), np.uint8)
    try:
        values = stored_values([plane])[0].astype(np.float32)
    except DataError:
        return np.empty((0, 0), np.uint8)
    spacing = plane.pixel_spacing if len(plane.pixel_spacing) == 2 and min(plane.pixel_spacing) > 0 else (1.0, 1.0)
    return _grey(_resized(values, spacing, side))


def _resized(values: NDArray[Any], spacing: tuple[float, ...], side: int) -> NDArray[Any]:
    """Take the nearest pixels of a picture whose longest side is so many pixels."""
    sizes = np.array(values.shape) * np.array(spacing)
    target = np.maximum(1, np.rint(sizes / sizes.max() * side)).astype(int)
    rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in zip(target, values.shape, strict=True))
    return values[np.ix_(rows.astype(int), columns.astype(int))]


def _grey(values: NDArray[Any]) -> NDArray[np.uint8]:
    low, high = np.percentile(values, (1, 99))
    return np.asarray(np.clip((values - low) / max(float(high - low), 1e-6), 0, 1) * 255, np.uint8)
