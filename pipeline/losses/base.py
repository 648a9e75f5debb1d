"""What a loss is, and the target that it compares logits with."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pipeline.plugin import Plugin, Registry


@dataclass(frozen=True, eq=False)
class Target:
    """What the logits should say.

    Exclusive classes (softmax): `classes` is (B, *S) int64 class index, 255 where the voxel is ignored.
    Overlapping classes (sigmoid; regions, multi-label): `members` is (B, K, *S) float of 0 and 1, and
    `classes` is None. S is (D, H, W) for segmentation and empty for classification.
    """

    classes: Tensor | None
    members: Tensor | None = None
    valid: Tensor | None = None
    """(B, *S) bool: where the loss counts; None for everywhere (beside 255 in `classes`)."""
    annotated: Tensor | None = None
    """(B, K) bool: which classes were labelled in each row; None for all. An unlabelled class may hide
    in the background, so a softmax loss adds its probability to that of the background."""


LossFunction = Callable[[Tensor, Target], Tensor]
"""(logits (B, K, *S), target) -> scalar."""


class Loss(Plugin):
    """A training loss; `build` makes the function."""

    @abstractmethod
    def build(self, class_weights: Tensor | None = None) -> LossFunction:
        """Make the loss.

        Args:
            class_weights: (K,) relative weights of the classes; None for equal.
        """


losses: Registry[Loss] = Registry("loss", Loss, "pipeline.losses")
