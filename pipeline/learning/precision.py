"""Number formats and memory layouts that a device computes natively, and exact repetition on a GPU."""

import math
import os
import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, ModelError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_FIRST_WITH_FP16_MATRICES = (7, 0)


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """Replace `auto` by the fastest format that the device has instructions for; never by a timing.

    CPU: bf16 with AVX512-BF16 or AMX, else fp32. CUDA: bf16 where native (compute capability 8.0),
    fp16 with tensor cores (7.0), else fp32. Others: fp32.
    """
    if precision != "auto":
        return precision
    if device.type == "cpu":
        return "bf16" if cpu_has_bf16() else "fp32"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability(device) >= _FIRST_WITH_FP16_MATRICES else "fp32"
    return "fp32"


def choose_device(name: str) -> torch.device:
    """Return the device that `auto`, `cpu`, `cuda` or `cuda:1` means: for `auto` a GPU where there is one.

    Raises:
        ConfigError: a GPU is asked for and torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ConfigError(
            f"machine.device: found {name}; torch {torch.__version__} sees {torch.cuda.device_count()} GPUs. "
            "Use cpu, or install a driver and a torch build for this GPU."
        )
    return device


def choose_precision(device: str) -> Precision:
    """Return what `auto` precision means on a device (`auto`, `cpu`, `cuda:1`)."""
    return resolve_precision("auto", choose_device(device))


def choose_layout(
    channels_last: bool | Literal["auto"], precision: Precision, device: torch.device
) -> torch.memory_format:
    """Return how the channels of a voxel lie: side by side, or (as made) one volume a channel.

    `auto`: side by side on a CPU, where it makes a convolution's step 10 to 35 % faster, and for the tensor
    cores of a GPU, that is in half precision.
    """
    if channels_last == "auto":
        channels_last = device.type == "cpu" or (device.type == "cuda" and precision != "fp32")
    return torch.channels_last_3d if channels_last else torch.contiguous_format


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware; emulated they are slower than float32."""
    # These three are not yet public in torch 2.8; where one is missing, float32 is the safe answer.
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which convolutions run in `precision` (no `auto`), for training and validation alike."""
    if precision not in _TYPES:
        return nullcontext()
    return torch.autocast(device.type, dtype=_TYPES[precision])


def check_finite(logits: Tensor, case_id: str) -> None:
    """See to it that a network's answer is made of numbers: NaN would become background in silence.

    Raises:
        ModelError: some logit is NaN or infinite.
    """
    if not math.isfinite(float(logits.sum())):
        raise ModelError(
            f"case {case_id}: the network's answer holds NaN or infinite numbers; expected finite ones. Predict with "
            "--set predict.precision=fp32; where that does not help, its weights are spoiled: train it again."
        )


def ran_out_of_memory(error: Exception) -> bool:
    """Say whether torch asked for memory in vain, on a GPU or (as a plain RuntimeError) on a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def seed_torch(seed: int, step: int = -1) -> None:
    """Set torch's generators from (seed, step), so that nothing carries over from one step to the next.

    Args:
        seed: Of the run.
        step: Of the training, from 0; -1 for the initial weights.
    """
    torch.manual_seed(int(np.random.SeedSequence([seed, step + 1]).generate_state(1, np.uint64)[0]))


def repeat_exactly(device: torch.device, *, deterministic: bool) -> None:
    """Choose the kernels of a GPU: those that give equal bits each time, or the fastest; a CPU has one kind."""
    if device.type != "cuda":
        return
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the only way to tell cuBLAS
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


def forbidden_operation(error: RuntimeError, module: nn.Module) -> ModelError | None:
    """Return what to raise where `error` is torch's refusal of an operation that has no deterministic kernel."""
    found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
    if not found:
        return None
    return ModelError(
        f"network {type(module).__name__}: {found[1]} has no deterministic kernel on this device, and "
        "train.deterministic is true. Choose a network without this operation (pooling by strided convolution or "
        "amax, upsampling by transposed convolution), or set train.deterministic to false."
    )
