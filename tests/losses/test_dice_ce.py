"""Dice plus cross-entropy against MONAI's, and its weights."""

import pytest
import torch

from pipeline.losses.base import Target, losses


@pytest.mark.parametrize("over_batch", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_equal_to_monai(batch, over_batch, background):
    from monai.losses import DiceCELoss

    logits, classes = batch
    theirs = DiceCELoss(include_background=background, to_onehot_y=True, softmax=True, batch=over_batch)
    ours = losses.parse({"name": "dice_ce", "over_batch": over_batch, "background": background}).build()
    found, expected = ours(logits, Target(classes)), theirs(logits, classes[:, None])
    assert torch.allclose(found, expected, rtol=1e-5)
    mine, gradient = torch.autograd.grad(found, logits)[0], torch.autograd.grad(expected, logits)[0]
    assert torch.allclose(mine, gradient, atol=1e-7)


def test_weights_of_the_terms(batch):
    logits, classes = batch
    target = Target(classes)
    both, dice, entropy = (
        losses.parse({"name": "dice_ce", "dice_weight": a, "ce_weight": b}).build()(logits, target)
        for a, b in ((0.5, 2.0), (1.0, 0.0), (0.0, 1.0))
    )
    assert torch.allclose(both, 0.5 * dice + 2 * entropy)
