"""The blocks: their formulas against torch's own layers, and the ways that differ by device against each other."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from pipeline.networks.blocks import (
    ConvMake,
    InstanceNorm,
    MaxPool,
    ResidualBlock,
    UpSample,
    pool_by_amax,
    repeat_by_expand,
    repeat_voxels,
    up_sample,
)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_convmake_is_convolution_activation_pool():
    block = ConvMake(3, 8)
    x = torch.randn(2, 3, 16, 16, 16)
    layer = block.convolution
    expected = functional.max_pool3d(functional.leaky_relu(functional.conv3d(x, layer.weight, layer.bias), 0.01), 2)
    assert torch.equal(block(x), expected)
    assert expected.shape == (2, 8, 7, 7, 7)


def test_two_convmake_sets_give_the_sizes_of_the_mnist_network():
    x = torch.randn(1, 3, 16, 16, 16)
    assert ConvMake(32, 64)(ConvMake(3, 32)(x)).shape == (1, 64, 2, 2, 2)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"padding": True}, (2, 4, 4, 5, 6)),
        ({"padding": True, "pool": (1, 2, 2)}, (2, 4, 9, 5, 6)),
        ({"padding": True, "kernel": (1, 3, 3), "pool": (1, 1, 1)}, (2, 4, 9, 10, 12)),
        ({"kernel": (1, 3, 3), "pool": (1, 2, 2)}, (2, 4, 9, 4, 5)),
        ({"norm": "batch"}, (2, 4, 3, 4, 5)),
    ],
)
def test_convmake_sizes(options, shape):
    assert ConvMake(2, 4, **options)(torch.randn(2, 2, 9, 10, 12)).shape == shape


def test_residual_block_with_equal_channels_adds_its_input():
    block = ResidualBlock(4, 4)
    assert isinstance(block.shortcut, nn.Identity)
    nn.init.zeros_(block.second[1].weight)  # then the two convolutions say nothing
    x = torch.randn(2, 4, 6, 6, 6)
    assert torch.allclose(block(x), functional.leaky_relu(x, 0.01))


@pytest.mark.parametrize(("channels", "stride"), [(4, (2, 2, 2)), (6, (1, 1, 1)), (6, (1, 2, 2))])
def test_residual_block_projects_where_stride_or_channels_change(channels, stride):
    block = ResidualBlock(4, channels, stride=stride)
    convolution, norm = block.shortcut
    assert convolution.kernel_size == (1, 1, 1)
    assert convolution.stride == stride
    assert isinstance(norm, nn.InstanceNorm3d)
    assert block(torch.randn(2, 4, 8, 8, 8)).shape == (2, channels, *(8 // step for step in stride))


def test_residual_block_formula():
    block = ResidualBlock(4, 6, norm="batch").eval()
    x = torch.randn(2, 4, 5, 5, 5)
    first = functional.leaky_relu(block.first[1](block.first[0](x)), 0.01)
    expected = functional.leaky_relu(block.second(first) + block.shortcut[1](block.shortcut[0](x)), 0.01)
    assert torch.allclose(block(x), expected, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_instance_norm_equals_torch_and_keeps_the_layout(layout):
    x = torch.randn(2, 8, 5, 6, 7).contiguous(memory_format=layout).requires_grad_()
    same = x.detach().clone().requires_grad_()
    ours, theirs = InstanceNorm(8), nn.InstanceNorm3d(8, affine=True)
    out = ours(x)
    assert out.is_contiguous(memory_format=layout)
    out.square().sum().backward()
    expected = theirs(same)
    expected.square().sum().backward()
    assert torch.equal(out, expected)
    assert torch.allclose(x.grad, same.grad)


@pytest.mark.parametrize("kernel", [(2, 2, 2), (1, 2, 2), (3, 2, 1)])
@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 9, 5)])
def test_pooling_by_amax_equals_max_pool(kernel, shape):
    x = torch.randn(2, 3, *shape, requires_grad=True)
    same = x.detach().clone().requires_grad_()
    out, expected = pool_by_amax(x, kernel), nn.MaxPool3d(kernel)(same)
    assert torch.equal(out, expected)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    assert torch.equal(x.grad, same.grad)
    assert torch.equal(MaxPool(kernel)(x), expected)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (1, 3, 2)])
def test_repeating_voxels_both_ways(stride):
    x = torch.randn(2, 3, 4, 5, 6, requires_grad=True)
    same = x.detach().clone().requires_grad_()
    out, expanded = repeat_voxels(x, stride), repeat_by_expand(same, stride)
    assert torch.equal(out, expanded)
    assert torch.equal(out[:, :, :: stride[0], :: stride[1], :: stride[2]], x)
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    (expanded * weight).sum().backward()
    assert torch.allclose(x.grad, same.grad, atol=1e-6)


@pytest.mark.parametrize("kind", ["nearest", "transposed"])
def test_up_sampling_multiplies_the_size(kind):
    layer = up_sample(kind, 8, 4, (1, 2, 2))
    assert layer(torch.randn(1, 8, 3, 4, 5)).shape == (1, 4, 3, 8, 10)
    assert isinstance(layer, UpSample if kind == "nearest" else nn.ConvTranspose3d)
