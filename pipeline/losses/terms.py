"""The terms that losses add up: cross-entropy, focal, Dice and Tversky, over what counts.

Shapes: B rows of a batch, K classes, N voxels of one row.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.losses.comparison import Comparison

_NOTHING = 1e-8
"""Least weight to divide by, so that a batch in which nothing counts has loss 0."""


def cross_entropy(
    comparison: Comparison, class_weights: Tensor | None = None, *, smoothing: float = 0.0, focus: float = 0.0
) -> Tensor:
    """Return the weighted mean of the negative log-likelihood over counted voxels; 0 where there are none.

    Equal to `torch.nn.functional.cross_entropy`, or for overlapping classes to
    `binary_cross_entropy_with_logits`, where everything counts. It gathers on log-probabilities, since
    torch's own on volumes has no deterministic backward on CUDA.

    Args:
        comparison: Logits and truth.
        class_weights: (K,) relative weights; None for equal.
        smoothing: Share of the truth spread evenly over all labelled classes.
        focus: Exponent of focal loss (Lin 2017): voxels of probability p weigh (1 - p) ** focus.
    """
    if comparison.classes is None:
        return _binary(comparison, class_weights, smoothing, focus)
    log_p = comparison.log_p.gather(1, comparison.classes[:, None])[:, 0]
    weight = torch.ones_like(log_p) if class_weights is None else class_weights.to(log_p)[comparison.classes]
    if comparison.counted is not None:
        weight = weight * comparison.counted[:, 0]
    total = weight.sum().clamp(min=_NOTHING)
    loss = _focused(-log_p, focus)
    likelihood = (loss * weight).sum() / total
    if smoothing == 0:
        return likelihood
    return (1 - smoothing) * likelihood + smoothing * _against_uniform(comparison, class_weights) / total


def dice(
    comparison: Comparison,
    class_weights: Tensor | None = None,
    *,
    over_batch: bool = True,
    background: bool = False,
    smooth: float = 1e-5,
) -> Tensor:
    """Return 1 minus the soft Dice 2 |P T| / (|P| + |T|), averaged over classes (Milletari 2016, unsquared).

    Args:
        comparison: Logits and truth.
        class_weights: (K,) relative weights; None for equal.
        over_batch: Whether voxels of all rows are summed before the ratio is taken.
        background: Whether class 0 of exclusive classes counts.
        smooth: Added above and below; a class that is absent from both has Dice 1.
    """
    shared, predicted, true = _sums(comparison, over_batch)
    score = (2 * shared + smooth) / (predicted + true + smooth)
    return class_mean(1 - score, comparison, class_weights, background=background)


def tversky(
    comparison: Comparison,
    class_weights: Tensor | None = None,
    *,
    false_positive: float,
    false_negative: float,
    over_batch: bool = True,
    background: bool = False,
    smooth: float = 1e-5,
) -> Tensor:
    """Return 1 minus the Tversky index TP / (TP + a FP + b FN), averaged over classes (Salehi 2017)."""
    shared, predicted, true = _sums(comparison, over_batch)
    errors = false_positive * (predicted - shared) + false_negative * (true - shared)
    score = (shared + smooth) / (shared + errors + smooth)
    return class_mean(1 - score, comparison, class_weights, background=background)


def class_mean(score: Tensor, comparison: Comparison, class_weights: Tensor | None, *, background: bool) -> Tensor:
    """Average (B, K), or (1, K) where rows were summed before, over rows and labelled classes; 0 for none."""
    weight = torch.ones_like(score) if class_weights is None else class_weights.to(score).expand_as(score)
    labelled = comparison.labelled
    if labelled is not None:
        weight = weight * (labelled if len(score) == len(labelled) else labelled.amax(0, keepdim=True))
    if comparison.classes is not None and not background:
        score, weight = score[:, 1:], weight[:, 1:]
    return (score * weight).sum() / weight.sum().clamp(min=_NOTHING)


def _sums(comparison: Comparison, over_batch: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Sum p where true, p and truth over counted voxels: (B, K) each, or (1, K) over the batch."""
    p, truth = comparison.log_p.exp(), _members(comparison)
    if comparison.counted is not None:
        p, truth = p * comparison.counted, truth * comparison.counted
    sums = [(p * truth).sum(2), p.sum(2), truth.sum(2)]
    if comparison.labelled is not None:
        sums = [each * comparison.labelled for each in sums]
    shared, predicted, true = (each.sum(0, keepdim=True) if over_batch else each for each in sums)
    return shared, predicted, true


def _members(comparison: Comparison) -> Tensor:
    """Return the truth as (B, K, N) of 0 and 1."""
    if comparison.classes is None:
        assert comparison.members is not None
        return comparison.members
    # scatter takes a third of the time of comparing with each class and of casting the result
    return torch.zeros_like(comparison.log_p).scatter_(1, comparison.classes[:, None], 1.0)


def _binary(comparison: Comparison, class_weights: Tensor | None, smoothing: float, focus: float) -> Tensor:
    """Cross-entropy of overlapping classes, each a yes or no."""
    assert comparison.members is not None
    members = comparison.members
    if smoothing:
        members = members * (1 - smoothing) + 0.5 * smoothing
    loss = functional.binary_cross_entropy_with_logits(comparison.logits, members, reduction="none")
    weight = loss.new_ones(1, loss.shape[1], 1) if class_weights is None else class_weights.to(loss)[None, :, None]
    if comparison.counted is not None:
        weight = weight * comparison.counted
    if comparison.labelled is not None:
        weight = weight * comparison.labelled[:, :, None]
    return (_focused(loss, focus) * weight).sum() / weight.expand_as(loss).sum().clamp(min=_NOTHING)


def _focused(loss: Tensor, focus: float) -> Tensor:
    """Weigh -log p with (1 - p) ** focus."""
    # clamped: the slope of x ** focus is infinite at 0 where focus < 1
    return loss if focus == 0 else (-torch.expm1(-loss)).clamp(min=1e-7) ** focus * loss


def _against_uniform(comparison: Comparison, class_weights: Tensor | None) -> Tensor:
    """Sum the loss against a truth that is equally sure of every labelled class."""
    log_p = comparison.log_p
    share = log_p.new_ones(log_p.shape[:2]) if comparison.labelled is None else comparison.labelled
    share = share / share.sum(1, keepdim=True)
    if class_weights is not None:
        share = share * class_weights.to(log_p)
    loss = -(log_p * share[:, :, None])
    return (loss if comparison.counted is None else loss * comparison.counted).sum()
