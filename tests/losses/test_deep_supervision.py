"""Losses over several levels: weights, and targets picked as torch's nearest interpolation does."""

import pytest
import torch
from torch.nn import functional

from pipeline.losses.base import Target, losses
from pipeline.losses.deep_supervision import deep_supervision, shrink


@pytest.mark.parametrize("size", [(4, 4, 4), (8, 4, 2), (3, 5, 7), (8, 8, 8)])
def test_targets_shrink_as_nearest_interpolation(size):
    classes = torch.randint(0, 5, (2, 8, 8, 8))
    members = torch.randint(0, 2, (2, 3, 8, 8, 8)).float()
    small = shrink(Target(classes, valid=classes > 1), size)
    expected = functional.interpolate(classes[:, None].float(), size, mode="nearest")[:, 0].long()
    assert torch.equal(small.classes, expected)
    assert torch.equal(small.valid, expected > 1)
    small = shrink(Target(None, members, annotated=torch.ones(2, 3)), size)
    assert torch.equal(small.members, functional.interpolate(members, size, mode="nearest"))
    assert small.annotated.shape == (2, 3)


def test_levels_weigh_half_of_the_one_before():
    classes = torch.randint(0, 3, (2, 8, 8, 8))
    levels = [torch.randn(2, 3, side, side, side) for side in (8, 4, 2)]
    plain = losses.parse("dice_ce").build()
    expected = sum(
        weight * plain(level, shrink(Target(classes), tuple(level.shape[2:])))
        for weight, level in zip((4 / 7, 2 / 7, 1 / 7), levels, strict=True)
    )
    assert torch.allclose(deep_supervision(plain)(levels, Target(classes)), expected)
    assert deep_supervision(plain)(levels[0], Target(classes)) == plain(levels[0], Target(classes))


def test_whole_volume_logits_pass_through():
    loss = deep_supervision(losses.parse("cross_entropy").build())
    logits, classes = torch.randn(4, 3), torch.tensor([0, 1, 2, 2])
    assert torch.allclose(loss([logits, logits], Target(classes)), functional.cross_entropy(logits, classes))
