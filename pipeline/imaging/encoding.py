"""In which type intensities are stored: whole numbers with a step where they lose nothing, else float32."""

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.plugin import Settings

_LEVELS = 2**15 - 1
_COARSEST = 0.49
"""Step over noise at which rounding (variance step**2 / 12) adds 1 % to the noise's standard deviation."""
_NOISE_FLOOR = 1e-4
"""Least noise that counts, as a part of the standard deviation over the body; noise-free phantoms have none."""


class Encoding(Settings):
    """How one channel is stored: intensity = stored * slope + inter."""

    dtype: Literal["int16", "float32"] = "int16"
    slope: float = 1.0
    """A power of two, so that decoding is exact."""
    inter: float = 0.0
    """A multiple of the slope."""

    @property
    def is_plain(self) -> bool:
        """Whether the stored numbers are the intensities themselves."""
        return self.slope == 1.0 and self.inter == 0.0

    def encode(self, intensities: NDArray[Any]) -> NDArray[Any]:
        """Return what is stored: rounded to the nearest step, half to even; clipped where a spline overshoots."""
        if self.dtype == "float32":
            return np.asarray(intensities, np.float32)
        if self.is_plain and intensities.dtype == np.int16:
            return intensities
        levels = (intensities.astype(np.float32) - np.float32(self.inter)) / np.float32(self.slope)
        stored: NDArray[Any] = np.clip(np.rint(levels), -_LEVELS - 1, _LEVELS).astype(np.int16)
        return stored

    def decode(self, stored: NDArray[Any]) -> NDArray[np.float32]:
        """Return the intensities as float32."""
        decoded: NDArray[np.float32] = stored.astype(np.float32)
        if not self.is_plain:
            decoded *= np.float32(self.slope)
            decoded += np.float32(self.inter)
        return decoded


def choose_encoding(
    minimum: float, maximum: float, *, noise: float, spread: float, whole: bool, exact: bool
) -> Encoding:
    """Choose the smallest type in which rounding costs less than 1 % of the noise.

    Args:
        minimum: Smallest intensity of the source.
        maximum: Largest intensity of the source.
        noise: Standard deviation of the noise, from `estimate_noise`.
        spread: Standard deviation over the body.
        whole: The source has whole numbers: then no step is larger than 1.
        exact: They are stored without being interpolated: then a step of 1 loses nothing.
    """
    finest = max(_COARSEST * max(noise, _NOISE_FLOOR * spread), 1e-30)
    step = 2.0 ** math.floor(math.log2(finest))
    if whole:
        step = 1.0 if exact else min(step, 1.0)
    # A spline overshoots at edges: room on both sides where it can be had.
    for room in (0.05 * (maximum - minimum), 0.0):
        low, high = minimum - room, maximum + room
        if max(-low, high) <= _LEVELS * step:
            return Encoding(slope=step)
        if high - low <= 2 * _LEVELS * step:
            return Encoding(slope=step, inter=step * round((low + high) / 2 / step))
    return Encoding(dtype="float32")


def common_type(encodings: tuple[Encoding, ...]) -> tuple[Encoding, ...]:
    """Give all channels of a case one type: float32 as soon as one of them needs it."""
    if any(encoding.dtype == "float32" for encoding in encodings):
        return (Encoding(dtype="float32"),) * len(encodings)
    return encodings


def estimate_noise(voxels: NDArray[Any], threshold: float) -> float:
    """Estimate the standard deviation of the noise from second differences along W, which smooth anatomy cancels.

    The median of their absolute value is robust against edges. Zero where fewer than 100 body voxels are found
    or where more than half of the differences are zero.

    Args:
        voxels: (D, H, W) intensities on the native grid.
        threshold: Only voxels above it count.
    """
    if voxels.shape[2] < 3:
        return 0.0
    sample = voxels[:: max(1, voxels.shape[0] // 16), :: max(1, voxels.shape[1] // 128)].astype(np.float32)
    middle = sample[..., 1:-1]
    second = sample[..., :-2] - 2 * middle + sample[..., 2:]
    inside = np.minimum(np.minimum(sample[..., :-2], middle), sample[..., 2:]) > threshold
    values = np.abs(second[inside])
    if values.size < 100:
        return 0.0
    # 1.4826 turns a median absolute deviation into a normal one; 6 = 1 + 4 + 1 is the filter's gain.
    return float(1.4826 * np.median(values) / math.sqrt(6))
