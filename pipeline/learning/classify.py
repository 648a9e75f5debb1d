"""Many whole small volumes through trained networks at once: the probabilities of their classes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.imaging.block_store import BlockCase
from pipeline.imaging.normalise import window
from pipeline.learning.mirror_images import mirrored_classes
from pipeline.learning.precision import autocast, check_finite, choose_layout
from pipeline.learning.predictor import LoadedModel, Predictor

_ROWS = 256
"""Volumes in one forward pass."""


def classify_blocks(
    predictor: Predictor, cases: Sequence[BlockCase], advance: Callable[[int], None] | None = None
) -> NDArray[np.float64]:
    """Return the probabilities (N, K) of volumes that are each one window of the network.

    The same as `Predictor.predict_prepared` of each, to rounding: models are averaged as logits.

    Args:
        predictor: Models and options.
        cases: Volumes of the size of the recipe's window.
        advance: Called with the number of volumes that were just done.
    """
    found = []
    for first in range(0, len(cases), _ROWS):
        part = cases[first : first + _ROWS]
        with torch.inference_mode():
            logits_BK = torch.stack([_forward(predictor, model, part) for model in predictor.models]).mean(0)
        for case, logits_K in zip(part, logits_BK, strict=True):
            check_finite(logits_K, case.case_id)
        found.append(predictor.recipe.task.decode(logits_BK, predictor.recipe.labels).double().numpy())
        if advance is not None:
            advance(len(part))
    return np.concatenate(found) if found else np.empty((0, len(predictor.recipe.class_names)))


def fits_one_window(predictor: Predictor, case: BlockCase) -> bool:
    """Say whether a volume is exactly one window of the network."""
    return case.shape == predictor.recipe.patch_size


def _forward(predictor: Predictor, model: LoadedModel, cases: Sequence[BlockCase]) -> Tensor:
    """Return logits (B, K) float32 on the CPU."""
    images = torch.from_numpy(np.stack([_normalised(model, case) for case in cases])).to(predictor.device)
    images = images.contiguous(memory_format=choose_layout("auto", predictor.precision, predictor.device))

    def forward(windows_BCDHW: Tensor) -> Tensor:
        with autocast(predictor.precision, predictor.device):
            logits: Tensor = model.module(windows_BCDHW)
        return logits.float()

    axes = ["DHW".index(axis) for axis in predictor.options.mirror]
    return mirrored_classes(forward, axes, predictor.swaps)(images).cpu()


def _normalised(model: LoadedModel, case: BlockCase) -> NDArray[np.float32]:
    raw = case.read((0, 0, 0), case.shape)
    pairs = zip(model.recipe.normalise, case.meta.stats, raw, strict=True)
    return np.stack([window(one, stats).apply(channel) for one, stats, channel in pairs])
