"""A U-Net of residual-shortcut or ConvMake blocks, with kernels and strides of its own at each level."""

from math import prod
from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field, PositiveInt, model_validator
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.networks.base import Network, Size, networks
from pipeline.networks.blocks import ConvMake, MaxPool, Norm, ResidualBlock, conv, conv_norm_act, up_sample


def _three(value: Any) -> Any:
    """Let one number stand for all three axes."""
    return (value, value, value) if isinstance(value, int) else value


Triple = Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], BeforeValidator(_three)]

_SUPERVISED = 3
"""Levels that give logits under deep supervision; coarser ones would weigh too little to matter."""


@networks.register
class UNet(Network):
    """Encoder and decoder joined by skip connections at each level (Ronneberger 2015, Çiçek 2016)."""

    name: Literal["unet"] = "unet"
    block: Literal["residual", "convmake"] = "residual"
    """What the encoder is made of: residual-shortcut blocks, or ConvMake (one convolution, then a max-pool)."""
    features: tuple[PositiveInt, ...] = Field(default=(16, 32, 64, 128), min_length=1)
    """Channels at each level, full resolution first."""
    kernels: tuple[Triple, ...] | None = None
    """Kernel size along (D, H, W) at each level, odd; 3 everywhere where absent. [1, 3, 3] for thick slices."""
    strides: tuple[Triple, ...] | None = None
    """Step along (D, H, W) from each level to the next, one fewer than levels; 2 everywhere where absent."""
    norm: Norm = "instance"
    """Normalisation after each convolution."""
    decoder_convolutions: int = Field(default=2, ge=1, le=4)
    """Convolutions at each level of the decoder."""
    up_sampling: Literal["nearest", "transposed"] = "nearest"
    """From a level to the finer one: 1x1x1 convolution and repeated voxels, or a transposed convolution."""
    deep_supervision: bool = False
    """Whether coarser levels give logits too while training."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of channels set to zero in each block while training."""

    @model_validator(mode="after")
    def _fits_levels(self) -> "UNet":
        levels = len(self.features)
        for field, values, expected in (("kernels", self.kernels, levels), ("strides", self.strides, levels - 1)):
            if values is not None and len(values) != expected:
                raise ValueError(f"{field} has {len(values)} entries; expected {expected} for {levels} features")
        if any(side % 2 == 0 for kernel in self.kernels or () for side in kernel):
            raise ValueError(f"kernels are {[list(kernel) for kernel in self.kernels or ()]}; expected odd numbers")
        return self

    def divisor(self) -> Size:
        """Return the product of the strides along (D, H, W)."""
        d, h, w = (prod(stride[axis] for stride in self._strides()) for axis in range(3))
        return (d, h, w)

    def build(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network; logits are (B, out_channels, D, H, W).

        Raises:
            ModelError: a side of the patch is no multiple of the strides, or the patch shrinks to one voxel.
        """
        self._check(patch_size)
        kernels = self.kernels or ((3, 3, 3),) * len(self.features)
        return UNetModule(self, in_channels, out_channels, kernels, self._strides())

    def _strides(self) -> tuple[Size, ...]:
        return ((2, 2, 2),) * (len(self.features) - 1) if self.strides is None else self.strides

    def _check(self, patch_size: Size) -> None:
        for axis, side, step in zip("DHW", patch_size, self.divisor(), strict=True):
            if side % step:
                near = " or ".join(str(times * step) for times in (side // step, side // step + 1) if times)
                raise ModelError(
                    f"network unet: the patch has {side} voxels along {axis}; expected a multiple of {step}, the "
                    f"product of the strides there. Set sample.patch_size to {near}, or change network.strides."
                )
        if self.norm == "instance" and tuple(patch_size) == self.divisor():
            raise ModelError(
                f"network unet: a patch of {list(patch_size)} voxels shrinks to a single one at the coarsest level, "
                "which instance norm turns to zero; expected at least two. Use a larger patch or fewer levels."
            )


class UNetModule(nn.Module):
    """The layers of `UNet`; in training mode with deep supervision the output is a list, finest first."""

    def __init__(
        self, options: UNet, in_channels: int, out_channels: int, kernels: tuple[Size, ...], strides: tuple[Size, ...]
    ) -> None:
        super().__init__()
        features = options.features
        self.encoder, self.ups, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before = in_channels
        for width, kernel, step in zip(features, kernels, ((1, 1, 1), *strides), strict=True):
            self.encoder.append(_encoder_level(options, before, width, kernel, step))
            before = width
        for level, (width, step) in enumerate(zip(features[:-1], strides, strict=True)):
            self.ups.append(up_sample(options.up_sampling, features[level + 1], width, step))
            self.decoder.append(_decoder_level(options, width, kernels[level]))
        supervised = features[: max(1, len(strides))][: _SUPERVISED if options.deep_supervision else 1]
        self.heads = nn.ModuleList(conv(width, out_channels, (1, 1, 1)) for width in supervised)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map (B, C, D, H, W) to logits (B, K, D, H, W), or to a list of them, each level coarser by its stride."""
        skips = []
        for level in self.encoder:
            x = level(x)
            skips.append(x)
        outputs = [skips.pop()]
        for skip, up, level in zip(skips[::-1], self.ups[::-1], self.decoder[::-1], strict=True):
            outputs.append(level(torch.cat([skip, up(outputs[-1])], 1)))
        finest_first = outputs[::-1]
        if self.training and len(self.heads) > 1:
            return [head(features) for head, features in zip(self.heads, finest_first, strict=False)]
        logits: Tensor = self.heads[0](finest_first[0])
        return logits


def _encoder_level(options: UNet, in_channels: int, out_channels: int, kernel: Size, step: Size) -> nn.Module:
    """Make what leads to a level from the one before: a strided residual block, or a max-pool and a convolution."""
    if options.block == "residual":
        return ResidualBlock(
            in_channels, out_channels, kernel=kernel, stride=step, norm=options.norm, dropout=options.dropout
        )
    # The pool of a ConvMake comes after the skip connection has left, so it stands in front of the next level.
    level = ConvMake(in_channels, out_channels, kernel=kernel, padding=True, pool=(1, 1, 1), norm=options.norm)
    layers: list[nn.Module] = [MaxPool(step), level]
    if options.dropout > 0:
        layers.append(nn.Dropout3d(options.dropout))
    return nn.Sequential(*layers)


def _decoder_level(options: UNet, width: int, kernel: Size) -> nn.Module:
    """Make the convolutions that follow the skip connection, whose channels double the first one's input."""
    inputs = (2 * width,) + (width,) * (options.decoder_convolutions - 1)
    return nn.Sequential(
        *(conv_norm_act(each, width, kernel, norm=options.norm, dropout=options.dropout) for each in inputs)
    )
