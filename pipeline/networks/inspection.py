"""What a network is made of: shapes, receptive fields, multiply-adds and memory of its layers, without numbers."""

import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Field:
    """What of the input one output voxel sees, along each axis.

    size: Voxels of the input; None where all of it is seen.
    step: Input voxels between two neighbours of the output.
    """

    size: tuple[float, ...] | None
    step: tuple[float, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of a network, in the order of its use."""

    name: str
    kind: str
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    shape: tuple[int, ...]
    """Of its output, batch first."""
    parameters: int
    receptive_field: tuple[float, ...] | None
    """Input voxels (D, H, W) that one output voxel sees; None for all of them."""
    multiply_adds: int
    """Of convolutions and linear layers; norms, activations and poolings are left out."""
    bytes: int
    """Of its output in float32; 0 where it writes over its input."""


@dataclass(frozen=True)
class Inspection:
    """A whole network for one size of input."""

    input: tuple[int, ...]
    layers: tuple[Layer, ...]
    output: tuple[int, ...]
    parameters: int
    multiply_adds: int
    inference_bytes: int
    """Largest sum of activations that exist at once, in float32, the input included."""
    training_bytes: int
    """All activations together, which the backward pass needs, in float32, the input included."""


def inspect_module(module: nn.Module, shape: Sequence[int]) -> Inspection:
    """Run shapes through a network on the meta device, which holds no numbers.

    Sizes of activations are those that Python sees: a convolution's workspace is not among them. The receptive field
    is that of the path with the largest one, without regard to the border.

    Args:
        module: Network in any mode; it is moved to the meta device and is of no use afterwards.
        shape: Input: (B, C, D, H, W), or with one or two spatial axes.

    Raises:
        ModelError: the network cannot take this input; torch's reason is quoted.
    """
    trace = _Trace()
    module = module.to("meta").eval()
    handles = [handle for name, part in module.named_modules() for handle in _hooks(trace, name, part)]
    token = _tracing.set(trace)
    try:
        x = torch.empty(tuple(shape), device="meta").as_subclass(_Traced)
        axes = len(shape) - 2
        x.field = Field((1.0,) * axes, (1.0,) * axes)
        trace.note(x)
        with torch.no_grad():
            output = module(x)
    except (RuntimeError, ValueError) as error:
        line = (str(error).splitlines() or [""])[0].rstrip(" .")
        raise ModelError(
            f"inspect: the network cannot take an input of {list(shape)}: {line}. Change --input, or the network."
        ) from error
    finally:
        _tracing.reset(token)
        for handle in handles:
            handle.remove()
    first = output[0] if isinstance(output, list | tuple) else output
    return Inspection(
        tuple(shape), tuple(trace.layers), tuple(first.shape), sum(p.numel() for p in module.parameters()),
        trace.multiply_adds, trace.peak, trace.total,
    )  # fmt: skip


@dataclass
class _Trace:
    """What was seen so far."""

    layers: list[Layer] = field(default_factory=list)
    multiply_adds: int = 0
    total: int = 0
    peak: int = 0
    alive: int = 0
    users: dict[int, int] = field(default_factory=dict)
    """Storage -> tensors that use it."""

    def note(self, tensor: Tensor) -> None:
        """Count the memory of a tensor once, as long as it or a view of it exists."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, tensor.numel() * _FLOAT_BYTES
        if key not in self.users:
            self.users[key] = 0
            self.alive += size
            self.total += size
            self.peak = max(self.peak, self.alive)
        self.users[key] += 1
        weakref.finalize(tensor, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self.users[key] -= 1
        if self.users[key] == 0:
            del self.users[key]
            self.alive -= size


_tracing: ContextVar[_Trace] = ContextVar("trace")


class _Traced(Tensor):
    """A tensor that knows what of the input each of its voxels sees."""

    field: Field

    @classmethod
    def __torch_function__(cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do what is asked, and work out what the result sees."""
        result = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        trace = _tracing.get(None)
        name = getattr(func, "__name__", "")
        if trace is None or name in ("__get__", "__set__", "untyped_storage", "numel", "size", "dim"):
            return result
        fields = [one.field for one in _tensors(args) if isinstance(one, _Traced) and hasattr(one, "field")]
        for one in _tensors((result,)):
            if isinstance(one, _Traced) and fields and not hasattr(one, "field"):
                one.field = _after(name, fields, args, kwargs or {}, one)
                trace.note(one)
        trace.multiply_adds += _multiply_adds(name, args, result)
        return result


def _tensors(values: Any) -> list[Any]:
    if isinstance(values, Tensor):
        return [values]
    return [each for value in values for each in _tensors(value)] if isinstance(values, list | tuple) else []


def _after(name: str, fields: Sequence[Field], args: Any, kwargs: Any, out: Tensor) -> Field:
    """Return what the result of an operation sees."""
    axes = len(fields[0].step)
    sizes = [one.size for one in fields]
    step = tuple(min(one.step[axis] for one in fields) for axis in range(axes))
    if out.ndim != axes + 2 or name.startswith("adaptive") or any(size is None for size in sizes):
        return Field(None, step)
    size = tuple(max(each[axis] for each in sizes if each) for axis in range(axes))
    if name.startswith(("conv_transpose", "interpolate", "upsample")):
        before = args[0].shape[2:]
        grown = tuple(step[axis] * before[axis] / out.shape[axis + 2] for axis in range(axes))
        kernel = args[1].shape[2:] if name.startswith("conv") else (1,) * axes
        reach = [ceil(k * grown[axis] / step[axis] - 1e-9) - 1 for axis, k in enumerate(kernel)]
        return Field(tuple(size[axis] + reach[axis] * step[axis] for axis in range(axes)), grown)
    if name.startswith("conv") or "pool" in name:
        kernel, stride, dilation = _window(name, args, kwargs, axes)
        size = tuple(size[axis] + (kernel[axis] - 1) * dilation[axis] * step[axis] for axis in range(axes))
        return Field(size, tuple(step[axis] * stride[axis] for axis in range(axes)))
    return Field(size, step)


def _window(name: str, args: Any, kwargs: Any, axes: int) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return kernel, stride and dilation of a convolution or pooling."""
    if name.startswith("conv"):
        stride = args[3] if len(args) > 3 else kwargs.get("stride", 1)
        dilation = args[5] if len(args) > 5 else kwargs.get("dilation", 1)
        return tuple(args[1].shape[2:]), _each(stride, axes), _each(dilation, axes)
    kernel = args[1] if len(args) > 1 else kwargs["kernel_size"]
    stride = args[2] if len(args) > 2 else kwargs.get("stride")
    return _each(kernel, axes), _each(kernel if stride is None or stride == [] else stride, axes), (1,) * axes


def _each(value: Any, axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) * axes if len(value) == 1 else tuple(value)


def _multiply_adds(name: str, args: Any, result: Any) -> int:
    if name.startswith("conv_transpose"):
        return int(prod(args[0].shape) * prod(args[1].shape[1:]))
    if name.startswith("conv"):
        return int(prod(result.shape) * prod(args[1].shape[1:]))
    return int(prod(result.shape) * args[1].shape[-1]) if name == "linear" else 0


def _hooks(trace: _Trace, name: str, module: nn.Module) -> list[Any]:
    """Note each layer that has no layers inside."""
    if next(module.children(), None) is not None or isinstance(module, nn.Identity):
        return []
    before: list[tuple[int, int]] = []

    def enter(_: nn.Module, inputs: Any) -> None:
        before.append((trace.multiply_adds, trace.total))

    def leave(part: nn.Module, inputs: Any, output: Any) -> None:
        multiply_adds, total = before.pop()
        if isinstance(output, _Traced):
            trace.layers.append(_layer(name, part, output, trace.multiply_adds - multiply_adds, trace.total - total))

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _layer(name: str, module: Any, output: _Traced, multiply_adds: int, size: int) -> Layer:
    axes = max(output.ndim - 2, 0)
    kernel = getattr(module, "kernel_size", getattr(module, "kernel", ()))
    stride = getattr(module, "stride", kernel if kernel != () else ())
    padding = getattr(module, "padding", ())
    return Layer(
        name, type(module).__name__, _numbers(kernel, axes), _numbers(stride, axes), _numbers(padding, axes),
        tuple(output.shape), sum(p.numel() for p in module.parameters()), output.field.size, multiply_adds, size,
    )  # fmt: skip


def _numbers(value: Any, axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    return tuple(value) if isinstance(value, list | tuple) and all(isinstance(each, int) for each in value) else ()
