"""Segmentation: one class a voxel by softmax, or regions that overlap by a sigmoid each."""

from typing import Literal

import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.imaging.labels import IGNORE, Labels
from pipeline.losses.base import Loss, Target, losses
from pipeline.metrics.base import Metric, metrics
from pipeline.tasks.base import Task, tasks


@tasks.register
class Segmentation(Task):
    """Say the class of every voxel.

    Where the labels name regions, the logits' channels are these, each a yes or no; else they are the
    classes, background first, of which one is right.
    """

    name: Literal["segmentation"] = "segmentation"

    def class_names(self, labels: Labels, class_names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the regions where there are any, else the classes of the label volumes with the background.

        Raises:
            ConfigError: the labels name nothing but background.
        """
        if not labels.foreground:
            raise ConfigError(
                f"labels: found {dict(labels.values)}; expected at least one class beside the background. "
                "Name the values of the label volumes, e.g. labels: {0: background, 1: liver}."
            )
        return tuple(labels.regions) or labels.classes

    def target(self, truth: Tensor, labels: Labels, annotated: Tensor | None) -> Target:
        """Turn class indices (B, D, H, W) uint8, 255 ignored, into what the loss compares with."""
        if not labels.regions:
            return Target(truth.long(), annotated=annotated)
        table = _membership(labels, truth.device)
        lookup = torch.zeros(256, len(table), dtype=torch.float32, device=truth.device)
        lookup[: table.shape[1]] = table.T
        members = lookup[truth.long()].movedim(-1, 1)
        return Target(None, members, valid=truth != IGNORE, annotated=annotated)

    def decode(self, logits: Tensor, labels: Labels) -> Tensor:
        """Turn logits (B, K, D, H, W) into class indices (B, D, H, W) uint8.

        From regions, the class whose yes and no for each region are the most probable together: the sum of the
        logits of the regions that it is in, 0 for none. Of classes in the same regions it is the first.
        """
        if labels.regions:
            logits = torch.einsum("kc,bk...->bc...", _membership(labels, logits.device), logits.float())
        return logits.argmax(1).to(torch.uint8)

    def default_loss(self) -> Loss:
        """Return Dice plus cross-entropy."""
        return losses.parse("dice_ce")

    def default_metrics(self) -> tuple[Metric, ...]:
        """Return Dice, HD95 and NSD at 2 mm."""
        return tuple(metrics.parse(each) for each in ("dice", "hd95", {"name": "nsd", "tolerance_mm": 2.0}))


def _membership(labels: Labels, device: torch.device) -> Tensor:
    """Return (regions, classes) of 0 and 1: which class is in which region."""
    rows = [[float(name in members) for name in labels.classes] for members in labels.regions.values()]
    return torch.tensor(rows, device=device)
