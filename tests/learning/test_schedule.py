"""Schedules against their formulas and torch's own; optimisers against a hand-made one."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from pipeline.learning.options import TrainOptions
from pipeline.learning.schedule import SGD, AdamW, Constant, Cosine, OptimizerField, Polynomial, ScheduleField


def test_polynomial_is_that_of_nnunet() -> None:
    found = [Polynomial().factor(step, 1000) for step in (0, 250, 999)]
    assert found == pytest.approx([1.0, 0.75**0.9, 0.001**0.9])


def test_cosine_is_that_of_torch() -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
    for step in range(40):
        assert Cosine().factor(step, 40) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize("kind", [Polynomial, Cosine, Constant])
def test_warm_up_rises_linearly_to_the_full_rate(kind: type[Polynomial | Cosine | Constant]) -> None:
    schedule = kind(warmup_steps=4)
    assert [schedule.factor(step, 100) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    factors = [schedule.factor(step, 100) for step in range(4, 100)]
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] > 0, "each step counts"


@pytest.mark.parametrize("kind", [Polynomial, Cosine, Constant])
def test_while_the_length_is_unknown_only_the_warm_up_counts(kind: type[Polynomial | Cosine | Constant]) -> None:
    assert [kind(warmup_steps=2).factor(step, None) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("total", [0, 1, 3])
def test_training_shorter_than_its_warm_up(total: int) -> None:
    assert Polynomial(warmup_steps=5).factor(2, total) == pytest.approx(0.6)
    assert Polynomial(warmup_steps=5).factor(7, total) == 0.0


def test_adamw_step_by_its_formula() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, with bias correction."""
    module = nn.Conv3d(1, 2, 3)
    start = module.weight.detach().clone()
    options = AdamW(rate=0.01, weight_decay=0.1, betas=(0.8, 0.95))
    optimizer = options.build(module)
    mean, square = torch.zeros_like(start), torch.zeros_like(start)
    expected = start.clone()
    for step in range(1, 4):
        gradient = torch.randn(start.shape)
        module.weight.grad = gradient.clone()
        optimizer.step()
        mean, square = 0.8 * mean + 0.2 * gradient, 0.95 * square + 0.05 * gradient**2
        expected *= 1 - 0.01 * 0.1
        expected -= 0.01 * (mean / (1 - 0.8**step)) / ((square / (1 - 0.95**step)).sqrt() + 1e-8)
    assert torch.allclose(module.weight, expected, atol=1e-6)


def test_sgd_step_by_its_formula() -> None:
    """Nesterov's momentum as torch and nnU-Net have it."""
    module = nn.Conv3d(1, 2, 3)
    expected, momentum = module.weight.detach().clone(), torch.zeros_like(module.weight)
    optimizer = SGD(rate=0.1, weight_decay=0.01, momentum=0.9).build(module)
    for _ in range(3):
        gradient = torch.randn(expected.shape)
        module.weight.grad = gradient.clone()
        optimizer.step()
        decayed = gradient + 0.01 * expected
        momentum = 0.9 * momentum + decayed
        expected = expected - 0.1 * (decayed + 0.9 * momentum)
    assert torch.allclose(module.weight, expected, atol=1e-6)


def test_decay_leaves_biases_norms_and_frozen_weights_alone() -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Conv3d(2, 2, 1))
    module[2].weight.requires_grad_(False)
    decayed, plain = AdamW(weight_decay=0.5).build(module).param_groups
    assert decayed["weight_decay"] == 0.5
    assert [tuple(weight.shape) for weight in decayed["params"]] == [(2, 1, 3, 3, 3)]
    assert plain["weight_decay"] == 0.0
    assert len(plain["params"]) == 4


def test_sgd_without_momentum_has_no_nesterov() -> None:
    assert SGD(momentum=0.0).build(nn.Linear(2, 2)).param_groups[0]["nesterov"] is False


def test_unions_are_chosen_by_name_bare_or_with_options() -> None:
    assert TrainOptions(optimizer="sgd", schedule={"name": "cosine", "warmup_steps": 7}) == TrainOptions(
        optimizer=SGD(), schedule=Cosine(warmup_steps=7)
    )
    assert TypeAdapter(OptimizerField).validate_python({"name": "adamw", "rate": 1e-4}).rate == 1e-4
    with pytest.raises(ValidationError, match="polynomial"):
        TypeAdapter(ScheduleField).validate_python("staircase")
    with pytest.raises(ValidationError, match="momentum"):
        TypeAdapter(OptimizerField).validate_python({"name": "adamw", "momentum": 0.9})


def test_options_survive_json() -> None:
    options = TrainOptions(optimizer="sgd", schedule="constant", max_minutes=3, epochs=None, freeze=("a.*",))
    assert TrainOptions.model_validate_json(options.model_dump_json()) == options


def test_training_without_an_end_is_refused() -> None:
    with pytest.raises(ValidationError, match="never ends"):
        TrainOptions(epochs=None)
