"""Weights come back as they were; what does not fit is named."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError, ModelError
from pipeline.learning.weights import freeze, load_matching, load_weights, read_tensors, save_weights


def network(channels: int = 4, classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(1, channels, 3), nn.BatchNorm3d(channels), nn.Conv3d(channels, classes, 1))


def test_weights_and_buffers_come_back_in_any_layout(tmp_path: Path) -> None:
    source = network()
    source(torch.randn(2, 1, 5, 5, 5))  # moves the running statistics
    digest = save_weights(source.to(memory_format=torch.channels_last_3d), tmp_path / "w.safetensors")
    target = network()
    load_weights(target, tmp_path / "w.safetensors", sha256=digest)
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name
    assert target[0].weight.is_contiguous()


def test_equal_weights_give_equal_files(tmp_path: Path) -> None:
    source = network()
    first = save_weights(source, tmp_path / "a.safetensors")
    assert first == save_weights(source.to(memory_format=torch.channels_last_3d), tmp_path / "b.safetensors")
    assert not list(tmp_path.glob(".tmp-*"))


def test_shared_weights_are_saved_twice(tmp_path: Path) -> None:
    source = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    source[1].weight = source[0].weight
    save_weights(source, tmp_path / "w.safetensors")
    found = read_tensors(tmp_path / "w.safetensors")
    assert torch.equal(found["0.weight"], found["1.weight"])


def test_other_weights_are_refused_by_name(tmp_path: Path) -> None:
    save_weights(network(), tmp_path / "w.safetensors")
    other = nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, 3, 1), nn.Conv3d(3, 3, 1))
    before = other[2].weight.clone()
    with pytest.raises(ModelError) as error:
        load_weights(other, tmp_path / "w.safetensors")
    text = str(error.value)
    assert "2 weights missing there (3.bias, 3.weight)" in text
    assert "2 weights of another shape (2.weight (2, 4, 1, 1, 1) for (3, 4, 1, 1, 1), 2.bias (2,) for (3,))" in text
    assert torch.equal(other[2].weight, before), "nothing is loaded in part"
    with pytest.raises(ModelError, match=r"unknown to the network \(1.bias, 1.num_batches_tracked, .* and 4 more\)"):
        load_weights(nn.Sequential(nn.Conv3d(1, 4, 3)), tmp_path / "w.safetensors")


def test_missing_damaged_and_truncated_files(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        load_weights(network(), path)
    digest = save_weights(network(), path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ModelError, match="damaged: sha256"):
        load_weights(network(), path, sha256=digest)
    path.write_bytes(content[:-5])
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        load_weights(network(), path)
    path.write_bytes(b"PK\x03\x04 a pickle in a zip")
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        load_weights(network(), path)


def test_warm_start_takes_what_fits(tmp_path: Path) -> None:
    source, target = network(classes=2), network(classes=5)
    save_weights(source, tmp_path / "w.safetensors")
    own = target[2].weight.clone()
    report = load_matching(target, tmp_path / "w.safetensors")
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[2].weight, own)
    assert report.other_shape == ("2.weight", "2.bias")
    assert (report.absent, report.unused) == ((), ())
    assert str(report) == "7 of 9 weights loaded; left as initialised: 2.weight, 2.bias"


def test_warm_start_from_something_else_is_refused() -> None:
    with pytest.raises(ModelError, match="no weight agrees"):
        load_matching(network(), {"encoder.weight": torch.zeros(3)})


def test_freeze_by_pattern() -> None:
    module = network()
    assert freeze(module, ("0.*", "1.bias")) == ("0.weight", "0.bias", "1.bias")
    trained = [name for name, weight in module.named_parameters() if weight.requires_grad]
    assert trained == ["1.weight", "2.weight", "2.bias"]
    with pytest.raises(ConfigError, match=r"'encoder\.\*' fits no weight; expected names such as 0.weight, 0.bias"):
        freeze(network(), ("encoder.*",))
    with pytest.raises(ConfigError, match="every weight is frozen"):
        freeze(network(), ("*",))
