"""Transforms of intensity: noise, brightness, contrast and gamma; ranges and chances are close to nnU-Net's.

They change the image in place and return it. Numbers that may differ between the channels are drawn for
`CHANNELS` of them; further channels use them again from the first.
"""

from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.transforms.base import Transform, transforms

CHANNELS = 4
Probability = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]
Factors = tuple[float, ...]


@transforms.register
class Noise(Transform):
    """Add Gaussian noise, independent in each voxel."""

    name: Literal["noise"] = "noise"
    std: Range = (0.0, 0.1)
    """Range of its standard deviation, in normalised units."""
    probability: Probability = 0.1

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not 0 <= self.std[0] <= self.std[1]:
            raise ValueError(f"std: found {self.std}; expected two numbers from 0 up, the smaller first")
        return self

    def draw(self, random: np.random.Generator) -> tuple[float, int] | None:
        """Draw the standard deviation and the seed of the noise."""
        chance, std, seed = random.random(), random.uniform(*self.std), random.integers(2**63)
        return (float(std), int(seed)) if chance < self.probability else None

    def apply(self, image: Tensor, drawn: tuple[float, int] | None) -> Tensor:
        """Add the noise; a seed gives one noise on a CPU and another on a GPU."""
        if drawn is None:
            return image
        std, seed = drawn
        generator = torch.Generator(image.device).manual_seed(seed)
        noise = torch.empty_like(image).normal_(generator=generator)
        return image.add_(noise.mul_(std))


@transforms.register
class Brightness(Transform):
    """Multiply each channel by a factor and add a constant."""

    name: Literal["brightness"] = "brightness"
    factor: Range = (0.75, 1.25)
    """Range of the factor."""
    shift: Range = (0.0, 0.0)
    """Range of what is added, in normalised units."""
    probability: Probability = 0.15

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check_factors("factor", self.factor)
        if self.shift[0] > self.shift[1]:
            raise ValueError(f"shift: found {self.shift}; expected two numbers, the smaller first")
        return self

    def draw(self, random: np.random.Generator) -> tuple[Factors, Factors] | None:
        """Draw factors and shifts of the channels."""
        chance, factors, shifts = random.random(), _factors(random, self.factor), random.uniform(*self.shift, CHANNELS)
        return (factors, tuple(shifts.tolist())) if chance < self.probability else None

    def apply(self, image: Tensor, drawn: tuple[Factors, Factors] | None) -> Tensor:
        """Multiply and add."""
        if drawn is not None:
            for index, channel in enumerate(image):
                channel.mul_(drawn[0][index % CHANNELS]).add_(drawn[1][index % CHANNELS])
        return image


@transforms.register
class Contrast(Transform):
    """Spread each channel about its mean, within the range that it had."""

    name: Literal["contrast"] = "contrast"
    factor: Range = (0.75, 1.25)
    """Range of the factor by which differences from the mean grow."""
    probability: Probability = 0.15

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check_factors("factor", self.factor)
        return self

    def draw(self, random: np.random.Generator) -> Factors | None:
        """Draw factors of the channels."""
        chance, factors = random.random(), _factors(random, self.factor)
        return factors if chance < self.probability else None

    def apply(self, image: Tensor, drawn: Factors | None) -> Tensor:
        """Spread about the mean, then clip to the smallest and largest value before."""
        if drawn is not None:
            for index, channel in enumerate(image):
                mean, (low, high) = channel.mean(), torch.aminmax(channel)
                channel.sub_(mean).mul_(drawn[index % CHANNELS]).add_(mean).clamp_(low, high)
        return image


@transforms.register
class Gamma(Transform):
    """Raise each channel, brought to 0..1, to a power; afterwards it has its old mean and deviation."""

    name: Literal["gamma"] = "gamma"
    exponent: Range = (0.7, 1.5)
    """Range of the power."""
    probability: Probability = 0.3
    inverted_probability: Probability = 0.1
    """Of a second power, on the negative image."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        _check_factors("exponent", self.exponent)
        return self

    def draw(self, random: np.random.Generator) -> tuple[Factors | None, Factors | None] | None:
        """Draw powers of the channels, for the image and for its negative."""
        chances = random.random(2)
        plain, inverted = _factors(random, self.exponent), _factors(random, self.exponent)
        drawn = (
            plain if chances[0] < self.probability else None,
            inverted if chances[1] < self.inverted_probability else None,
        )
        return drawn if any(drawn) else None

    def apply(self, image: Tensor, drawn: tuple[Factors | None, Factors | None] | None) -> Tensor:
        """Raise the negative first, then the image, as far as drawn."""
        plain, inverted = drawn or (None, None)
        for index, channel in enumerate(image):
            if inverted is not None:
                _power(channel.neg_(), inverted[index % CHANNELS]).neg_()
            if plain is not None:
                _power(channel, plain[index % CHANNELS])
        return image


def _power(channel: Tensor, exponent: float) -> Tensor:
    """Raise (D, H, W) in place between its own extremes; a constant channel stays as it is."""
    (low, high), (mean, std) = torch.aminmax(channel), _mean_std(channel)
    span = high - low
    inverse = torch.where(span > 0, 1 / span, 0.0)
    # Through the logarithm: half the time of pow on a CPU; 0 stays 0.
    channel.sub_(low).mul_(inverse).clamp_(min=0).log2_().mul_(exponent).exp2_()
    new_mean, new_std = _mean_std(channel)
    stretch = torch.where(new_std > 0, std / new_std, 0.0)
    return channel.sub_(new_mean).mul_(stretch).add_(mean)


def _mean_std(channel: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation; `torch.std_mean` takes 20 times longer on one core."""
    mean = channel.mean()
    centred = (channel - mean).flatten()
    return mean, (centred.dot(centred) / centred.numel()).sqrt()


def _factors(random: np.random.Generator, bounds: Range) -> Factors:
    """Draw one factor a channel, even on a logarithmic scale: half and double are equally far from 1."""
    low, high = np.log(bounds)
    return tuple(np.exp(random.uniform(low, high, CHANNELS)).tolist())


def _check_factors(field: str, bounds: Range) -> None:
    if not 0 < bounds[0] <= bounds[1]:
        raise ValueError(f"{field}: found {bounds}; expected two numbers above 0, the smaller first")
