"""How good a network is on cases that it was not trained on: sliding window against the prepared labels."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.imaging.labels import IGNORE, Labels
from pipeline.learning.patches import PatchCase
from pipeline.learning.sliding_window import Box, Member, plan_windows, slide
from pipeline.tasks.base import Task

Figures = dict[str, float]


def mask_validation(
    cases: Sequence[PatchCase],
    task: Task,
    labels: Labels,
    class_names: Sequence[str],
    window: tuple[int, int, int],
    forward: Callable[[nn.Module, Tensor], Tensor],
) -> Callable[[nn.Module], Figures]:
    """Return a function that scores a network by Dice on the working grid.

    The windows overlap by a quarter only: it chooses weights, and is not the figure that is reported.

    Args:
        cases: Validation cases of the fold.
        task: Turns logits into class indices.
        labels: Meaning of the indices.
        class_names: Channels of the logits.
        window: Size (D, H, W).
        forward: (network, normalised windows (B, C, D, H, W)) -> float logits, in the training's precision.

    Returns:
        Network -> `dice`, the mean over classes and cases that have the class, and `dice_<class>`.
    """

    def validate(module: nn.Module) -> Figures:
        table = np.array([_case_dice(case, module, task, labels, class_names, window, forward) for case in cases])
        means = [_mean_of_known(column) for column in table.T]
        figures = {"dice": _mean_of_known(np.array(means))}
        return figures | {f"dice_{name}": mean for name, mean in zip(labels.foreground, means, strict=True)}

    return validate


def predict_mask(
    case: PatchCase,
    module: nn.Module,
    task: Task,
    labels: Labels,
    class_names: Sequence[str],
    window: tuple[int, int, int],
    forward: Callable[[nn.Module, Tensor], Tensor],
) -> NDArray[np.uint8]:
    """Return the class indices (D, H, W) of a case on the working grid, as `mask_validation` scores them."""
    mask = np.empty(case.voxels.shape, np.uint8)
    for rows, guess in _guesses(case, module, task, labels, class_names, window, forward):
        mask[rows] = guess
    return mask


def _mean_of_known(values: NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _case_dice(
    case: PatchCase,
    module: nn.Module,
    task: Task,
    labels: Labels,
    class_names: Sequence[str],
    window: tuple[int, int, int],
    forward: Callable[[nn.Module, Tensor], Tensor],
) -> list[float]:
    """Return the Dice of each scored class; NaN where neither mask has it or it was not labelled."""
    truth = case.voxels.read_label((0, 0, 0), case.voxels.shape)
    groups = _members(labels)
    counts = np.zeros((len(groups), 3))
    for rows, guess in _guesses(case, module, task, labels, class_names, window, forward):
        counts += _overlaps(guess, truth[rows], groups)
    annotated = case.annotated
    dice = [2 * both / (one + other) if one + other else float("nan") for both, one, other in counts]
    if annotated is None:
        return dice
    known = dict(zip(class_names, annotated, strict=True))
    named = zip(labels.foreground, dice, strict=True)
    return [value if known.get(name, True) else float("nan") for name, value in named]


def _guesses(
    case: PatchCase,
    module: nn.Module,
    task: Task,
    labels: Labels,
    class_names: Sequence[str],
    window: tuple[int, int, int],
    forward: Callable[[nn.Module, Tensor], Tensor],
) -> Iterator[tuple[Box, NDArray[np.uint8]]]:
    """Predict a case, slab by slab: which part of the volume, and the class indices there."""
    grid = plan_windows(case.voxels.shape, window, 0.25)
    member = Member(
        read=lambda box: _normalised(case, box),
        forward=lambda windows: forward(module, windows),
        background=tuple(one.background for one in case.windows),
    )
    for slab in slide(grid, [member], len(class_names)):
        rows = [slice(0, side) for side in case.voxels.shape]
        rows[slab.axis] = slice(slab.start, slab.stop)
        yield (rows[0], rows[1], rows[2]), task.decode(slab.logits[None], labels)[0].numpy()


def _normalised(case: PatchCase, box: Box) -> Tensor:
    start, stop = [part.start for part in box], [part.stop for part in box]
    raw = case.voxels.read(start, stop)
    return torch.from_numpy(np.stack([one.apply(channel) for one, channel in zip(case.windows, raw, strict=True)]))


def _members(labels: Labels) -> list[tuple[int, ...]]:
    order = {name: index for index, name in enumerate(labels.classes)}
    if labels.regions:
        return [tuple(order[name] for name in members) for members in labels.regions.values()]
    return [(order[name],) for name in labels.foreground]


def _overlaps(guess: NDArray[np.uint8], truth: NDArray[np.uint8], groups: list[tuple[int, ...]]) -> NDArray[np.float64]:
    """Return (classes, 3): voxels in both, in the guess, in the truth; ignored ones in none."""
    counted = truth != IGNORE
    rows = []
    for group in groups:
        one, other = np.isin(guess, group) & counted, np.isin(truth, group)
        rows.append([np.count_nonzero(one & other), np.count_nonzero(one), np.count_nonzero(other)])
    return np.array(rows, float)
