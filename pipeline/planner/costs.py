"""What a training step costs, told from the network's shapes: memory from its activations, time from its arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.errors import PipelineError
from pipeline.learning.precision import Precision, choose_device, choose_precision
from pipeline.machine import Machine, core_count
from pipeline.networks.base import Network
from pipeline.networks.inspection import inspect_module

_CPU_CORE = {"bf16": 60e9, "fp16": 25e9, "fp32": 25e9}
"""Multiply-adds a second of one core of a present server CPU in 3-D convolutions, forward and backward together."""
_GPU_UNIT = {"bf16": 150e9, "fp16": 150e9, "fp32": 40e9}
"""The same of one multiprocessor of a GPU with tensor cores."""
_SMALLEST_STEP_SECONDS = {"cpu": 0.03, "cuda": 0.02}
"""What a step takes beside arithmetic: the calls themselves, loss, optimiser."""

_PROCESS_BYTES = {"cpu": 440_000_000, "cuda": 700_000_000}
"""A process with torch and this package loaded; on a GPU what its context and cuDNN take there."""
_BYTES_A_WEIGHT = 20
"""Weight, gradient and two moments in float32, and the copy that convolutions reorder."""
_SHARE_OF_FLOAT32 = {"fp32": 1.35, "bf16": 0.82, "fp16": 0.82}
"""Peak of what a step keeps against the activations in float32 that `inspection` counts: half precision keeps the
results of convolutions in 16 bits, and those of norms in 32. scripts/bench/plan_memory.py measures it."""


@dataclass(frozen=True)
class Device:
    """What training runs on, as far as a plan depends on it."""

    kind: str
    """`cpu` or `cuda`."""
    units: int
    """Cores, or multiprocessors of a GPU."""
    precision: Precision
    memory_bytes: int
    name: str = ""

    @property
    def multiply_adds_per_second(self) -> float:
        """Return a stated figure for this kind of device; never measured, so that plans repeat."""
        table = _CPU_CORE if self.kind == "cpu" else _GPU_UNIT
        return self.units * table[self.precision]

    def text(self) -> str:
        """Return what a reader should know of it."""
        memory = f"{self.memory_bytes / 1024**3:.1f} GB"
        what = f"{self.units} CPU cores" if self.kind == "cpu" else self.name or "a GPU"
        return f"{what}, {memory}, {self.precision}"


@dataclass(frozen=True)
class StepCost:
    """Prediction for one training step."""

    memory_bytes: int
    """Peak of the process (of the GPU's memory, on a GPU), without the cases that are kept decoded beside it."""
    seconds: float
    parameters: int
    multiply_adds: int
    """Forward, of the whole batch."""


def device_of(machine: Machine) -> Device:
    """Return what this machine trains on, with the memory that the config allows."""
    device = choose_device(machine.device)
    precision = choose_precision(machine.device)
    if device.type != "cuda":
        return Device("cpu", core_count(), precision, machine.memory_bytes())
    about = torch.cuda.get_device_properties(device)
    memory = int(0.9 * about.total_memory)
    if machine.max_memory_gb != "auto":
        memory = min(memory, int(machine.max_memory_gb * 1024**3))
    return Device("cuda", about.multi_processor_count, precision, memory, about.name)


def step_cost(
    network: Network, channels: int, classes: int, patch: Sequence[int], batch: int, device: Device
) -> StepCost | None:
    """Predict a training step; None where the network's shapes cannot be followed without data.

    Time: three times the forward pass's multiply-adds (backward has two products for each of forward) over the stated
    figure of the device.
    """
    try:
        size = (int(patch[0]), int(patch[1]), int(patch[2]))
        with torch.device("meta"):
            module = network.build(channels, classes, size)
        found = inspect_module(module, (batch, channels, *size))
    except (PipelineError, NotImplementedError):
        return None
    activations = _SHARE_OF_FLOAT32[device.precision] * found.training_bytes
    memory = _PROCESS_BYTES[device.kind] + _BYTES_A_WEIGHT * found.parameters + activations
    seconds = _SMALLEST_STEP_SECONDS[device.kind] + 3 * found.multiply_adds / device.multiply_adds_per_second
    return StepCost(int(memory), seconds, found.parameters, found.multiply_adds)
