"""How sure the models are of each class: the mean probability of the voxels that are given to it.

Letters of a shape: K classes; D H W the working grid; N voxels of a piece.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.imaging.confidence import sum_probabilities
from pipeline.learning.precision import check_finite
from pipeline.learning.sliding_window import Slab
from pipeline.learning.step_clock import StepClock

_PIECE_VALUES = 1 << 24
"""Logits that are looked at together where they have to be copied."""

Sums = tuple[NDArray[np.float64], NDArray[np.int64]]
"""Of the probabilities of the voxels of each class, and how many they are; (K,) both."""


class Confidence:
    """Sums up probabilities while slabs of logits pass by.

    Of a class: mean over the voxels of the working grid whose strongest class it is of
    max_k softmax(logits)_k = 1 / sum_k exp(logit_k - logit_max). Of a region: mean of sigmoid(logit) over the voxels
    where it is above 1/2. Logits are the mean over models and mirror images; post-processing comes later.

    Args:
        names: What the channels of the logits say.
        exclusive: One class a voxel, the first being the background, which is left out; else regions.
        case_id: Named in errors.
    """

    def __init__(self, names: Sequence[str], *, exclusive: bool, case_id: str = "volume") -> None:
        self.names, self.exclusive, self.case_id = tuple(names), exclusive, case_id
        self._sums = np.zeros(len(self.names))
        self._counts = np.zeros(len(self.names), np.int64)

    def watching(self, slabs: Iterable[Slab], clock: StepClock) -> Iterator[Slab]:
        """Hand slabs on after a look at each."""
        for slab in slabs:
            with clock("confidence"):
                self.take(slab.logits)
            yield slab

    def take(self, logits_KDHW: Tensor) -> None:
        """Take in the logits of further voxels, some rows at a time.

        Raises:
            ModelError: some are no finite numbers.
        """
        is_read_in_place = self.exclusive and logits_KDHW.is_contiguous() and logits_KDHW.dtype == torch.float32
        limit = logits_KDHW.numel() if is_read_in_place and logits_KDHW.device.type == "cpu" else _PIECE_VALUES
        rows = max(1, limit * logits_KDHW.shape[1] // max(1, logits_KDHW.numel()))
        for piece in torch.split(logits_KDHW, rows, dim=1):
            values = piece.float()
            check_finite(values, self.case_id)
            sums, counts = self._sums_of(values)
            self._sums += sums
            self._counts += counts

    def means(self) -> dict[str, float]:
        """Return name -> mean probability, for what has at least one voxel."""
        found = zip(self.names, self._sums.tolist(), self._counts.tolist(), strict=True)
        return {name: total / count for name, total, count in found if count}

    def _sums_of(self, logits_KDHW: Tensor) -> Sums:
        if not self.exclusive:
            inside = [logits_N[logits_N > 0].sigmoid() for logits_N in logits_KDHW.flatten(1)]
            return np.array([float(one.double().sum()) for one in inside]), np.array([one.numel() for one in inside])
        if logits_KDHW.device.type == "cpu":
            return sum_probabilities(logits_KDHW.numpy())
        return _sums_in_torch(logits_KDHW.flatten(1))


def _sums_in_torch(logits_KN: Tensor) -> Sums:
    """Do in torch what `imaging.confidence.sum_probabilities` does."""
    highest, best = logits_KN.max(0)
    where, count = best.nonzero()[:, 0], len(logits_KN)
    classes = best[where].cpu().numpy()
    shares = logits_KN.index_select(1, where).sub_(highest[where]).exp_().sum(0).reciprocal_()
    sums = np.bincount(classes, shares.cpu().numpy(), minlength=count)
    return sums.astype(np.float64), np.bincount(classes, minlength=count).astype(np.int64)
