"""Formats follow from what a device can do; seeds from (seed, step)."""

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.learning.precision import (
    Precision,
    autocast,
    choose_device,
    choose_layout,
    choose_precision,
    cpu_has_bf16,
    forbidden_operation,
    repeat_exactly,
    resolve_precision,
    seed_torch,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "expected"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_cpu_takes_bf16_only_where_it_has_instructions(
    monkeypatch: pytest.MonkeyPatch, avx512_bf16: bool, amx: bool, expected: Precision
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert resolve_precision("auto", CPU) == choose_precision("cpu") == expected


def test_cpu_of_a_torch_that_cannot_say_takes_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert resolve_precision("auto", CPU) == "fp32"


def test_cpu_capability_agrees_with_the_kernel() -> None:
    try:
        with open("/proc/cpuinfo") as stream:
            flags = stream.read()
    except OSError:
        pytest.skip("no /proc/cpuinfo")
    assert cpu_has_bf16() == ("avx512_bf16" in flags or "amx_tile" in flags)


@pytest.mark.parametrize(
    ("bf16", "capability", "expected"), [(True, (9, 0), "bf16"), (False, (7, 5), "fp16"), (False, (6, 1), "fp32")]
)
def test_gpu_takes_the_best_native_format(
    monkeypatch: pytest.MonkeyPatch, bf16: bool, capability: tuple[int, int], expected: Precision
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", GPU) == expected


@pytest.mark.parametrize("asked", ["fp32", "bf16", "fp16"])
def test_an_explicit_format_is_kept(asked: Precision) -> None:
    assert resolve_precision(asked, CPU) == resolve_precision(asked, GPU) == asked


def test_channels_lie_side_by_side_where_it_pays_unless_asked_otherwise() -> None:
    side_by_side, apart = torch.channels_last_3d, torch.contiguous_format
    assert choose_layout("auto", "bf16", GPU) == choose_layout("auto", "fp32", CPU) == side_by_side
    assert choose_layout("auto", "fp32", GPU) == choose_layout(False, "bf16", CPU) == apart
    assert choose_layout(True, "fp32", GPU) == side_by_side


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_convolutions_run_in_the_format(precision: Precision, expected: torch.dtype) -> None:
    with autocast(precision, CPU):
        assert nn.Conv3d(1, 1, 1)(torch.zeros(1, 1, 2, 2, 2)).dtype == expected


def test_seed_is_a_function_of_seed_and_step() -> None:
    def draw(seed: int, step: int = -1) -> float:
        seed_torch(seed, step)
        return float(torch.rand(1, dtype=torch.float64))

    keys = [(seed, step) for seed in (0, 1, 2**62) for step in range(-1, 20)]
    drawn = {key: draw(*key) for key in keys}
    assert len(set(drawn.values())) == len(keys)
    assert all(draw(*key) == value for key, value in reversed(drawn.items()))


def test_a_device_that_is_not_there_is_named() -> None:
    assert choose_device("cpu") == CPU
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert choose_device("auto") == CPU
    with pytest.raises(ConfigError, match=r"found cuda:3.*sees 0 GPUs"):
        choose_device("cuda:3")


def test_forbidden_operation_is_named() -> None:
    error = RuntimeError("max_pool3d_with_indices_backward_cuda does not have a deterministic implementation, but")
    found = forbidden_operation(error, nn.MaxPool3d(2))
    assert found is not None
    assert "network MaxPool3d: max_pool3d_with_indices_backward_cuda has no deterministic kernel" in str(found)
    assert forbidden_operation(RuntimeError("mat1 and mat2 shapes"), nn.MaxPool3d(2)) is None


def test_a_cpu_needs_no_switch() -> None:
    repeat_exactly(CPU, deterministic=True)
    assert not torch.are_deterministic_algorithms_enabled()
