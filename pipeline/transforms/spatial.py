"""Transforms of space: mirroring, and rotation with scaling.

The matrix so far takes offsets from the patch centre, in patch voxels, to offsets in millimetres in the patient;
it begins as diag(spacing_mm), so its columns are the sides of a voxel. Each transform multiplies from the left,
in millimetres: thick slices are turned, not sheared.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.imaging.labels import Labels, sided
from pipeline.transforms.base import Transform, transforms

_log = logging.getLogger(__name__)

Axis = Literal["D", "H", "W"]
_AXES: tuple[Axis, ...] = ("D", "H", "W")
Probability = Annotated[float, Field(ge=0, le=1)]
Triple = tuple[float, float, float]


@transforms.register
class Flip(Transform):
    """Mirror along each axis, for half of the patches.

    Left and right are places along W, since every volume is brought to one orientation. A patch mirrored along
    W therefore exchanges the labels that say a side, and one mirrored along D or H does not, though it shows a
    mirrored body too: its left is still where left always is.
    """

    name: Literal["flip"] = "flip"
    axes: tuple[Axis, ...] | Literal["auto"] = "auto"
    """Array axes that are mirrored; `auto`: all, but W only where each label with a side has its partner."""
    probability: Probability = 0.5
    """Of each axis, one by one."""
    spatial: ClassVar[bool] = True

    def draw(self, random: np.random.Generator) -> tuple[bool, bool, bool] | None:
        """Draw whether D, H and W are mirrored."""
        chosen = random.random(3) < self.probability
        axes = _AXES if self.axes == "auto" else self.axes
        flips = (bool(chosen[0]) and "D" in axes, bool(chosen[1]) and "H" in axes, bool(chosen[2]) and "W" in axes)
        return flips if any(flips) else None

    def apply(self, image: Tensor, drawn: tuple[bool, bool, bool] | None) -> Tensor:
        """Mirror the matrix so far."""
        if drawn is None:
            return image
        signs = torch.tensor([-1.0 if flip else 1.0 for flip in drawn], dtype=image.dtype)
        return signs[:, None] * image


@transforms.register
class Affine(Transform):
    """Rotate about the patch centre, and scale."""

    name: Literal["affine"] = "affine"
    rotation_degrees: Triple = (30.0, 30.0, 30.0)
    """Largest angle about the axes (D, H, W), to both sides; about D turns the slices in their plane."""
    scaling: tuple[float, float] = (0.7, 1.4)
    """Range of the factor by which things grow; above 1 the patch sees less."""
    probability: Probability = 0.2
    """Of rotation, and apart from it of scaling."""
    in_plane_above: Annotated[float, Field(ge=1)] = 3.0
    """Ratio of the slice step to the next larger voxel side above which nothing moves between slices."""
    spatial: ClassVar[bool] = True

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not 0 < self.scaling[0] <= self.scaling[1]:
            raise ValueError(f"scaling: found {self.scaling}; expected two factors above 0, the smaller first")
        if not all(0 <= angle <= 180 for angle in self.rotation_degrees):
            raise ValueError(f"rotation_degrees: found {self.rotation_degrees}; expected angles of 0 to 180")
        return self

    def draw(self, random: np.random.Generator) -> tuple[Triple, float] | None:
        """Draw the angles about D, H, W in degrees, and the factor."""
        chances, angles, zoom = random.random(2), random.uniform(-1, 1, 3), random.random()
        turned = angles * self.rotation_degrees if chances[0] < self.probability else np.zeros(3)
        low, high = np.log(self.scaling)
        factor = math.exp(low + zoom * (high - low)) if chances[1] < self.probability else 1.0
        if not turned.any() and factor == 1:
            return None
        return (float(turned[0]), float(turned[1]), float(turned[2])), factor

    def apply(self, image: Tensor, drawn: tuple[Triple, float] | None) -> Tensor:
        """Turn and scale the matrix so far; within the plane of thick slices only."""
        if drawn is None:
            return image
        angles, factor = drawn
        sides = torch.linalg.vector_norm(image, dim=0).tolist()
        thick = sides.index(max(sides))
        shrink = torch.full((3,), 1 / factor, dtype=image.dtype)
        if sides[thick] > self.in_plane_above * sorted(sides)[1]:
            angles = tuple(angle if axis == thick else 0.0 for axis, angle in enumerate(angles))  # type: ignore[assignment]
            shrink[thick] = 1.0
        return rotation(angles).to(image.dtype) @ (shrink[:, None] * image)


def for_labels(chosen: Iterable[Transform], labels: Labels) -> tuple[Transform, ...]:
    """Return the transforms with `auto` axes of mirroring settled, so that no mirrored anatomy is taught.

    Args:
        chosen: From the config.
        labels: A class that names a side without a partner (left_kidney alone) takes W out.
    """
    return _settled(chosen, labels.unpaired_sides(), "has no partner on the other side")


def for_volume_classes(chosen: Iterable[Transform], names: Iterable[str]) -> tuple[Transform, ...]:
    """Return the transforms with `auto` axes of mirroring settled, where whole volumes are named.

    Args:
        chosen: From the config.
        names: Classes of whole volumes; one that names a side takes W out, since no label is there to exchange.
    """
    return _settled(chosen, sided(names), "is a class of whole volumes that names a side")


def _settled(chosen: Iterable[Transform], sides: Sequence[str], why: str) -> tuple[Transform, ...]:
    axes = _AXES[:2] if sides else _AXES
    settled = tuple(
        one.model_copy(update={"axes": axes}) if isinstance(one, Flip) and one.axes == "auto" else one for one in chosen
    )
    if sides and any(_exchanges_sides(one) for one in settled):
        _log.warning(
            "augment: patches are mirrored along W, and %s %s: the network is taught both. Set the axes of flip to "
            "[D, H], or keep rotation about D and H below 90 degrees.",
            sides[0],
            why,
        )
    return settled


def _exchanges_sides(transform: Transform) -> bool:
    if isinstance(transform, Flip):
        return "W" in transform.axes
    return isinstance(transform, Affine) and max(transform.rotation_degrees[:2]) > 90


def rotation(degrees: Triple) -> Tensor:
    """Return the (3, 3) float64 matrix over (D, H, W) that turns about D, then H, then W, each right-handed."""
    matrix = torch.eye(3, dtype=torch.float64)
    for axis, angle in enumerate(degrees):
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        first, second = (axis + 1) % 3, (axis + 2) % 3
        one = torch.eye(3, dtype=torch.float64)
        one[first, first] = one[second, second] = cos
        one[first, second], one[second, first] = -sin, sin
        matrix = one @ matrix
    return matrix
