"""A residual network for classification: residual-shortcut blocks, the mean over all voxels, one linear layer."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, model_validator
from torch import nn

from pipeline.errors import ModelError
from pipeline.networks.base import Network, Size, networks
from pipeline.networks.blocks import Norm, ResidualBlock, conv_norm_act


def _three(value: Any) -> Any:
    """Let one number stand for all three axes."""
    return (value, value, value) if isinstance(value, int) else value


Triple = Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], BeforeValidator(_three)]


@networks.register
class ResNet3d(Network):
    """Residual-shortcut blocks (He 2016) and a mean over space, so that any volume fits that is not too small."""

    name: Literal["resnet3d"] = "resnet3d"
    features: tuple[PositiveInt, ...] = Field(default=(16, 32, 64, 128), min_length=1)
    """Channels at each level, full resolution first."""
    blocks: PositiveInt = 1
    """Residual blocks at each level; the first one of a level takes the step to it."""
    strides: tuple[Triple, ...] | None = None
    """Step along (D, H, W) from each level to the next, one fewer than levels; 2 everywhere where absent."""
    norm: Norm = "batch"
    """Normalisation after each convolution; `instance` for batches of a few volumes."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of numbers set to zero before the last layer while training."""

    @model_validator(mode="after")
    def _fits_levels(self) -> "ResNet3d":
        if self.strides is not None and len(self.strides) != len(self.features) - 1:
            raise ValueError(
                f"strides has {len(self.strides)} entries; expected {len(self.features) - 1} for "
                f"{len(self.features)} levels of features"
            )
        return self

    def build(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network; logits are (B, out_channels).

        Raises:
            ModelError: the volume is smaller than the strides.
        """
        strides: tuple[Size, ...] = self.strides or ((2, 2, 2),) * (len(self.features) - 1)
        self._check(patch_size, strides)
        widths = self.features
        layers: list[nn.Module] = [conv_norm_act(in_channels, widths[0], (3, 3, 3), norm=self.norm)]
        for level, width in enumerate(widths):
            for number in range(self.blocks):
                is_step = level > 0 and number == 0
                before, stride = (widths[level - 1], strides[level - 1]) if is_step else (width, (1, 1, 1))
                layers.append(ResidualBlock(before, width, stride=stride, norm=self.norm))
        head = nn.Linear(widths[-1], out_channels)
        return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Dropout(self.dropout), head)

    def _check(self, patch_size: Size, strides: tuple[Size, ...]) -> None:
        for axis, side in enumerate(patch_size):
            step = 1
            for stride in strides:
                step *= stride[axis]
            if side < step:
                raise ModelError(
                    f"network resnet3d: the volume has {side} voxels along {'DHW'[axis]}; expected at least {step}, "
                    f"the product of the strides along {'DHW'[axis]}. Use larger volumes (sample.patch_size), fewer "
                    "of network.features, or strides of 1 along that axis."
                )
