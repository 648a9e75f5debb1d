"""The U-Net: shapes, strides, refusals, and that each level does its part."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pipeline.errors import ModelError
from pipeline.networks.base import networks
from pipeline.networks.blocks import ResidualBlock
from pipeline.networks.unet import UNet


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("block", ["residual", "convmake"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("up_sampling", ["nearest", "transposed"])
def test_logits_have_the_size_of_the_input(block, norm, up_sampling):
    options = UNet(block=block, norm=norm, up_sampling=up_sampling, features=(4, 8, 12), dropout=0.1)
    module = options.build(2, 5, (8, 12, 16))
    assert module(torch.randn(2, 2, 8, 12, 16)).shape == (2, 5, 8, 12, 16)


def test_a_network_runs_on_other_multiples_of_its_strides():
    options = UNet(features=(4, 8, 8))
    module = options.build(1, 2, (16, 16, 16)).eval()
    assert module(torch.randn(1, 1, 8, 20, 12)).shape == (1, 2, 8, 20, 12)


def test_anisotropic_kernels_and_strides():
    options = UNet(features=(4, 8, 8), kernels=((1, 3, 3), 3, 3), strides=((1, 2, 2), 2))
    assert options.divisor() == (2, 4, 4)
    module = options.build(1, 2, (6, 8, 8))
    kernels = {layer.kernel_size for layer in module.encoder[0].modules() if isinstance(layer, nn.Conv3d)}
    assert kernels == {(1, 3, 3), (1, 1, 1)}
    assert module(torch.randn(1, 1, 6, 8, 8)).shape == (1, 2, 6, 8, 8)


def test_a_kernel_of_one_keeps_slices_apart():
    options = UNet(features=(4, 8), kernels=((1, 3, 3), (1, 3, 3)), strides=((1, 2, 2),), norm="none")
    module = options.build(1, 2, (4, 8, 8)).eval()
    x = torch.randn(1, 1, 4, 8, 8)
    changed = x.clone()
    changed[:, :, 2] += 1
    differs = (module(x) != module(changed)).flatten(3).any(-1)[0].any(0)
    assert differs.tolist() == [False, False, True, False]


def test_encoder_is_made_of_residual_blocks():
    module = UNet(features=(4, 8, 12)).build(1, 2, (16, 16, 16))
    assert [type(level) for level in module.encoder] == [ResidualBlock] * 3


def test_deep_supervision_gives_a_list_while_training_only():
    options = UNet(features=(4, 8, 8, 8, 8), deep_supervision=True)
    module = options.build(1, 3, (32, 32, 32))
    x = torch.randn(1, 1, 32, 32, 32)
    assert [tuple(level.shape[2:]) for level in module(x)] == [(32,) * 3, (16,) * 3, (8,) * 3]
    assert module.eval()(x).shape == (1, 3, 32, 32, 32)


def test_all_weights_get_a_gradient():
    module = UNet(features=(4, 8, 8), deep_supervision=True).build(1, 3, (16, 16, 16))
    sum(level.square().sum() for level in module(torch.randn(2, 1, 16, 16, 16))).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in module.parameters())


def test_channels_last_gives_the_same_numbers():
    module = UNet(features=(4, 8, 8)).build(1, 3, (8, 8, 8)).eval()
    x = torch.randn(1, 1, 8, 8, 8)
    expected = module(x)
    last = torch.channels_last_3d
    assert torch.allclose(module.to(memory_format=last)(x.contiguous(memory_format=last)), expected, atol=1e-5)


def test_one_level_is_a_plain_block():
    module = UNet(features=(4,), deep_supervision=True).build(1, 2, (5, 5, 5))
    assert module(torch.randn(1, 1, 5, 5, 5)).shape == (1, 2, 5, 5, 5)


def test_a_network_can_be_built_without_numbers():
    with torch.device("meta"):
        module = UNet().build(1, 3, (64, 96, 96))
    assert module(torch.empty(1, 1, 64, 96, 96, device="meta")).shape == (1, 3, 64, 96, 96)


def test_patch_that_strides_do_not_divide_is_refused():
    with pytest.raises(ModelError, match=r"90 voxels along H; expected a multiple of 8.*88 or 96"):
        UNet().build(1, 3, (64, 90, 96))


def test_patch_that_shrinks_to_one_voxel_is_refused():
    with pytest.raises(ModelError, match="single one at the coarsest level"):
        UNet().build(1, 3, (8, 8, 8))
    UNet(norm="batch").build(1, 3, (8, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernels": [3, 3]}, "kernels has 2 entries; expected 4"),
        ({"strides": [2, 2, 2, 2]}, "strides has 4 entries; expected 3"),
        ({"kernels": [3, 3, 3, [1, 2, 3]]}, "expected odd numbers"),
        ({"features": []}, "at least 1 item"),
        ({"block": "dense"}, "'residual' or 'convmake'"),
        ({"feature": [8]}, "Extra inputs"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValidationError, match=message):
        UNet(**options)


def test_options_survive_a_round_trip():
    options = UNet(kernels=((1, 3, 3), 3, 3, 3), strides=((1, 2, 2), 2, 2))
    assert networks.parse(options.model_dump(mode="json")) == options


def test_it_can_learn_a_sphere():
    module = UNet(features=(8, 16)).build(1, 2, (12, 12, 12))
    axis = torch.arange(12) - 5.5
    truth = ((axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None] ** 2) < 16).long()[None]
    x = truth[:, None] + 0.5 * torch.randn(1, 1, 12, 12, 12)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), truth).backward()
        optimizer.step()
    guess = module(x).argmax(1)
    assert 2 * (guess * truth).sum() / (guess.sum() + truth.sum()) > 0.95
