"""A loss over the logits of several levels, each compared with the target at its own resolution."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.losses.base import LossFunction, Target

Outputs = Tensor | Sequence[Tensor]
"""What a network gives: logits, or in training mode a list of them, full resolution first."""


def deep_supervision(loss: LossFunction) -> Callable[[Outputs, Target], Tensor]:
    """Make a loss that takes logits, or a list of them weighed 1, 1/2, 1/4 ... (sum 1)."""

    def weighted(outputs: Outputs, target: Target) -> Tensor:
        if isinstance(outputs, Tensor):
            return loss(outputs, target)
        weights = [0.5**level for level in range(len(outputs))]
        parts = [
            weight / sum(weights) * loss(logits, shrink(target, tuple(logits.shape[2:])))
            for weight, logits in zip(weights, outputs, strict=True)
        ]
        return torch.stack(parts).sum()

    return weighted


def shrink(target: Target, size: tuple[int, ...]) -> Target:
    """Pick the nearest voxels of a target for logits of a coarser grid, as `interpolate(mode='nearest')` does.

    Args:
        target: Of any size (D, H, W).
        size: Voxels along (D, H, W) of the logits.
    """

    def pick(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        first = values.ndim - len(size)
        for axis, side in enumerate(size, first):
            full = values.shape[axis]
            if full != side:
                index = torch.arange(side, device=values.device) * full // side
                values = values.index_select(axis, index)
        return values

    return replace(target, classes=pick(target.classes), members=pick(target.members), valid=pick(target.valid))
