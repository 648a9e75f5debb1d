"""A CT-like volume with organs for benchmarks: a body in air, smooth tissue, noise; no patient's data."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SHAPE = (301, 512, 512)
SPACING_MM = (1.0, 0.703125, 0.703125)
WORKING_MM = (1.505, 1.5, 1.5)
"""Both fit whole numbers of voxels (200 x 240 x 240), so that nnU-Net's grid, which fits the edges, is ours."""


def made_ct(
    shape: tuple[int, int, int] = SHAPE, organs: int = 41, seed: int = 0
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return voxels in HU and labels 0 to `organs`, both (D, H, W)."""
    rng = np.random.default_rng(seed)
    depth, height, width = shape
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    inside = (y[:, None] ** 2 / 0.55 + x[None] ** 2 / 0.75) < 1
    coarse = rng.normal(0, 90, (9, 12, 12)).astype(np.float32)
    voxels = np.empty(shape, np.int16)
    label = np.zeros(shape, np.uint8)
    seeds = rng.uniform(-0.75, 0.75, (organs, 3)).astype(np.float32)
    sizes = rng.uniform(0.12, 0.3, organs).astype(np.float32)
    rows = ndimage.zoom(coarse, (depth / 9, 1, 1), order=1)
    for k in range(depth):
        texture = ndimage.zoom(rows[k], (height / 12, width / 12), order=3)[:height, :width]
        noise = rng.standard_normal((height, width), np.float32) * 15
        slice_hu = np.where(inside, 40 + texture + noise, -1000 + noise / 2)
        for number, ((cz, cy, cx), size) in enumerate(zip(seeds, sizes, strict=True), start=1):
            radius = size**2 - (z[k] - cz) ** 2
            if radius > 0:
                organ = ((y[:, None] - cy) ** 2 + (x[None] - cx) ** 2 < radius) & inside
                label[k][organ] = number
                slice_hu = np.where(organ, slice_hu + 8 * (number % 7), slice_hu)
        voxels[k] = np.clip(slice_hu, -1024, 3000)
    return voxels, label
