"""Weights as safetensors files: written whole, read with a check, loaded in part, frozen."""

import fnmatch
import hashlib
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, ModelError, plural
from pipeline.workspace import atomic_path

log = logging.getLogger(__name__)

_NAMED_IN_MESSAGES = 3


def save_weights(module: nn.Module, path: Path) -> str:
    """Write all weights and buffers of a module to a safetensors file, whole or not at all.

    Returns:
        sha256 of the file.
    """
    return write_tensors(path, module.state_dict())


def load_weights(module: nn.Module, path: Path, *, sha256: str = "") -> None:
    """Load weights that were saved from an equal module.

    Args:
        module: Network whose weights are replaced; any device and memory layout.
        path: File of `save_weights`.
        sha256: What the file must hash to; empty for no check.

    Raises:
        ModelError: the file is missing or damaged, or its names or shapes are not those of the module.
    """
    copy_weights(module, read_tensors(path, sha256=sha256), str(path))


def copy_weights(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a module that has exactly these; `source` names them in the error."""
    own = module.state_dict()
    problems = [
        _differing(sorted(own.keys() - weights.keys()), "missing there"),
        _differing(sorted(weights.keys() - own.keys()), "unknown to the network"),
        _differing(
            [
                f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}"
                for name in own
                if name in weights and weights[name].shape != own[name].shape
            ],
            "of another shape",
        ),
    ]
    found = [problem for problem in problems if problem]
    if found:
        raise ModelError(
            f"{source}: these are not weights of this {type(module).__name__}: {'; '.join(found)}. "
            "Use the network options that the weights were trained with."
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


@dataclass(frozen=True)
class LoadReport:
    """What a partial loading did, by name of the weight."""

    loaded: tuple[str, ...]
    other_shape: tuple[str, ...]
    """Present in both with different shapes: left as initialised."""
    absent: tuple[str, ...]
    """In the network only: left as initialised."""
    unused: tuple[str, ...]
    """In the file only."""

    def __str__(self) -> str:
        left = [*self.other_shape, *self.absent]
        total = len(self.loaded) + len(left)
        text = f"{len(self.loaded)} of {plural(total, 'weight')} loaded"
        return f"{text}; left as initialised: {_first(left)}" if left else text


def load_matching(module: nn.Module, weights: Mapping[str, Tensor] | Path) -> LoadReport:
    """Load the weights that agree in name and shape, and leave the others as they are: a warm start.

    Args:
        module: Network to start from other weights, e.g. with another number of classes.
        weights: Tensors by name, or a file of `save_weights`.

    Raises:
        ModelError: nothing agrees, or the file is missing or damaged.
    """
    found = read_tensors(weights) if isinstance(weights, Path) else weights
    own = module.state_dict()
    matching = [name for name in own if name in found and found[name].shape == own[name].shape]
    if not matching:
        where = weights if isinstance(weights, Path) else "the given weights"
        raise ModelError(
            f"{where}: no weight agrees with this {type(module).__name__} in name and shape: found "
            f"{_first(sorted(found))}; expected {_first(list(own))}. Start from a model of the same kind of network."
        )
    with torch.no_grad():
        for name in matching:
            own[name].copy_(found[name])
    report = LoadReport(
        loaded=tuple(matching),
        other_shape=tuple(name for name in own if name in found and found[name].shape != own[name].shape),
        absent=tuple(name for name in own if name not in found),
        unused=tuple(sorted(found.keys() - own.keys())),
    )
    log.info("warm start: %s", report)
    return report


def freeze(module: nn.Module, patterns: Iterable[str]) -> tuple[str, ...]:
    """Take weights out of the training.

    Args:
        module: Network; call this before its optimiser is made.
        patterns: Shell-style patterns of weight names, e.g. `encoder.*`.

    Returns:
        Names of the frozen weights.

    Raises:
        ConfigError: a pattern fits no weight, or nothing is left to train.
    """
    names = [name for name, _ in module.named_parameters()]
    frozen: set[str] = set()
    for pattern in patterns:
        fitting = fnmatch.filter(names, pattern)
        if not fitting:
            raise ConfigError(f"train.freeze: {pattern!r} fits no weight; expected names such as {_first(names)}.")
        frozen.update(fitting)
    if names and len(frozen) == len(names):
        raise ConfigError("train.freeze: every weight is frozen; expected at least one to train. Narrow the patterns.")
    for name, weight in module.named_parameters():
        if name in frozen:
            weight.requires_grad_(False)
    return tuple(name for name in names if name in frozen)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors by name, whole or not at all; return the sha256 of the file."""
    content = safetensors.torch.save(_plain(tensors))
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, *, sha256: str = "") -> dict[str, Tensor]:
    """Read tensors by name, on the CPU.

    Raises:
        ModelError: the file is missing, damaged, or does not hash to `sha256`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: weights cannot be read: {error.strerror}. Check the path.") from None
    found = hashlib.sha256(content).hexdigest() if sha256 else ""
    if found != sha256:
        raise ModelError(
            f"{path}: the weights are damaged: sha256 {found[:12]}, expected {sha256[:12]}. Restore or retrain them."
        )
    try:
        return safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path}: not a complete safetensors file: {error}. Restore or retrain the weights.") from None


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy to the CPU in row-major order; weights that share memory become copies, which the format asks for."""
    seen: set[int] = set()
    plain = {}
    for name, tensor in tensors.items():
        flat = tensor.detach().cpu().contiguous()
        pointer = flat.untyped_storage().data_ptr()
        plain[name] = flat.clone() if pointer in seen else flat
        seen.add(pointer)
    return plain


def _differing(names: list[str], how: str) -> str:
    return f"{plural(len(names), 'weight')} {how} ({_first(names)})" if names else ""


def _first(names: list[str]) -> str:
    rest = len(names) - _NAMED_IN_MESSAGES
    return ", ".join(names[:_NAMED_IN_MESSAGES]) + (f" and {rest} more" if rest > 0 else "")
