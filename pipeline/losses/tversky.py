"""Tversky loss: Dice with false positives and false negatives weighed apart."""

from typing import Literal

from pydantic import Field, NonNegativeFloat
from torch import Tensor

from pipeline.losses import terms
from pipeline.losses.base import Loss, LossFunction, Target, losses
from pipeline.losses.comparison import compare


@losses.register
class Tversky(Loss):
    """1 - TP / (TP + a FP + b FN) (Salehi 2017); a = b = 0.5 is Dice. Larger b finds more, and more wrongly."""

    name: Literal["tversky"] = "tversky"
    false_positive: NonNegativeFloat = 0.3
    """Weight a of voxels wrongly given to a class."""
    false_negative: NonNegativeFloat = 0.7
    """Weight b of voxels wrongly kept from a class."""
    ce_weight: NonNegativeFloat = 0.0
    """Weight of a cross-entropy term beside it."""
    over_batch: bool = True
    """Whether the index is taken over all patches of a batch together."""
    background: bool = False
    """Whether the background has an index of its own."""
    smooth: float = Field(default=1e-5, gt=0)
    """Added above and below."""

    def build(self, class_weights: Tensor | None = None) -> LossFunction:
        """Make the loss; `class_weights` act in both terms."""

        def loss(logits: Tensor, target: Target) -> Tensor:
            compared = compare(logits, target)
            index = terms.tversky(
                compared,
                class_weights,
                false_positive=self.false_positive,
                false_negative=self.false_negative,
                over_batch=self.over_batch,
                background=self.background,
                smooth=self.smooth,
            )
            if self.ce_weight == 0:
                return index
            return index + self.ce_weight * terms.cross_entropy(compared, class_weights)

        return loss
