"""What computes a network's logits: torch, torch compiled, or OpenVINO, which is optional and faster in bf16 on a CPU.

Converting for OpenVINO takes seconds, so a converted network is kept in the cache, and `auto` takes it only where
there is enough work. No int8: it changes too many voxels.
"""

import ctypes
import hashlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.learning.precision import Precision, autocast
from pipeline.learning.sliding_window import Forward
from pipeline.machine import core_count
from pipeline.workspace import atomic_folder

Backend = Literal["auto", "torch", "compiled", "openvino"]

_WORTH_VOXELS = 100 * 96**3
"""Voxels in windows from which `auto` converts: about 10 s of converting against a second saved in five windows."""
_MODEL = "network.xml"


def is_installed() -> bool:
    """Whether the extra `openvino` is there."""
    return importlib.util.find_spec("openvino") is not None


def resolve_backend(backend: Backend, device: torch.device, precision: Precision, voxels: int) -> Backend:
    """Say what `auto` means here: OpenVINO where it is installed, computes this format, and has enough to do.

    It is never `compiled`: on a CPU that gains a tenth, after most of a minute (`docs/benchmarks.md`).

    Args:
        backend: As asked for.
        device: Where to compute.
        precision: Resolved; OpenVINO computes fp32 and bf16 on a CPU.
        voxels: In all windows that are to be computed, members and mirrors included.

    Raises:
        ConfigError: OpenVINO is asked for and cannot be used.
    """
    fits = device.type == "cpu" and precision in ("fp32", "bf16")
    if backend == "openvino" and not is_installed():
        raise ConfigError(
            "predict.backend: found openvino, which is not installed. Install it with 'pip install openvino', or use "
            "torch."
        )
    if backend == "openvino" and not fits:
        raise ConfigError(
            f"predict.backend: OpenVINO computes fp32 and bf16 on a CPU here; found {precision} on {device}. Use torch."
        )
    if backend == "auto":
        return "openvino" if fits and is_installed() and voxels >= _WORTH_VOXELS else "torch"
    return backend


def torch_forward(
    network: Callable[[Tensor], Any], precision: Precision, device: torch.device, layout: torch.memory_format
) -> Forward:
    """Return a network as windows (B, C, d, h, w) on the device -> logits (B, K, d, h, w); of several the first."""

    def forward(windows: Tensor) -> Tensor:
        with autocast(precision, device):
            logits = network(windows.contiguous(memory_format=layout))
        first: Tensor = logits[0] if isinstance(logits, list | tuple) else logits
        return first

    return forward


def compiled_forward(
    module: nn.Module,
    shape: tuple[int, ...],
    precision: Precision,
    device: torch.device,
    layout: torch.memory_format,
    cache: Path,
) -> Forward:
    """Return the same, compiled now for windows of this shape, so that what hinders it costs no case.

    Raises:
        ConfigError: it cannot be compiled here, for want of a C++ compiler for one.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "torch"))
    forward = torch_forward(torch.compile(module), precision, device, layout)
    try:
        with torch.no_grad():
            forward(torch.zeros(shape, device=device))
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise ConfigError(
            f"predict.backend: torch.compile failed ({type(error).__name__}: {first_line:.300}). Use torch."
        ) from error
    return forward


def openvino_forward(module: nn.Module, precision: Precision, cache: Path) -> Forward:
    """Return a network as windows (B, C, d, h, w) -> logits (B, K, d, h, w), float32, computed by OpenVINO.

    Args:
        module: Network in evaluation mode on the CPU, its weights in float32; of several outputs the first counts.
        precision: `bf16` rounds what convolutions multiply, as torch's autocast does; `fp32` does not.
        cache: Folder of converted networks, each named by its weights, its layers and the shape of its input.
    """
    compiled: dict[tuple[int, ...], Any] = {}

    def forward(windows: Tensor) -> Tensor:
        shape = tuple(windows.shape)
        if shape not in compiled:
            compiled[shape] = _compile(module, shape, precision, cache)
        return torch.from_numpy(compiled[shape].infer({0: windows.contiguous().numpy()})[0].copy())

    return forward


def _compile(module: nn.Module, shape: tuple[int, ...], precision: Precision, cache: Path) -> Any:
    """Return a request to infer, on all cores that this process may use."""
    with _signal_stack_kept():
        return _request(module, shape, precision, cache)


def _request(module: nn.Module, shape: tuple[int, ...], precision: Precision, cache: Path) -> Any:
    openvino = _openvino()
    core = openvino.Core()
    folder = cache / "openvino" / _key(module, shape, openvino.__version__)
    if not (folder / _MODEL).exists():
        with torch.inference_mode(), atomic_folder(folder) as into, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that shapes become constants, as they are meant to
            made = openvino.convert_model(_FirstOutput(module), example_input=torch.zeros(shape), input=[list(shape)])
            openvino.save_model(made, into / _MODEL, compress_to_fp16=False)
    hints = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": core_count(),
    }
    return core.compile_model(core.read_model(folder / _MODEL), "CPU", hints).create_infer_request()


class _SignalStack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Give this thread its alternate stack for signals back.

    Each core of OpenVINO sets one of its own, and puts back the former one when it is freed. Of two cores, the second
    puts back that of the first, which was freed before it: the next signal, such as SIGTERM, would then end the
    process with SIGSEGV instead of reaching its handler.
    """
    if sys.platform != "linux":
        yield
        return
    sigaltstack, before = ctypes.CDLL(None).sigaltstack, _SignalStack()
    sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        sigaltstack(ctypes.byref(before), None)


def _openvino() -> Any:
    """Import OpenVINO without its telemetry: where that cannot be imported, it takes a stub that sends nothing."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino


def _key(module: nn.Module, shape: tuple[int, ...], version: str) -> str:
    hashed = hashlib.sha256(repr((shape, version, str(module))).encode())
    for name, weight in module.state_dict().items():
        hashed.update(name.encode())
        hashed.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:32]


class _FirstOutput(nn.Module):
    """A network of deep supervision gives several outputs; the first is at full resolution."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        logits = self.module(x)
        first: Tensor = logits[0] if isinstance(logits, list | tuple) else logits
        return first
