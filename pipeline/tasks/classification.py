"""Classification: which class a whole volume is of, or which ones."""

from typing import ClassVar, Literal

from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.imaging.labels import Labels
from pipeline.losses.base import Loss, Target, losses
from pipeline.metrics.base import Metric, metrics
from pipeline.tasks.base import Task, tasks


@tasks.register
class Classification(Task):
    """Say the class of a whole volume, as a probability for each class."""

    reads_masks: ClassVar[bool] = False
    default_score: ClassVar[str] = "accuracy"

    name: Literal["classification"] = "classification"
    multi_label: bool = False
    """Whether a volume may have several classes, or none: a sigmoid each instead of one softmax."""

    @property
    def is_exclusive(self) -> bool:
        """Whether a volume has exactly one class."""
        return not self.multi_label

    def has_truth(self, classes: tuple[str, ...]) -> bool:
        """Say whether a case can be learned from: where there may be several classes, no class is a truth as well."""
        return self.multi_label or bool(classes)

    def class_names(self, labels: Labels, class_names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the classes of the data set.

        Raises:
            ConfigError: it has too few to tell apart.
        """
        fewest = 1 if self.multi_label else 2
        if len(class_names) < fewest:
            raise ConfigError(
                f"task classification: the data set has {len(class_names)} classes of whole volumes; expected at least "
                f"{fewest}. Fill in the manifest's column 'class', or choose the task segmentation."
            )
        return class_names

    def target(self, truth: Tensor, labels: Labels, annotated: Tensor | None) -> Target:
        """Turn (B, K) of 0 and 1 into what the loss compares with."""
        if self.multi_label:
            return Target(None, truth.float(), annotated=annotated)
        return Target(truth.argmax(1))

    def decode(self, logits: Tensor, labels: Labels) -> Tensor:
        """Turn logits (B, K) into probabilities (B, K) float32."""
        return logits.float().sigmoid() if self.multi_label else logits.float().softmax(1)

    def default_loss(self) -> Loss:
        """Return cross-entropy."""
        return losses.parse("cross_entropy")

    def default_metrics(self) -> tuple[Metric, ...]:
        """Return accuracy, balanced accuracy, AUROC, AUPRC, figures of each class, Brier score and ECE."""
        names = ("accuracy", "balanced_accuracy", "auroc", "auprc", "sensitivity", "specificity", "f1", "brier", "ece")
        return tuple(metrics.parse(name) for name in names)
