"""Dice plus focal loss: with focus 0 it is Dice plus cross-entropy; more focus means less of easy voxels."""

import torch

from pipeline.losses.base import Target, losses


def test_without_focus_it_is_dice_ce(batch):
    logits, classes = batch
    plain = losses.parse("dice_ce").build()(logits, Target(classes))
    assert torch.allclose(losses.parse({"name": "dice_focal", "focus": 0.0}).build()(logits, Target(classes)), plain)


def test_focus_lowers_the_share_of_voxels_already_right():
    logits = torch.tensor([[[3.0, 0.0], [0.0, 0.0]]], requires_grad=True)  # one easy voxel, one undecided
    target = Target(torch.tensor([[0, 0]]))
    shares = []
    for focus in (0.0, 2.0):
        loss = losses.parse({"name": "dice_focal", "focus": focus, "dice_weight": 0}).build()(logits, target)
        gradient = torch.autograd.grad(loss, logits)[0].abs().sum(1)[0]
        shares.append(gradient[0] / gradient[1])
    assert shares[1] < 0.1 * shares[0]
