"""What computes a network: OpenVINO and torch.compile against torch."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError
from pipeline.learning.backends import is_installed, openvino_forward, resolve_backend
from pipeline.learning.predictor import LoadedModel, PredictOptions, Predictor
from pipeline.networks.unet import UNet
from tests.learning.test_predictor import VOLUME, recipe

CPU = torch.device("cpu")
needs_openvino = pytest.mark.skipif(not is_installed(), reason="the extra openvino is not installed")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return UNet(features=(4, 8), deep_supervision=True).build(1, 3, (16, 16, 16)).eval()


@needs_openvino
def test_logits_equal_those_of_torch(tmp_path: Path) -> None:
    module, windows = network(), torch.randn(2, 1, 16, 16, 16)
    forward = openvino_forward(module, "fp32", tmp_path)
    with torch.inference_mode():
        expected = module(windows)
    expected = expected[0] if isinstance(expected, list | tuple) else expected
    assert torch.allclose(forward(windows), expected, atol=1e-4)
    assert torch.allclose(forward(windows[:1]), expected[:1], atol=1e-4), "a last, smaller batch"
    rounded = openvino_forward(module, "bf16", tmp_path)(windows)
    assert torch.allclose(rounded, expected, atol=0.2)


@needs_openvino
def test_a_converted_network_is_kept_and_known_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = torch.randn(1, 1, 16, 16, 16)
    first = openvino_forward(network(), "fp32", tmp_path)(windows)
    assert len(list((tmp_path / "openvino").iterdir())) == 1
    import openvino

    with monkeypatch.context() as patched:
        patched.setattr(openvino, "convert_model", lambda *a, **k: pytest.fail("converted again"))
        assert torch.equal(openvino_forward(network(), "fp32", tmp_path)(windows), first)
    other = openvino_forward(network(seed=1), "fp32", tmp_path)(windows)
    assert not torch.allclose(other, first, atol=1e-3)
    assert len(list((tmp_path / "openvino").iterdir())) == 2


@needs_openvino
def test_nothing_that_could_send_is_imported(tmp_path: Path) -> None:
    openvino_forward(network(), "fp32", tmp_path)(torch.zeros(1, 1, 16, 16, 16))
    assert sys.modules.get("openvino_telemetry") is None


@needs_openvino
def test_masks_agree_with_torch(tmp_path: Path) -> None:
    model = LoadedModel(recipe(), recipe().network.build(1, 3, recipe().patch_size).eval(), "made")
    masks = []
    for backend in ("torch", "openvino"):
        predictor = Predictor([model], PredictOptions(precision="fp32", backend=backend))
        predictor.choose_backend(0, tmp_path)
        assert predictor.backend == backend
        masks.append(predictor.predict(VOLUME, "a").mask)
    assert (masks[0] == masks[1]).mean() > 0.999


def test_auto_follows_from_what_is_there_and_how_much_there_is_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import pipeline.learning.backends as backend

    monkeypatch.setattr(backend, "is_installed", lambda: True)
    assert resolve_backend("auto", CPU, "bf16", 10**9) == "openvino"
    assert resolve_backend("auto", CPU, "bf16", 10**6) == "torch"
    assert resolve_backend("auto", torch.device("cuda"), "bf16", 10**9) == "torch"
    assert resolve_backend("torch", CPU, "bf16", 10**9) == "torch"
    assert resolve_backend("openvino", CPU, "fp32", 0) == "openvino"
    with pytest.raises(ConfigError, match="fp16"):
        resolve_backend("openvino", CPU, "fp16", 0)
    monkeypatch.setattr(backend, "is_installed", lambda: False)
    assert resolve_backend("auto", CPU, "bf16", 10**9) == "torch"
    with pytest.raises(ConfigError, match="not installed"):
        resolve_backend("openvino", CPU, "fp32", 0)


def test_without_a_choice_it_is_torch() -> None:
    module = recipe().network.build(1, 3, recipe().patch_size).eval()
    predictor = Predictor([LoadedModel(recipe(), module, "made")], PredictOptions(precision="fp32"))
    assert predictor.backend == "torch"
    assert isinstance(np.asarray(predictor.predict(VOLUME, "a")), np.ndarray)


@pytest.mark.slow
def test_a_compiled_network_agrees(tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    model = LoadedModel(recipe(), recipe().network.build(1, 3, recipe().patch_size).eval(), "made")
    found = {}
    for backend in ("torch", "compiled"):
        predictor = Predictor([model], PredictOptions(precision="fp32", backend=backend, window_batch=2))
        predictor.choose_backend(0, tmp_path)
        assert predictor.backend == backend
        found[backend] = predictor.predict(VOLUME, "a").mask
    assert (found["torch"] == found["compiled"]).mean() > 0.999


def test_what_hinders_compiling_is_told_before_the_first_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(windows: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("No working C++ compiler found\nand more")

        return forward

    monkeypatch.setattr(torch, "compile", failing)
    model = LoadedModel(recipe(), recipe().network.build(1, 3, recipe().patch_size).eval(), "made")
    predictor = Predictor([model], PredictOptions(backend="compiled"))
    with pytest.raises(ConfigError, match=r"torch\.compile failed .*No working C\+\+ compiler found\)"):
        predictor.choose_backend(0, tmp_path)


IN_A_PROCESS = """
import ctypes, os, signal, sys, tempfile
from pathlib import Path
import torch
from pipeline.learning.backends import openvino_forward
from pipeline.networks.unet import UNet

def stack():
    found = (ctypes.c_size_t * 3)()
    ctypes.CDLL(None).sigaltstack(None, found)
    return tuple(found)

before = stack()
module = UNet(features=(4, 8)).build(1, 3, (16, 16, 16)).eval()
forwards = [openvino_forward(module, "fp32", Path(tempfile.mkdtemp())) for _ in range(2)]
for forward in forwards:
    forward(torch.zeros(1, 1, 16, 16, 16))
del forward
while forwards:
    del forwards[0]
assert stack() == before, (stack(), before)
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
os.kill(os.getpid(), signal.SIGTERM)
"""


@needs_openvino
@pytest.mark.slow
def test_signals_reach_their_handlers_after_openvino_was_loaded() -> None:
    assert subprocess.run([sys.executable, "-X", "faulthandler", "-c", IN_A_PROCESS], check=False).returncode == 143
