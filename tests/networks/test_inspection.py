"""Inspection: against torch's own shapes, formulas, a numerical receptive field, and gradients."""

import pytest
import torch
from torch import nn

from pipeline.errors import ConfigError, ModelError
from pipeline.networks.blocks import ConvMake, ResidualBlock
from pipeline.networks.inspection import inspect_module
from pipeline.networks.single_layer import KINDS, parse_layer, parse_shape, size_formula
from pipeline.networks.unet import UNet


def seen_by_gradient(module, shape):
    """Return how far along each axis the middle output voxel depends on the input."""
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    out = module.eval()(x)
    middle = tuple(side // 2 for side in out.shape[2:])
    out[(0, slice(None), *middle)].sum().backward()
    hit = x.grad[0].abs().sum(0) > 0
    return tuple(
        int(hit.any(dim=[a for a in range(hit.ndim) if a != axis]).nonzero().numel()) for axis in range(hit.ndim)
    )


def test_the_layer_of_the_handbook():
    layer = parse_layer("Conv3d:1,2,kernel=2x3x3")
    lines = size_formula(layer, (1, 1, 301, 512, 512))
    found = inspect_module(layer, (1, 1, 301, 512, 512))
    assert found.output == (1, 2, 300, 510, 510)
    assert found.parameters == 38
    assert found.multiply_adds == 2 * 300 * 510 * 510 * 18
    assert lines[1] == "D:  floor((301 + 2 * 0 - 1 * (2 - 1) - 1) / 1) + 1 = 300"


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("options", ["kernel=3", "kernel=3,stride=2", "kernel=2,stride=2,padding=1"])
def test_the_formula_agrees_with_torch(kind, options):
    channels = "" if "Pool" in kind else "2,4,"
    layer = parse_layer(f"{kind}:{channels}{options}")
    shape = (1, 2, 13, 14, 15)[: 2 + KINDS[kind][1]]
    expected = layer(torch.zeros(shape)).shape
    said = [int(line.rsplit("=", 1)[1]) for line in size_formula(layer, shape)[1:]]
    assert said == list(expected[2:])
    assert inspect_module(layer, shape).output == tuple(expected)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 2, (1, 3, 5), stride=(1, 2, 2)), nn.Conv3d(2, 2, 3)),
        nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.AvgPool3d(2), nn.Conv3d(2, 2, 3, dilation=2)),
        nn.Sequential(nn.Conv3d(1, 2, 3, stride=2), nn.ConvTranspose3d(2, 2, 2, 2)),
    ],
)
def test_the_receptive_field_is_what_gradients_reach(module):
    found = inspect_module(module, (1, 1, 40, 40, 40)).layers[-1].receptive_field
    torch.manual_seed(0)
    for part in module:
        if hasattr(part, "reset_parameters"):
            part.to_empty(device="cpu").reset_parameters()
    assert seen_by_gradient(module.to("cpu"), (1, 1, 40, 40, 40)) == tuple(int(side) for side in found)


def test_blocks_of_ours_are_followed_through_shortcuts_and_pools():
    residual = inspect_module(ResidualBlock(2, 4, stride=(2, 2, 2), norm="batch"), (1, 2, 16, 16, 16))
    assert residual.layers[-1].receptive_field == (7, 7, 7)
    pooled = inspect_module(ConvMake(1, 4), (1, 1, 16, 16, 16))
    assert pooled.layers[-1].receptive_field == (4, 4, 4)
    assert pooled.output == (1, 4, 7, 7, 7)


def test_multiply_adds_and_parameters_of_a_unet_are_those_of_its_layers():
    network = UNet(features=(4, 8, 16))
    found = inspect_module(network.build(1, 3, (16, 16, 16)), (2, 1, 16, 16, 16))
    assert found.output == (2, 3, 16, 16, 16)
    assert found.parameters == sum(p.numel() for p in network.build(1, 3, (16, 16, 16)).parameters())
    assert sum(layer.parameters for layer in found.layers) == found.parameters
    assert sum(layer.multiply_adds for layer in found.layers) == found.multiply_adds
    torch.manual_seed(0)
    counted = 0

    def count(module, inputs, output):
        nonlocal counted
        weight = module.weight
        counted += output.numel() * weight[0].numel()

    real = network.build(1, 3, (16, 16, 16)).eval()
    for part in real.modules():
        if isinstance(part, nn.Conv3d):
            part.register_forward_hook(count)
    real(torch.zeros(2, 1, 16, 16, 16))
    assert counted == found.multiply_adds


def test_memory_of_a_chain_is_input_and_output_at_once_or_all_together():
    chain = nn.Sequential(nn.Conv3d(1, 4, 1), nn.Conv3d(4, 4, 1), nn.ReLU(inplace=True), nn.Conv3d(4, 2, 1))
    found = inspect_module(chain, (1, 1, 8, 8, 8))
    voxels = 8**3 * 4
    assert found.training_bytes == (1 + 4 + 4 + 2) * voxels
    assert found.inference_bytes in ((4 + 4) * voxels, (1 + 4 + 4) * voxels)  # a caller may hold on to the input
    assert [layer.bytes for layer in found.layers] == [4 * voxels, 4 * voxels, 0, 2 * voxels]


def test_a_huge_input_takes_no_memory():
    network = UNet(features=(16, 32, 64))
    found = inspect_module(network.build(1, 2, (512, 1024, 1024)), (1, 1, 512, 1024, 1024))
    assert found.training_bytes > 100 * 1024**3


def test_an_input_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="cannot take"):
        inspect_module(nn.Conv3d(2, 1, 3), (1, 1, 8, 8, 8))


@pytest.mark.parametrize(
    ("text", "said"),
    [("Conv4d:1,2", "did you mean"), ("Conv3d:1,2,kernal=3", "did you mean 'kernel'"),
     ("Conv3d:1,2,kernel=2x3", "joined by x"),
     ("Conv3d:one,2", "whole number"), ("Conv3d:1,2", "Expected for example")],
)  # fmt: skip
def test_texts_that_name_no_layer_are_refused(text, said):
    with pytest.raises(ConfigError, match=said):
        parse_layer(text)


@pytest.mark.parametrize("text", ["1,1", "1,1,0,3,3", "a", "1,1,2,3,4,5"])
def test_shapes_are_checked(text):
    with pytest.raises(ConfigError, match="--input"):
        parse_shape(text)


@pytest.mark.parametrize(
    ("text", "shape", "part"),
    [
        ("Conv3d:1,8,kernel=3,stride=0", "1,1,8,8,8", "stride is 0; expected 1 or more"),
        ("Conv2d:1,4,kernel=3", "1,1,16,32,33", "Conv2d takes 4, such as 1,1,64,96"),
        ("Conv3d(1,8,3)", "1,1,8,8,8", "Expected for example Conv3d:1,2,kernel=2x3x3"),
    ],
)
def test_what_no_layer_is_is_told(text, shape, part):
    with pytest.raises(ConfigError) as caught:
        size_formula(parse_layer(text), parse_shape(shape))
    assert part in str(caught.value)
