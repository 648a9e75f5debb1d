"""One channel of voxel values shown to a network in the colours of a matplotlib colour map."""

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, ModelError
from pipeline.plugin import did_you_mean

_STEPS = 256


class ColourMap(nn.Module):
    """Turns each voxel value from -1 to 1 into the red, green and blue of a colour map.

    The colours become channels: (B, 1, D, H, W) to (B, 3, D, H, W). Looking them up gives (B, D, H, W, 3), whose
    last axis must be *moved*: a reshape to (B, 3, D, H, W) has the right shape and scrambles every voxel. The
    map is part of the network, so that inference cannot do without it or do it otherwise.

    Args:
        name: Of a colour map of matplotlib, e.g. `jet` or `Oranges`.

    Raises:
        ConfigError: matplotlib has no such colour map.
    """

    table: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("table", torch.from_numpy(colour_table(name)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, D, H, W) to (B, 3, D, H, W) in the same type; values beyond -1 and 1 have the end colours."""
        place = ((x[:, 0].float() + 1) * (_STEPS / 2)).long().clamp(0, _STEPS - 1)
        return self.table[place].movedim(-1, 1).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the name when the network is printed."""
        return self.name


def with_colours(name: str | None, in_channels: int) -> tuple[nn.Module, int]:
    """Return what goes before the first layer, and the channels that it leaves.

    Args:
        name: Colour map; None for the channels as they are.
        in_channels: Of the images.

    Raises:
        ConfigError: no such colour map.
        ModelError: a colour map is asked for, and there is not exactly one channel.
    """
    if name is None:
        return nn.Identity(), in_channels
    if in_channels != 1:
        raise ModelError(
            f"network: a colour map needs one channel of values; found {in_channels}. Leave network.colour_map out."
        )
    return ColourMap(name), 3


def colour_table(name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return the colours of a map, (256, 3) float32 from 0 to 1."""
    from matplotlib import colormaps

    if name not in colormaps:
        raise ConfigError(
            f"network.colour_map: matplotlib has no colour map called {name!r}{did_you_mean(name, list(colormaps))}. "
            "Expected for example jet, viridis or Oranges."
        )
    return np.asarray(colormaps[name](np.linspace(0, 1, _STEPS))[:, :3], np.float32)
