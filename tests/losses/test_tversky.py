"""Tversky loss: what its two weights ask for."""

import torch

from pipeline.losses.base import Target, losses


def test_missing_costs_more_than_finding_too_much():
    truth = torch.zeros(1, 10, dtype=torch.long)
    truth[0, :4] = 1
    more, less = truth.clone(), truth.clone()
    more[0, 4:6], less[0, :2] = 1, 0
    loss = losses.parse({"name": "tversky", "false_positive": 0.2, "false_negative": 0.8}).build()

    def of(guess):
        return loss(50.0 * torch.nn.functional.one_hot(guess, 2).movedim(-1, 1), Target(truth))

    assert torch.allclose(of(less), torch.tensor(1 - 2 / (2 + 0.8 * 2)), atol=1e-4)
    assert torch.allclose(of(more), torch.tensor(1 - 4 / (4 + 0.2 * 2)), atol=1e-4)


def test_cross_entropy_beside_it(batch):
    logits, classes = batch
    plain, both, entropy = (
        losses.parse(options).build()(logits, Target(classes))
        for options in ("tversky", {"name": "tversky", "ce_weight": 2.0}, "cross_entropy")
    )
    assert torch.allclose(both, plain + 2 * entropy)
