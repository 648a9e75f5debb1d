"""Cross-entropy for whole volumes: one class of several, or several at once."""

import torch
from torch.nn import functional

from pipeline.losses.base import Target, losses


def test_one_class_a_volume():
    logits, truth = torch.randn(6, 10), torch.tensor([0, 9, 3, 255, 2, 2])
    loss = losses.parse({"name": "cross_entropy", "label_smoothing": 0.1}).build()(logits, Target(truth))
    expected = functional.cross_entropy(logits, truth, ignore_index=255, label_smoothing=0.1)
    assert torch.allclose(loss, expected)


def test_several_classes_a_volume():
    logits, truth = torch.randn(6, 10), torch.randint(0, 2, (6, 10)).float()
    known = torch.rand(6, 10) < 0.7
    loss = losses.parse("cross_entropy").build()(logits, Target(None, truth, annotated=known))
    plain = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    assert torch.allclose(loss, plain[known].mean())
