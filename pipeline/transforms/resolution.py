"""Transforms of resolution: blur and coarser voxels, both a matrix along each axis."""

import math
from functools import lru_cache
from typing import Literal, Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from pipeline.transforms.base import Transform, transforms
from pipeline.transforms.intensity import CHANNELS, Probability


@transforms.register
class Blur(Transform):
    """Smooth channels with a Gaussian; edges are mirrored."""

    name: Literal["blur"] = "blur"
    sigma: tuple[float, float] = (0.5, 1.0)
    """Range of its standard deviation, in voxels."""
    probability: Probability = 0.1
    """Of each channel."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not 0 < self.sigma[0] <= self.sigma[1]:
            raise ValueError(f"sigma: found {self.sigma}; expected two numbers above 0, the smaller first")
        return self

    def draw(self, random: np.random.Generator) -> tuple[float, ...] | None:
        """Draw the standard deviation of each channel; 0 where it is left alone."""
        chances, sigmas = random.random(CHANNELS), random.uniform(*self.sigma, CHANNELS)
        drawn = np.where(chances < self.probability, sigmas, 0.0)
        return tuple(drawn.tolist()) if drawn.any() else None

    def apply(self, image: Tensor, drawn: tuple[float, ...] | None) -> Tensor:
        """Smooth along each axis in turn."""
        for index, channel in enumerate(image):
            if drawn is not None and drawn[index % CHANNELS] > 0:
                sigma = drawn[index % CHANNELS]
                channel.copy_(_along_axes(channel, tuple(gaussian_matrix(n, sigma) for n in channel.shape)))
        return image


@transforms.register
class LowResolution(Transform):
    """Show channels as if they had been scanned with larger voxels: nearest down, linear up again."""

    name: Literal["low_resolution"] = "low_resolution"
    zoom: tuple[float, float] = (0.5, 1.0)
    """Range of the size of the coarse patch, as a part of the patch."""
    probability: Probability = 0.125
    """Of each channel."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not 0 < self.zoom[0] <= self.zoom[1] <= 1:
            raise ValueError(f"zoom: found {self.zoom}; expected two numbers in 0..1, the smaller first")
        return self

    def draw(self, random: np.random.Generator) -> tuple[float, ...] | None:
        """Draw the zoom of each channel; 1 where it is left alone."""
        chances, zooms = random.random(CHANNELS), random.uniform(*self.zoom, CHANNELS)
        drawn = np.where(chances < self.probability, zooms, 1.0)
        return tuple(drawn.tolist()) if (drawn < 1).any() else None

    def apply(self, image: Tensor, drawn: tuple[float, ...] | None) -> Tensor:
        """Go down and up along each axis in turn."""
        for index, channel in enumerate(image):
            if drawn is not None and drawn[index % CHANNELS] < 1:
                few = [max(1, round(n * drawn[index % CHANNELS])) for n in channel.shape]
                d, h, w = (nearest_places(n, m).to(image.device) for n, m in zip(channel.shape, few, strict=True))
                coarse = channel[d[:, None, None], h[:, None], w]
                lines = tuple(linear_matrix(n, m) for n, m in zip(channel.shape, few, strict=True))
                channel.copy_(_along_axes(coarse, lines))
        return image


@lru_cache(maxsize=8)
def gaussian_matrix(n: int, sigma: float) -> Tensor:
    """Return the (n, n) float32 matrix that smooths n values, mirrored at the ends, cut at 4 sigma."""
    radius = max(1, math.ceil(4 * sigma))
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    matrix = np.zeros((n, n))
    for offset, weight in zip(offsets, weights, strict=True):
        place = (np.arange(n) + offset) % (2 * n)
        np.add.at(matrix, (np.arange(n), np.where(place < n, place, 2 * n - 1 - place)), weight)
    return torch.from_numpy(matrix.astype(np.float32))


def nearest_places(n: int, few: int) -> Tensor:
    """Return (few,) which of n values lie nearest to the centres of as many larger cells."""
    return torch.from_numpy(np.minimum(np.floor((np.arange(few) + 0.5) * n / few), n - 1).astype(np.int64))


@lru_cache(maxsize=8)
def linear_matrix(n: int, few: int) -> Tensor:
    """Return the (n, few) float32 matrix that draws lines between the centres of `few` cells; level beyond them."""
    place = np.clip((np.arange(n) + 0.5) * few / n - 0.5, 0, few - 1)
    below = np.minimum(place.astype(int), max(few - 2, 0))
    matrix = np.zeros((n, few))
    np.add.at(matrix, (np.arange(n), below), 1 - (place - below))
    np.add.at(matrix, (np.arange(n), np.minimum(below + 1, few - 1)), place - below)
    return torch.from_numpy(matrix.astype(np.float32))


def _along_axes(channel_DHW: Tensor, matrices: tuple[Tensor, ...]) -> Tensor:
    """Apply a matrix along each of the three axes: a dense product is faster than shifted sums."""
    along_D, along_H, along_W = (matrix.to(channel_DHW.device) for matrix in matrices)
    result = along_H @ (channel_DHW @ along_W.T)
    return torch.mm(along_D, result.flatten(1)).view(-1, *result.shape[1:])
