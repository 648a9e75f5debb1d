"""Optimisers and learning-rate schedules: two closed unions, chosen by name in a config."""

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from torch import nn

from pipeline.plugin import Settings


class AdamW(Settings):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    rate: PositiveFloat = 1e-3
    """Highest learning rate."""
    weight_decay: NonNegativeFloat = 1e-2
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Make the optimiser of all weights that are not frozen."""
        groups = parameter_groups(module, self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.rate, betas=self.betas, fused=_can_fuse(module))


class SGD(Settings):
    """Stochastic gradient descent with (Nesterov) momentum, as nnU-Net trains."""

    name: Literal["sgd"] = "sgd"
    rate: PositiveFloat = 1e-2
    """Highest learning rate."""
    weight_decay: NonNegativeFloat = 3e-5
    momentum: float = Field(default=0.99, ge=0, lt=1)
    nesterov: bool = True

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Make the optimiser of all weights that are not frozen."""
        groups = parameter_groups(module, self.weight_decay)
        nesterov = self.nesterov and self.momentum > 0
        return torch.optim.SGD(groups, lr=self.rate, momentum=self.momentum, nesterov=nesterov, fused=_can_fuse(module))


class _Schedule(Settings):
    """A rate that is a pure function of the step: nothing to save, nothing to restore."""

    warmup_steps: NonNegativeInt = 0
    """Steps over which the rate rises linearly to its highest value."""

    def factor(self, step: int, total: int | None) -> float:
        """Return what the optimiser's rate is multiplied by.

        Args:
            step: Counted from 0.
            total: Steps of the whole training; None while that is not known yet: then only the
                warm-up counts.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if total is None:
            return 1.0
        return self._decay(min(1.0, (step - self.warmup_steps) / max(1, total - self.warmup_steps)))

    @abstractmethod
    def _decay(self, share: float) -> float:
        """Return the factor when `share` (0 to 1) of the steps after the warm-up is done."""


class Polynomial(_Schedule):
    """From 1 to 0 as (1 - share) ** power (Chen 2018, DeepLab; nnU-Net)."""

    name: Literal["polynomial"] = "polynomial"
    power: PositiveFloat = 0.9

    def _decay(self, share: float) -> float:
        return float((1.0 - share) ** self.power)


class Cosine(_Schedule):
    """From 1 to 0 along half a cosine (Loshchilov and Hutter 2017, without restarts)."""

    name: Literal["cosine"] = "cosine"

    def _decay(self, share: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * share))


class Constant(_Schedule):
    """The same rate after the warm-up."""

    name: Literal["constant"] = "constant"

    def _decay(self, share: float) -> float:
        return 1.0


def _named(value: object) -> object:
    """Let a bare name stand for a part with its defaults."""
    return {"name": value} if isinstance(value, str) else value


OptimizerField = Annotated[AdamW | SGD, Field(discriminator="name"), BeforeValidator(_named)]
ScheduleField = Annotated[Polynomial | Cosine | Constant, Field(discriminator="name"), BeforeValidator(_named)]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the weights that are trained, in two groups: with decay, and (biases, norms) without."""
    trained = [weight for weight in module.parameters() if weight.requires_grad]
    decayed = [weight for weight in trained if weight.ndim > 1]
    plain = [weight for weight in trained if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _can_fuse(module: nn.Module) -> bool:
    # One pass over weights, gradients and moments instead of several: less memory traffic, same formula.
    return all(weight.device.type in ("cpu", "cuda") and weight.is_floating_point() for weight in module.parameters())
