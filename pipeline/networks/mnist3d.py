"""The 3D-MNIST network: sets of convolution, activation and pooling, then fully connected layers."""

from itertools import pairwise
from math import prod
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.networks.base import Network, Size, networks
from pipeline.networks.blocks import SLOPE, ConvMake, Norm
from pipeline.networks.colours import with_colours

Share = Annotated[float, Field(ge=0, lt=1)]


@networks.register
class Mnist3dNetwork(Network):
    """ConvMake sets, then fully connected layers with LeakyReLU, batch norm and dropout; for whole small volumes.

    With 16 x 16 x 16 voxels and the defaults, the sets leave 64 x 2 x 2 x 2 = 512 numbers, of which come 128,
    and of these the classes.
    """

    name: Literal["mnist3d"] = "mnist3d"
    features: tuple[PositiveInt, ...] = Field(default=(32, 64), min_length=1)
    """Channels after each set."""
    kernel: PositiveInt = 3
    """Kernel size of each convolution, along all axes; odd where there is padding."""
    padding: bool = False
    """Whether convolutions keep the size; without, each takes kernel - 1 voxels off."""
    norm: Norm = "none"
    """Normalisation between convolution and activation."""
    hidden: PositiveInt = 128
    """Numbers between the two fully connected layers."""
    dropout: Share = 0.15
    """Share of them set to zero while training."""
    colour_map: str | None = None
    """Colour map of matplotlib that turns the one channel of values into three; none for the values themselves."""

    def build(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network; logits are (B, out_channels).

        Raises:
            ModelError: the volume shrinks to nothing within the sets.
        """
        side = shrunk(
            "mnist3d", patch_size, [(self.kernel, self.padding)] * len(self.features), "network.padding: true"
        )
        colours, channels = with_colours(self.colour_map, in_channels)
        widths = (channels, *self.features)
        sets = [
            ConvMake(before, after, kernel=(self.kernel,) * 3, padding=self.padding, norm=self.norm)
            for before, after in pairwise(widths)
        ]
        return nn.Sequential(
            colours,
            *sets,
            nn.Flatten(),
            nn.Linear(widths[-1] * prod(side), self.hidden),
            nn.LeakyReLU(SLOPE),
            BatchNorm(self.hidden),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, out_channels),
        )


class BatchNorm(nn.BatchNorm1d):
    """Batch norm of (B, C) that lets a batch of one row pass as it would in use, since it has no spread."""

    def forward(self, x: Tensor) -> Tensor:
        """Bring each channel to mean 0 and variance 1 over the batch, then scale and shift."""
        if self.training and len(x) == 1:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        normed: Tensor = super().forward(x)
        return normed


def shrunk(name: str, size: Size, sets: list[tuple[int, bool]], remedy: str) -> Size:
    """Return the size after sets of a convolution and a max-pooling of 2.

    Args:
        name: Of the network, for the message.
        size: Volume (D, H, W).
        sets: Kernel size and whether there is padding, of each set.
        remedy: Option that helps beside a larger volume.

    Raises:
        ModelError: nothing is left along an axis.
    """
    left = list(size)
    for number, (kernel, padding) in enumerate(sets, 1):
        for axis, before in enumerate(left):
            after = (before + (2 * ((kernel - 1) // 2) if padding else 0) - kernel + 1) // 2
            if after < 1:
                raise ModelError(
                    f"network {name}: a volume of {list(size)} voxels is too small: of {before} voxels along "
                    f"{'DHW'[axis]} set {number} leaves none; expected at least {_least(kernel, padding)} there. "
                    f"Use larger volumes (sample.patch_size), fewer network.features, or {remedy}."
                )
            left[axis] = after
    return left[0], left[1], left[2]


def _least(kernel: int, padding: bool) -> int:
    """Return the smallest side that a set leaves a voxel of."""
    return kernel + 1 - (2 * ((kernel - 1) // 2) if padding else 0)
