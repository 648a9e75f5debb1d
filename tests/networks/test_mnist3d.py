"""The small classification networks: shapes, published sizes, too small volumes, first weights."""

import pytest
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.networks.mnist3d import Mnist3dNetwork
from pipeline.networks.mnist3d_keras import Mnist3dKeras
from pipeline.networks.resnet3d import ResNet3d


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def test_the_published_network_has_its_published_layers():
    module = Mnist3dNetwork(colour_map="Oranges").build(1, 10, (16, 16, 16))
    expected = (3 * 27 * 32 + 32) + (32 * 27 * 64 + 64) + (512 * 128 + 128) + 2 * 128 + (128 * 10 + 10)
    assert count(module) == expected
    kinds = [type(layer).__name__ for layer in module]
    assert kinds == [
        "ColourMap",
        "ConvMake",
        "ConvMake",
        "Flatten",
        "Linear",
        "LeakyReLU",
        "BatchNorm",
        "Dropout",
        "Linear",
    ]
    assert module(torch.rand(2, 1, 16, 16, 16) * 2 - 1).shape == (2, 10)


def test_the_keras_network_has_its_published_layers():
    module = Mnist3dKeras(colour_map="Oranges").build(1, 10, (16, 16, 16))
    kinds = [type(layer).__name__ for layer in module]
    once = ["Conv3d", "ReLU", "MaxPool", "BatchNorm3d", "Dropout"]
    assert kinds == ["ColourMap", *once, *once, "Flatten", "Linear", "ReLU", "Linear"]
    assert count(module) == (3 * 27 * 32 + 32) + 64 + (32 * 27 * 64 + 64) + 128 + (512 * 256 + 256) + (256 * 10 + 10)
    first = module[1]
    assert float(first.weight.abs().max()) <= (6 / 81) ** 0.5
    assert float(first.weight.std()) == pytest.approx((2 / 81) ** 0.5, rel=0.1)


@pytest.mark.parametrize("network", [Mnist3dNetwork(), Mnist3dKeras()])
def test_a_volume_that_is_too_small_is_refused_with_the_axis(network):
    with pytest.raises(ModelError, match=r"along H set 2 leaves none; expected at least 4"):
        network.build(1, 10, (16, 9, 16))


@pytest.mark.parametrize("network", [Mnist3dNetwork(padding=True), Mnist3dKeras(padding=True), ResNet3d()])
@pytest.mark.parametrize("size", [(8, 8, 8), (9, 16, 21)])
def test_any_size_that_is_large_enough_goes(network, size):
    assert network.build(2, 3, size).eval()(torch.zeros(1, 2, *size)).shape == (1, 3)


def test_resnet_refuses_a_volume_smaller_than_its_strides():
    with pytest.raises(ModelError, match="7 voxels along D; expected at least 8"):
        ResNet3d().build(1, 2, (7, 8, 8))
    flat = ResNet3d(features=(4, 8), strides=[(1, 2, 2)], norm="instance").build(1, 2, (1, 8, 8))
    assert flat(torch.zeros(2, 1, 1, 8, 8)).shape == (2, 2)


def test_resnet_strides_must_fit_the_levels():
    with pytest.raises(ValueError, match="expected 3 for 4 levels"):
        ResNet3d(strides=[(2, 2, 2)])


def test_a_last_batch_of_one_row_can_be_trained_on():
    module = Mnist3dNetwork().build(1, 4, (16, 16, 16)).train()
    assert module(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 4)


@pytest.mark.slow
@pytest.mark.parametrize("network", [Mnist3dNetwork(norm="batch"), Mnist3dKeras(dropout=0.0), ResNet3d(dropout=0.0)])
def test_the_networks_learn_eight_volumes_by_heart(network):
    torch.manual_seed(0)
    x, y = torch.randn(8, 1, 16, 16, 16), torch.arange(8) % 3
    module = network.build(1, 3, (16, 16, 16)).train()
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    for _ in range(25):
        loss = nn.functional.cross_entropy(module(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss) < 0.2
