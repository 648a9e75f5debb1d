"""Sums of the probability of the strongest class over the voxels that it has, from logits, compiled."""

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.compiled import compiled
from pipeline.imaging.kernels import in_slices, strongest_slices

_NOTHING = np.float32(-20)
"""A logit that lies so far below the strongest adds less than 3e-9 to a sum of 1 or more."""


def sum_probabilities(
    logits: NDArray[np.float32], threads: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum max_k softmax(logits)_k = 1 / sum_k exp(logit_k - logit_max) by strongest class, the background left out.

    Args:
        logits: (K, D, H, W), K <= 255, class 0 the background; read in place where contiguous.
        threads: One a core where None, but one in a worker process; the sums do not depend on it.

    Returns:
        Sum and number of voxels for each of the K classes; 0 for the background.
    """
    logits = np.ascontiguousarray(logits, np.float32)
    winners = np.empty(logits.shape[1:], np.uint8)
    sums = np.zeros((len(winners), len(logits)))
    counts = np.zeros(sums.shape, np.int64)

    def work(first: int, last: int) -> None:
        strongest_slices(logits, winners, first, last)
        _sum_slices(logits, winners, sums, counts, first, last)

    in_slices(work, len(winners), threads)
    return sums.sum(0), counts.sum(0)


@compiled()
def _sum_slices(logits, winners, sums, counts, first, last):  # type: ignore[no-untyped-def]
    """Fill the rows `first` to before `last` of `sums` and `counts` (D, K)."""
    width = winners.shape[2]
    where, classes = np.empty(width, np.uint32), np.empty(width, np.uint8)
    best, total = np.empty(width, np.float32), np.empty(width, np.float32)
    for d in range(first, last):
        for h in range(winners.shape[1]):
            found = 0
            for w in range(width):
                k = winners[d, h, w]
                if k != 0:
                    where[found], classes[found], best[found], total[found] = w, k, logits[k, d, h, w], 0
                    found += 1
            if found == 0:
                continue
            for k in range(logits.shape[0]):
                row = logits[k, d, h]
                for i in range(found):
                    below = row[where[i]] - best[i]
                    if below > _NOTHING:
                        total[i] += np.exp(below)
            for i in range(found):
                sums[d, classes[i]] += 1 / total[i]
                counts[d, classes[i]] += 1
