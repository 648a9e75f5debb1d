"""What learns: a network with its optimiser, gradient scaler and mean weights; one update is its verb."""

import copy
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.errors import PipelineError, StoppedError
from pipeline.guard import blame
from pipeline.learning.options import TrainOptions
from pipeline.learning.precision import (
    autocast,
    choose_layout,
    forbidden_operation,
    ran_out_of_memory,
    repeat_exactly,
    resolve_precision,
)
from pipeline.learning.weights import copy_weights, freeze

B = TypeVar("B")

Forward = Callable[[Tensor], Any]
"""Images (B, C, D, H, W) on any device -> what the network says of them, in float32: moved, laid out and run in
the chosen precision. A list where the network gives one (deep supervision)."""

_SMALLEST_SCALE = 1.0
"""Scale of fp16 losses below which gradients that overflow are no longer a matter of scale."""


@dataclass(frozen=True)
class Update:
    """What one update of the weights was like."""

    loss: float
    gradient_norm: float
    """Before clipping."""
    overflowed: bool
    """The scaled fp16 gradient had no finite value: the step was left out, and the scale halved, as planned."""


class Learner(Generic[B]):
    """A network in training.

    Args:
        module: Network with its first weights; moved to `device`, laid out and frozen in place.
        loss_of: (forward, batch) -> scalar loss; see `Forward`.
        options: Of the training.
        device: Where to compute.
    """

    def __init__(
        self, module: nn.Module, loss_of: Callable[[Forward, B], Tensor], options: TrainOptions, device: torch.device
    ) -> None:
        self.loss_of, self.options, self.device = loss_of, options, device
        self.precision = resolve_precision(options.precision, device)
        self.layout = choose_layout(options.channels_last, self.precision, device)
        repeat_exactly(device, deterministic=options.deterministic)
        freeze(module, options.freeze)
        self.module = module.to(device, memory_format=self.layout)  # type: ignore[call-overload]
        self.trained = [weight for weight in module.parameters() if weight.requires_grad]
        self.optimizer = options.optimizer.build(module)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.mean = copy.deepcopy(module).requires_grad_(False) if options.ema else None
        if options.compile:
            self.module.compile()

    @property
    def best_module(self) -> nn.Module:
        """The network to validate and to use: with the mean weights where these are kept."""
        return self.module if self.mean is None else self.mean

    def update(self, batches: Sequence[B], factor: float, step: int) -> Update:
        """Change the weights once.

        Args:
            batches: Their gradients are averaged.
            factor: Share of the optimiser's rate.
            step: Counted from 0.

        Raises:
            ModelError: an operation of the network has no deterministic kernel, and one is asked for.
            StoppedError: the memory does not suffice.
        """
        self._prepare(factor)
        try:
            loss = torch.stack([self._backward(batch, len(batches)) for batch in batches]).sum()
        except PipelineError:
            raise
        except Exception as error:
            explained = _explained(error, self.module)
            raise explained from (error if explained is not error else None)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([weight.grad for weight in self.trained if weight.grad is not None])
        if self.options.gradient_clip is not None:
            nn.utils.clip_grads_with_norm_(self.trained, self.options.gradient_clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._update_mean(step)
        loss_value, norm_value = torch.stack([loss, norm.to(loss)]).tolist()  # the one wait for the device
        tolerant = self.scaler.is_enabled() and self.scaler.get_scale() >= _SMALLEST_SCALE
        return Update(loss_value, norm_value, overflowed=tolerant and not math.isfinite(norm_value))

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that a checkpoint needs, by name."""
        found = {f"module.{name}": tensor for name, tensor in self.module.state_dict().items()}
        if self.mean is not None:
            found |= {f"mean.{name}": tensor for name, tensor in self.mean.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            kept = {name: value for name, value in moments.items() if isinstance(value, Tensor)}
            found |= {f"optimizer.{index}.{name}": value for name, value in kept.items()}
        return found | {f"scaler.{name}": torch.tensor(value) for name, value in self.scaler.state_dict().items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go back to what `tensors` returned.

        Raises:
            ModelError: they are those of another network.
        """
        copy_weights(self.module, _below("module", tensors), "checkpoint")
        if self.mean is not None:
            copy_weights(self.mean, _below("mean", tensors), "checkpoint")
        self._load_moments(_below("optimizer", tensors))
        scaler = {name: value.item() for name, value in _below("scaler", tensors).items()}
        if scaler and self.scaler.is_enabled():
            self.scaler.load_state_dict(scaler)

    def _prepare(self, factor: float) -> None:
        self.module.train()
        for part in self.module.modules():
            own = list(part.parameters(recurse=False))
            if own and not any(weight.requires_grad for weight in own):
                part.eval()  # or the running statistics of a frozen batch norm would go on changing
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.optimizer.rate * factor
        self.optimizer.zero_grad(set_to_none=True)

    def _backward(self, batch: B, count: int) -> Tensor:
        loss = self.loss_of(self._forward, batch) / count
        torch.autograd.backward(self.scaler.scale(loss))
        return loss.detach().float()

    def _forward(self, image: Tensor) -> Any:
        image = image.to(self.device, memory_format=self.layout, non_blocking=True)
        with autocast(self.precision, self.device):
            logits = self.module(image)
        # The loss is computed in full: sums over a patch would lose their last digits in 8 or 11 bits.
        return logits.float() if isinstance(logits, Tensor) else [level.float() for level in logits]

    def _update_mean(self, step: int) -> None:
        if self.mean is None or self.options.ema is None:
            return
        decay = min(self.options.ema, (1 + step) / (10 + step))  # else the first weights would stay in it for long
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self.mean.parameters()), [weight.detach() for weight in self.module.parameters()], 0)
        with torch.no_grad():
            for mean, current in zip(self.mean.buffers(), self.module.buffers(), strict=True):
                mean.copy_(current)

    def _load_moments(self, moments: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in moments.items():
            index, key = name.split(".", 1)
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        for weight, values in self.optimizer.state.items():
            for key, value in values.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    # Files are row-major; fused optimisers walk weight and moment side by side in memory.
                    values[key] = torch.empty_like(weight).copy_(value)


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def _explained(error: Exception, module: nn.Module) -> Exception:
    """Return an error with a remedy where there is one, else `error` itself."""
    if ran_out_of_memory(error):
        first_line = str(error).splitlines()[0]
        return StoppedError(
            f"train: out of memory: {first_line}. Lower train.batch_size (and raise train.accumulate by as much), "
            "sample.patch_size or the features of the network."
        )
    told = forbidden_operation(error, module) if isinstance(error, RuntimeError) else None
    return told or (blame(f"network {_place(module)}: forward", error) if _is_of_user(error, module) else error)


def _is_of_user(error: Exception, module: nn.Module) -> bool:
    """Say whether an error came out of a network's own code that is not of this package."""
    if type(module).__module__.split(".")[0] in ("pipeline", "torch", "monai"):
        return False
    file = getattr(sys.modules.get(type(module).__module__), "__file__", None)
    return any(frame.filename == file for frame in traceback.extract_tb(error.__traceback__))


def _place(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
