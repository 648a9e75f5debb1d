"""What an augmentation is: parameters drawn from numbers, then applied."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from pipeline.plugin import Plugin, Registry


class Transform(Plugin):
    """A random change of a training patch.

    Spatial transforms (`spatial = True`): `apply` changes a 3x3 float64 matrix from patch voxels (D, H, W) about
    the centre to millimetres in the volume, which starts as diag(spacing); all are done in one gather. Intensity
    transforms: `apply` changes the normalised image (C, D, H, W) and returns it.
    Drawing and applying are two functions, so that one draw can be shown, repeated and tested.
    """

    spatial: ClassVar[bool] = False

    @abstractmethod
    def draw(self, random: np.random.Generator) -> Any:
        """Draw the parameters of one patch; None where it is left alone."""

    @abstractmethod
    def apply(self, image: Tensor, drawn: Any) -> Any:
        """Apply what was drawn. For spatial transforms `image` is the (3, 3) matrix so far."""


transforms: Registry[Transform] = Registry("transform", Transform, "pipeline.transforms")
