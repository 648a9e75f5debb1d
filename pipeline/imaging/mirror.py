"""Whether a label fits its image better when it is mirrored: how much of the intensities it explains either way."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST = 30_000
"""Voxels around the label that are looked at; more are sampled evenly."""
_MARGIN = 3
"""Voxels around the label's box that count as its surroundings."""
_LEAST = 64
"""A label of fewer voxels says nothing."""


@dataclass(frozen=True)
class Mirroring:
    """Shares of the variance of intensities in and around a label that the label's classes explain."""

    as_it_is: float
    best: float
    """The largest share of a mirrored label."""
    axes: str
    """Axes along which that one is mirrored, such as `W` or `HW`."""
    voxels: int
    """Of the box in which they were compared."""


def mirroring(image: NDArray[Any], label: NDArray[Any]) -> Mirroring | None:
    """Compare a label as it lies with its mirror images along every choice of axes.

    The share explained is the between-class variance over the variance, in the label's box and a margin; the
    mirrored label is laid on the mirrored box, so that every choice is judged by its own surroundings.

    Args:
        image: (D, H, W), finite.
        label: (D, H, W) whole numbers, 0 the background.

    Returns:
        None where the shapes differ, or where the label is nearly empty.
    """
    if image.shape != label.shape:
        return None
    box = _box(label)
    if box is None:
        return None
    inside = label[box]
    step = max(1, round((inside.size / _MOST) ** (1 / 3)))
    thin = (slice(None, None, step),) * 3
    classes = np.unique(inside[thin], return_inverse=True)[1].reshape(-1)
    if np.count_nonzero(inside[thin]) < _LEAST:
        return None
    shares = {}
    for flips in product((False, True), repeat=3):
        turned = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
        values = image[turned][box][thin]
        shares["".join(axis for axis, flip in zip("DHW", flips, strict=True) if flip)] = _explained(values, classes)
    as_it_is = shares.pop("")
    axes = max(shares, key=lambda name: shares[name])
    return Mirroring(as_it_is, shares[axes], axes, int(inside.size))


def _box(label: NDArray[Any]) -> tuple[slice, ...] | None:
    filled = label != 0
    ranges = []
    for axis in range(3):
        places = np.flatnonzero(filled.any(axis=tuple(other for other in range(3) if other != axis)))
        if not places.size:
            return None
        ranges.append(slice(max(0, int(places[0]) - _MARGIN), int(places[-1]) + 1 + _MARGIN))
    return tuple(ranges)


def _explained(values: NDArray[Any], classes: NDArray[np.intp]) -> float:
    """Return the between-class share of the variance; 0 for constant values."""
    flat = np.ravel(values).astype(np.float64)
    spread = float(flat.var())
    if not spread > 0:
        return 0.0
    numbers = np.bincount(classes)
    means = np.bincount(classes, flat - flat.mean()) / numbers
    return float((numbers * means**2).sum() / flat.size / spread)
