"""What a task is: how labels become targets and logits become predictions."""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from pipeline.imaging.labels import Labels
from pipeline.losses.base import Loss, Target
from pipeline.metrics.base import Metric
from pipeline.plugin import Plugin, Registry


class Task(Plugin):
    """What the network is trained to say."""

    reads_masks: ClassVar[bool] = True
    """Whether the truth is a label volume; else it is the classes of the whole volume."""
    default_score: ClassVar[str] = "dice"
    """Figure of the validation by which a training chooses its best weights where the config names none."""

    @property
    def is_exclusive(self) -> bool:
        """Whether exactly one class is right, be it of a voxel or of a volume."""
        return True

    def has_truth(self, classes: tuple[str, ...]) -> bool:
        """Say whether a case with these classes of the whole volume can be learned from."""
        return bool(classes)

    @abstractmethod
    def class_names(self, labels: Labels, class_names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of the logits' channels, from the label volume's or the manifest's classes."""

    @abstractmethod
    def target(self, truth: Tensor, labels: Labels, annotated: Tensor | None) -> Target:
        """Turn a batch of labels into what the loss compares with.

        Args:
            truth: Segmentation: (B, D, H, W) uint8 class indices, 255 ignored. Classification: (B, K) of 0 and 1.
            labels: Meaning of the class indices.
            annotated: (B, K) bool: classes labelled in each row; None for all.
        """

    @abstractmethod
    def decode(self, logits: Tensor, labels: Labels) -> Any:
        """Turn logits (B, K, ...) into predictions: class indices (B, D, H, W) uint8, or probabilities (B, K)."""

    @abstractmethod
    def default_loss(self) -> Loss:
        """Return the loss for a config that names none."""

    @abstractmethod
    def default_metrics(self) -> tuple[Metric, ...]:
        """Return the metrics for a config that names none."""


tasks: Registry[Task] = Registry("task", Task, "pipeline.tasks")
