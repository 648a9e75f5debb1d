"""Logits beside the truth, with every mask applied: what all losses look at.

Shapes: B rows of a batch, K classes (channels of the logits), N voxels of one row (1 for whole volumes).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.imaging.labels import IGNORE
from pipeline.losses.base import Target

IMPOSSIBLE = -1e9
"""Logit of a class that cannot be; finite, so that 0 times its log-probability is 0."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Logits and truth side by side, in float32, with what does not count marked.

    logits: (B, K, N); of exclusive classes with the unlabelled ones merged into the background.
    log_p: (B, K, N) log-probability of each class: log-softmax, for overlapping classes log-sigmoid.
    classes: (B, N) int64 true class, 0 where the voxel does not count; None for overlapping classes.
    members: (B, K, N) of 0 and 1; None for exclusive classes.
    counted: (B, 1, N) of 0 and 1: where the loss counts; None for everywhere.
    labelled: (B, K) of 0 and 1: which classes were labelled (the background always); None for all.
    """

    logits: Tensor
    log_p: Tensor
    classes: Tensor | None
    members: Tensor | None
    counted: Tensor | None
    labelled: Tensor | None


def compare(logits: Tensor, target: Target) -> Comparison:
    """Put logits (B, K, *S) of any float type beside their target.

    A class not labelled in a row may hide in its background: for exclusive classes its probability is
    added to that of the background (marginal likelihood; Shi et al. 2021), as which its voxels count, if
    the label has some all the same; for overlapping classes it counts nowhere in that row.
    """
    flat = logits.reshape(*logits.shape[:2], -1).to(torch.float32, memory_format=torch.contiguous_format)
    if target.classes is None:
        return _overlapping(flat, target)
    labelled = target.annotated
    if labelled is not None:
        labelled = labelled.bool().clone()
        labelled[:, 0] = True
        flat = merge_unlabelled(flat, labelled)
    classes = target.classes.reshape(len(flat), -1)
    counted = _counted(target.valid, classes)
    if counted is not None:
        classes = classes.masked_fill(counted[:, 0] == 0, 0)
    if labelled is not None:
        # A voxel of a class that its row does not label would else cost as much as `IMPOSSIBLE` says.
        classes = classes.masked_fill(~labelled.gather(1, classes), 0)
    return Comparison(flat, functional.log_softmax(flat, 1), classes, None, counted, _as_float(labelled))


def merge_unlabelled(logits: Tensor, labelled: Tensor) -> Tensor:
    """Give the background (channel 0) of (B, K, N) the probability of the classes not labelled in the row.

    Softmax turns the log-sum-exp of their logits and the background's into the sum of their probabilities.
    """
    hidden = ~labelled[:, :, None]
    merged = hidden.clone()
    merged[:, 0] = True
    background = logits.masked_fill(~merged, IMPOSSIBLE).logsumexp(1, keepdim=True)
    return torch.cat([background, logits.masked_fill(hidden, IMPOSSIBLE)[:, 1:]], 1)


def _overlapping(logits: Tensor, target: Target) -> Comparison:
    if target.members is None:
        raise ValueError("a target needs classes or members; it has neither")
    members = target.members.reshape(logits.shape).to(torch.float32)
    counted = _counted(target.valid, None)
    return Comparison(logits, functional.logsigmoid(logits), None, members, counted, _as_float(target.annotated))


def _counted(valid: Tensor | None, classes: Tensor | None) -> Tensor | None:
    """Join both ways of saying where the loss counts, as (B, 1, N); None where it is everywhere."""
    mask = None if valid is None else valid.reshape(len(valid), -1).bool()
    if classes is not None:
        known = classes != IGNORE
        mask = known if mask is None else mask & known
    # Looking would make a GPU wait; there, masking is cheaper and gives the same numbers.
    if mask is None or (not mask.is_cuda and bool(mask.all())):
        return None
    return mask[:, None].to(torch.float32)


def _as_float(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.to(torch.float32)
