"""The blocks networks are made of: convolution-activation-pool, residual shortcut, pooling and up-sampling.

Shapes: B batch, C channels, D H W voxels along depth, height and width.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.networks.base import Size

Norm = Literal["instance", "batch", "none"]
"""Normalisation after a convolution: each case and channel alone, each channel over the batch, or none."""

SLOPE = 0.01
"""Slope of LeakyReLU below zero, for activations and for the initial weights that suit them."""


class ConvMake(nn.Module):
    """A convolution, an optional norm, LeakyReLU and max-pooling; a side of n voxels comes out as n // pool.

    Without padding a convolution first takes kernel - 1 voxels off each side.

    Args:
        in_channels: Channels of the input (B, C, D, H, W).
        out_channels: Channels of the output.
        kernel: Kernel size along (D, H, W); 1 along an axis keeps thick slices apart.
        padding: Whether to pad with zeros so that the convolution keeps the size.
        pool: Pooling kernel and stride; (1, 1, 1) for none.
        norm: Normalisation between convolution and activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Size = (3, 3, 3),
        padding: bool = False,
        pool: Size = (2, 2, 2),
        norm: Norm = "none",
    ) -> None:
        super().__init__()
        self.convolution = conv(in_channels, out_channels, kernel, padding=padding, bias=norm == "none")
        self.norm = normalisation(norm, out_channels)
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)
        self.pool = MaxPool(pool)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, D, H, W) to (B, out_channels, D', H', W')."""
        pooled: Tensor = self.pool(self.activation(self.norm(self.convolution(x))))
        return pooled


class ResidualBlock(nn.Module):
    """Two convolution-norm-activation steps whose input is added before the last activation (He 2016).

    The shortcut is a 1x1x1 convolution with norm where stride or channels change, else the input itself.

    Args:
        in_channels: Channels of the input (B, C, D, H, W).
        out_channels: Channels of the output.
        kernel: Kernel size of both convolutions along (D, H, W).
        stride: Stride of the first convolution and of the shortcut.
        norm: Normalisation after each convolution.
        dropout: Share of channels set to zero after the first activation while training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: Size = (3, 3, 3),
        stride: Size = (1, 1, 1),
        norm: Norm = "instance",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.first = conv_norm_act(in_channels, out_channels, kernel, stride=stride, norm=norm, dropout=dropout)
        self.second = conv_norm_act(out_channels, out_channels, kernel, norm=norm, activation=False)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels or stride != (1, 1, 1):
            self.shortcut = conv_norm_act(
                in_channels, out_channels, (1, 1, 1), stride=stride, norm=norm, activation=False
            )
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, D, H, W) to (B, out_channels, D / stride, H / stride, W / stride), rounded up."""
        summed: Tensor = self.activation(self.second(self.first(x)) + self.shortcut(x))
        return summed


class InstanceNorm(nn.InstanceNorm3d):
    """Instance norm whose output keeps the channels-last layout of its input.

    torch's own returns plain layout, so that every later layer converts; keeping it made a training step
    of a U-Net on a CPU 10-20 % faster.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Bring each channel of each case of (B, C, D, H, W) to mean 0 and variance 1, then scale and shift."""
        normed: Tensor = super().forward(x)
        last = torch.channels_last_3d
        return normed.contiguous(memory_format=last) if x.is_contiguous(memory_format=last) else normed


class MaxPool(nn.Module):
    """Max-pooling with stride equal to kernel; voxels beyond the last whole window are left out.

    On CUDA the backward of `nn.MaxPool3d` adds atomically, in no fixed order, so there the windows are
    reshaped and reduced with `amax`, which gives the same values and runs alike each time. (On a CPU that
    takes 15 times as long, and `nn.MaxPool3d` is deterministic.) The two differ in one thing: `amax` shares
    the gradient among equal maxima, `nn.MaxPool3d` gives it to the first.
    """

    def __init__(self, kernel: Size) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, D, H, W) to (B, C, D // kernel, H // kernel, W // kernel)."""
        if self.kernel == (1, 1, 1):
            return x
        return pool_by_amax(x, self.kernel) if x.is_cuda else functional.max_pool3d(x, self.kernel)

    def extra_repr(self) -> str:
        """Show the kernel when the network is printed."""
        return f"kernel={self.kernel}"


class UpSample(nn.Module):
    """A 1x1x1 convolution, then each voxel repeated `stride` times along each axis.

    As fit as a transposed convolution in front of a 3x3x3 one, and on a CPU twice as fast; its backward is
    a sum over each window, which is deterministic everywhere.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: Size) -> None:
        super().__init__()
        self.convolution = conv(in_channels, out_channels, (1, 1, 1))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, D, H, W) to (B, out_channels, D * stride, H * stride, W * stride)."""
        return repeat_voxels(self.convolution(x), self.stride)


def conv(
    in_channels: int,
    out_channels: int,
    kernel: Size,
    *,
    stride: Size = (1, 1, 1),
    padding: bool = True,
    bias: bool = True,
) -> nn.Conv3d:
    """Make a convolution whose padding, if any, keeps the size at stride 1; weights after He (2015)."""
    d, h, w = ((side - 1) // 2 if padding else 0 for side in kernel)
    layer = nn.Conv3d(in_channels, out_channels, kernel, stride=stride, padding=(d, h, w), bias=bias)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv_norm_act(
    in_channels: int,
    out_channels: int,
    kernel: Size,
    *,
    stride: Size = (1, 1, 1),
    norm: Norm = "instance",
    activation: bool = True,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Make convolution, norm and, where asked, LeakyReLU and dropout of whole channels."""
    layers: list[nn.Module] = [conv(in_channels, out_channels, kernel, stride=stride, bias=norm == "none")]
    if norm != "none":
        layers.append(normalisation(norm, out_channels))
    if activation:
        layers.append(nn.LeakyReLU(SLOPE, inplace=True))
    if dropout > 0:
        layers.append(nn.Dropout3d(dropout))
    return nn.Sequential(*layers)


def normalisation(norm: Norm, channels: int) -> nn.Module:
    """Make the norm called so, with a learned scale and offset a channel."""
    if norm == "none":
        return nn.Identity()
    return InstanceNorm(channels) if norm == "instance" else nn.BatchNorm3d(channels)


def up_sample(kind: Literal["nearest", "transposed"], in_channels: int, out_channels: int, stride: Size) -> nn.Module:
    """Make a layer that multiplies the size by `stride`; both kinds run alike each time, also on CUDA."""
    if kind == "nearest":
        return UpSample(in_channels, out_channels, stride)
    return nn.ConvTranspose3d(in_channels, out_channels, stride, stride)


def pool_by_amax(x: Tensor, kernel: Size) -> Tensor:
    """Max-pool (B, C, D, H, W) with stride equal to kernel through a reshape."""
    b, c, *sides = x.shape
    d, h, w = (side // k for side, k in zip(sides, kernel, strict=True))
    kd, kh, kw = kernel
    whole = x[:, :, : d * kd, : h * kh, : w * kw]
    return whole.reshape(b, c, d, kd, h, kh, w, kw).amax((3, 5, 7))


def repeat_voxels(x: Tensor, stride: Size) -> Tensor:
    """Repeat each voxel of (B, C, D, H, W) `stride` times along each axis."""
    if x.is_cuda:
        return repeat_by_expand(x, stride)
    return functional.interpolate(x, scale_factor=[float(step) for step in stride], mode="nearest")


def repeat_by_expand(x: Tensor, stride: Size) -> Tensor:
    """Repeat voxels through views, so that the backward is a plain sum, which is deterministic on CUDA."""
    b, c, d, h, w = x.shape
    sd, sh, sw = stride
    repeated = x[:, :, :, None, :, None, :, None].expand(b, c, d, sd, h, sh, w, sw)
    return repeated.reshape(b, c, d * sd, h * sh, w * sw)
