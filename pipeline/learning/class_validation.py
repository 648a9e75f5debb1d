"""How well a network names whole volumes that it was not trained on, during training."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.imaging.block_store import BlockCase
from pipeline.imaging.labels import Labels
from pipeline.learning.patches import PatchCase
from pipeline.learning.sliding_window import Box, Member, average, plan_windows
from pipeline.learning.volumes import as_tensor
from pipeline.metrics.base import ScoreTable
from pipeline.metrics.classification import Accuracy, Auroc, BalancedAccuracy
from pipeline.tasks.base import Task

_ROWS = 256
"""Volumes in one forward pass."""
_LEAST = 1e-7


def class_validation(
    cases: Sequence[PatchCase],
    task: Task,
    labels: Labels,
    class_names: Sequence[str],
    window: tuple[int, int, int],
    forward: Callable[[nn.Module, Tensor], Tensor],
) -> Callable[[nn.Module], dict[str, float]]:
    """Return a function that scores a network by the classes of whole volumes.

    Args:
        cases: Validation cases of the fold, with their classes.
        task: Turns logits into probabilities.
        labels: Of masks; not used.
        class_names: Channels of the logits.
        window: Size (D, H, W); a larger volume is judged by the mean logits of the windows that cover it.
        forward: (network, normalised windows (B, C, D, H, W)) -> float logits, in the training's precision.

    Returns:
        Network -> `accuracy`, `balanced_accuracy`, `auroc`, `log_likelihood`, `log_likelihood` being the mean over
        cases of the logarithm of the true class's probability.
    """
    truth = np.stack([case.classes for case in cases if case.classes is not None]).astype(bool)

    def validate(module: nn.Module) -> dict[str, float]:
        logits = torch.cat(list(_logits(cases, window, lambda images: forward(module, images))))
        probabilities = task.decode(logits, labels).double().numpy()
        is_exclusive = task.is_exclusive
        table = ScoreTable(probabilities, truth, tuple(class_names), is_exclusive)
        figures = {}
        for metric in (Accuracy(), BalancedAccuracy(), Auroc()):
            found = metric.score(table)
            figures[metric.name] = found[metric.name]
        return figures | {"log_likelihood": _log_likelihood(probabilities, truth, exclusive=is_exclusive)}

    return validate


def _logits(
    cases: Sequence[PatchCase], window: tuple[int, int, int], forward: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """Yield logits (B, K), in the order of the cases: many whole volumes at once, or one by its windows."""
    if all(isinstance(case.voxels, BlockCase) and case.voxels.shape == window for case in cases):
        for first in range(0, len(cases), _ROWS):
            yield forward(torch.stack([as_tensor(case) for case in cases[first : first + _ROWS]])).cpu()
        return
    for case in cases:
        grid = plan_windows(case.voxels.shape, window, 0.25)
        whole, background = as_tensor(case), tuple(one.background for one in case.windows)
        member = Member(partial(_part, whole), forward, background)
        yield average(grid, [member], batch=4)[None]


def _log_likelihood(probabilities: NDArray[np.float64], truth: NDArray[np.bool_], *, exclusive: bool) -> float:
    yes = np.log(np.maximum(probabilities, _LEAST))
    if exclusive:
        return float(yes[truth].mean())
    no = np.log(np.maximum(1 - probabilities, _LEAST))
    return float(np.where(truth, yes, no).mean())


def _part(whole: Tensor, box: Box) -> Tensor:
    return whole[(slice(None), *box)]
