"""Voxel grids made from scikit-learn's handwritten digits, the way 3D-MNIST was made from MNIST."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_THICKNESS = 0.25
"""Depth of an extruded digit; its image is 1 wide."""


@dataclass(frozen=True)
class Cloud:
    """How a digit becomes a voxel grid."""

    side: int
    """Voxels along each axis."""
    points: int
    rotation_degrees: float
    """Largest angle about each axis, to both sides."""
    noise: float
    """Standard deviation of the jitter; the image is 1 wide."""


@lru_cache(maxsize=1)
def digits() -> tuple[NDArray[np.float64], tuple[int, ...]]:
    """Return scikit-learn's 1797 digit images (N, 8, 8), 0 to 16, and the digit of each."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images, tuple(int(digit) for digit in found.target)


def split_images(count: int, test_share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which images are for training and which for testing; none is in both."""
    order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(count)
    held_out = round(count * test_share)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def make_grids(
    images: NDArray[np.float64], wanted: Sequence[tuple[int, int]], cloud: Cloud, seed: int
) -> NDArray[np.float32]:
    """Make a grid for each (image, copy): a pure function of the image, the number of the copy and the seed.

    Returns:
        (N, side, side, side) float32: points in each voxel, as a part of those in the fullest one.
    """
    grids = np.empty((len(wanted), *(cloud.side,) * 3), np.float32)
    for number, (image, copy) in enumerate(wanted):
        random = np.random.Generator(np.random.Philox(key=[seed, 1], counter=[0, 0, image, copy]))
        grids[number] = voxelise(draw_points(images[image], cloud, random), cloud.side)
    return grids


def draw_points(image: NDArray[np.float64], cloud: Cloud, random: np.random.Generator) -> NDArray[np.float64]:
    """Extrude an image along D and draw points in it as densely as it is dark; turn and jitter them.

    Returns:
        (points, 3) positions along (D, H, W), about the origin.
    """
    rows, columns = image.shape
    dark = np.cumsum(image.ravel())
    pixel = np.searchsorted(dark, random.random(cloud.points) * dark[-1], side="right")
    inside = random.random((cloud.points, 3))
    flat = np.stack(
        [(inside[:, 0] - 0.5) * _THICKNESS, (pixel // columns + inside[:, 1]) / rows - 0.5,
         (pixel % columns + inside[:, 2]) / columns - 0.5], axis=1,
    )  # fmt: skip
    turn = _rotation(random.uniform(-1, 1, 3) * math.radians(cloud.rotation_degrees))
    turned: NDArray[np.float64] = flat @ turn.T + random.normal(0, cloud.noise, flat.shape)
    return turned


def voxelise(points: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Count points in the voxels of the smallest cube around them; 1 for the fullest voxel.

    The cube is centred on the bounding box and as wide as its longest side, so that no digit is stretched.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    place = (points - (low + high) / 2) / (high - low).max() + 0.5
    index = np.clip((place * side).astype(np.int64), 0, side - 1)
    counts = np.bincount(index @ [side * side, side, 1], minlength=side**3).reshape(side, side, side)
    share: NDArray[np.float64] = counts / counts.max()
    return share


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrix over (D, H, W) that turns about D, then H, then W."""
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        one = np.eye(3)
        one[first, first] = one[second, second] = math.cos(angle)
        one[first, second], one[second, first] = -math.sin(angle), math.sin(angle)
        matrix = one @ matrix
    return matrix
