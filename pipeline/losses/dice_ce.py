"""Dice plus cross-entropy: the loss for a segmentation that names none."""

from typing import Literal

from pydantic import Field, NonNegativeFloat
from torch import Tensor

from pipeline.losses import terms
from pipeline.losses.base import Loss, LossFunction, Target, losses
from pipeline.losses.comparison import compare


@losses.register
class DiceCE(Loss):
    """Soft Dice, which minds small classes, plus cross-entropy, which has a gradient everywhere."""

    name: Literal["dice_ce"] = "dice_ce"
    dice_weight: NonNegativeFloat = 1.0
    """Weight of the Dice term."""
    ce_weight: NonNegativeFloat = 1.0
    """Weight of the cross-entropy term."""
    over_batch: bool = True
    """Whether Dice is taken over all patches of a batch together; a patch without the class then does no harm."""
    background: bool = False
    """Whether the background has a Dice of its own."""
    smooth: float = Field(default=1e-5, gt=0)
    """Added above and below in Dice."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the truth spread over all classes in the cross-entropy."""

    def build(self, class_weights: Tensor | None = None) -> LossFunction:
        """Make the loss; `class_weights` act in both terms."""

        def loss(logits: Tensor, target: Target) -> Tensor:
            compared = compare(logits, target)
            overlap = terms.dice(
                compared, class_weights, over_batch=self.over_batch, background=self.background, smooth=self.smooth
            )
            likelihood = terms.cross_entropy(compared, class_weights, smoothing=self.label_smoothing)
            return self.dice_weight * overlap + self.ce_weight * likelihood

        return loss
