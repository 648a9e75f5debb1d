"""The Keras sister of the 3D-MNIST network: ReLU, batch norm after pooling, heavy dropout."""

from itertools import pairwise
from math import prod
from typing import Literal

from pydantic import Field, PositiveInt
from torch import nn

from pipeline.networks.base import Network, Size, networks
from pipeline.networks.blocks import MaxPool
from pipeline.networks.colours import with_colours
from pipeline.networks.mnist3d import Share, shrunk

_KERAS_EPSILON, _KERAS_MOMENTUM = 1e-3, 0.01
"""Of batch norm; Keras calls the momentum 0.99, the share of the old value."""


@networks.register
class Mnist3dKeras(Network):
    """Conv3d with ReLU and He-uniform weights, max-pooling, batch norm and dropout, twice; then a dense layer.

    The softmax of the head is in the loss, where it is exact.
    """

    name: Literal["mnist3d_keras"] = "mnist3d_keras"
    features: tuple[PositiveInt, ...] = Field(default=(32, 64), min_length=1)
    """Channels after each convolution."""
    padding: bool = False
    """Whether convolutions keep the size; without, each takes 2 voxels off."""
    dropout: Share = 0.5
    """Share of numbers set to zero after each batch norm while training."""
    dense: PositiveInt = 256
    """Numbers before the classes."""
    colour_map: str | None = None
    """Colour map of matplotlib that turns the one channel of values into three; none for the values themselves."""

    def build(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network; logits are (B, out_channels).

        Raises:
            ModelError: the volume shrinks to nothing.
        """
        side = shrunk("mnist3d_keras", patch_size, [(3, self.padding)] * len(self.features), "network.padding: true")
        colours, channels = with_colours(self.colour_map, in_channels)
        widths = (channels, *self.features)
        layers: list[nn.Module] = [colours]
        for before, after in pairwise(widths):
            convolution = he_uniform(nn.Conv3d(before, after, 3, padding=1 if self.padding else 0))
            norm = nn.BatchNorm3d(after, eps=_KERAS_EPSILON, momentum=_KERAS_MOMENTUM)
            layers += [convolution, nn.ReLU(inplace=True), MaxPool((2, 2, 2)), norm, nn.Dropout(self.dropout)]
        dense = he_uniform(nn.Linear(widths[-1] * prod(side), self.dense))
        return nn.Sequential(*layers, nn.Flatten(), dense, nn.ReLU(inplace=True), _head(self.dense, out_channels))


def he_uniform(layer: nn.Conv3d | nn.Linear) -> nn.Module:
    """Give a layer before a ReLU its first weights: uniform to sqrt(6 / fan in) on both sides (He 2015), bias 0."""
    nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _head(width: int, out_channels: int) -> nn.Linear:
    layer = nn.Linear(width, out_channels)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
