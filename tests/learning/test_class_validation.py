"""Validation of whole volumes: right and wrong networks, windows of larger volumes, several labels."""

import math

import pytest
import torch
from torch import nn

from pipeline.imaging.labels import Labels
from pipeline.learning.class_validation import class_validation
from pipeline.tasks.classification import Classification
from tests.learning.blocks import SIDE, block_cases, patch_cases_of

NAMES = ("a", "b", "c")


class ByMean(nn.Module):
    """Tells the class from the mean of the volume, as these were made."""

    def __init__(self, sign=1.0):
        super().__init__()
        self.sign = sign

    def forward(self, x):
        level = (x.mean(dim=(1, 2, 3, 4)) + 1) / 2 - 0.25
        return -self.sign * 400 * (level[:, None] - torch.tensor([0.0, 0.15, 0.3])) ** 2


def figures(cases, module, window=(SIDE,) * 3, task=None):
    return class_validation(cases, task or Classification(), Labels(), NAMES, window, lambda net, x: net(x))(module)


@pytest.fixture
def cases(tmp_path):
    return patch_cases_of(block_cases(tmp_path))


def test_a_network_that_knows_is_right(cases):
    found = figures(cases, ByMean())
    assert found["accuracy"] == found["balanced_accuracy"] == found["auroc"] == 1
    assert -0.5 < found["log_likelihood"] < 0


def test_a_network_that_is_wrong_is_found_out(cases):
    assert figures(cases, ByMean(-1.0))["accuracy"] < 0.4


def test_a_network_that_says_nothing_is_at_chance(cases):
    found = figures(cases, nn.Sequential(nn.Flatten(), nn.Linear(SIDE**3, 3).requires_grad_(False).apply(_zero)))
    assert found["auroc"] == 0.5
    assert found["log_likelihood"] == pytest.approx(-math.log(3), abs=1e-5)


def test_larger_volumes_are_judged_by_their_windows(cases):
    assert figures(cases, ByMean(), window=(4, 4, 4))["accuracy"] > 0.8


def test_several_labels_are_each_a_yes_or_no(cases):
    found = figures(cases, ByMean(), task=Classification(multi_label=True))
    assert set(found) == {"accuracy", "balanced_accuracy", "auroc", "log_likelihood"}
    assert found["log_likelihood"] < 0


def _zero(layer):
    if isinstance(layer, nn.Linear):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
