"""Cross-entropy, for classification and segmentation."""

from typing import Literal

from pydantic import Field
from torch import Tensor

from pipeline.losses import terms
from pipeline.losses.base import Loss, LossFunction, Target, losses
from pipeline.losses.comparison import compare


@losses.register
class CrossEntropy(Loss):
    """Negative log-likelihood: softmax for exclusive classes, a sigmoid each for overlapping ones."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the truth spread over all classes (Szegedy 2016)."""

    def build(self, class_weights: Tensor | None = None) -> LossFunction:
        """Make the loss; `class_weights` weigh voxels, or whole volumes, by their true class."""

        def loss(logits: Tensor, target: Target) -> Tensor:
            return terms.cross_entropy(compare(logits, target), class_weights, smoothing=self.label_smoothing)

        return loss
