"""What a network is: options that build a torch module."""

from abc import abstractmethod

from torch import nn

from pipeline.plugin import Plugin, Registry

Size = tuple[int, int, int]
"""Voxels along (D, H, W)."""


class Network(Plugin):
    """A 3-D network; `build` makes it."""

    @abstractmethod
    def build(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the module with freshly initialised weights.

        Args:
            in_channels: Channels of the input (B, C, D, H, W).
            out_channels: Classes: channels of the logits.
            patch_size: Input size (D, H, W); only networks whose layers depend on it need it.

        Returns:
            Module from (B, C, D, H, W) to logits: (B, K, D, H, W) for segmentation, (B, K) for
            classification. In training mode it may return a list, full resolution first (deep supervision).

        Raises:
            ModelError: the patch size does not suit the network.
        """

    def divisor(self) -> Size:
        """Return what each side of a patch must be divisible by."""
        return (1, 1, 1)


networks: Registry[Network] = Registry("network", Network, "pipeline.networks")
