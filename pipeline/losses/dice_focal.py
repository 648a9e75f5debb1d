"""Dice plus focal loss, for classes that are few voxels among many easy ones."""

from typing import Literal

from pydantic import Field, NonNegativeFloat
from torch import Tensor

from pipeline.losses import terms
from pipeline.losses.base import Loss, LossFunction, Target, losses
from pipeline.losses.comparison import compare


@losses.register
class DiceFocal(Loss):
    """Soft Dice plus cross-entropy in which voxels already right weigh little (Lin 2017)."""

    name: Literal["dice_focal"] = "dice_focal"
    dice_weight: NonNegativeFloat = 1.0
    """Weight of the Dice term."""
    focal_weight: NonNegativeFloat = 1.0
    """Weight of the focal term."""
    focus: NonNegativeFloat = 2.0
    """A voxel whose true class has probability p weighs (1 - p) ** focus."""
    over_batch: bool = True
    """Whether Dice is taken over all patches of a batch together."""
    background: bool = False
    """Whether the background has a Dice of its own."""
    smooth: float = Field(default=1e-5, gt=0)
    """Added above and below in Dice."""

    def build(self, class_weights: Tensor | None = None) -> LossFunction:
        """Make the loss; `class_weights` act in both terms."""

        def loss(logits: Tensor, target: Target) -> Tensor:
            compared = compare(logits, target)
            overlap = terms.dice(
                compared, class_weights, over_batch=self.over_batch, background=self.background, smooth=self.smooth
            )
            return self.dice_weight * overlap + self.focal_weight * terms.cross_entropy(
                compared, class_weights, focus=self.focus
            )

        return loss
