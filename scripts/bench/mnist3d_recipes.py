"""Runs the published recipes with and without the reshape error: python -m scripts.bench.mnist3d_recipes FOLDER.

The error is a network of this script alone: its colours are looked up, then reshaped where the axis must be moved.
"""

import sys
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from pipeline.config import load_config
from pipeline.networks.base import Size, networks
from pipeline.networks.colours import ColourMap
from pipeline.networks.mnist3d import Mnist3dNetwork
from pipeline.networks.mnist3d_keras import Mnist3dKeras
from pipeline.progress import TerminalProgress
from pipeline.run import run

RECIPES = {"pytorch": ([], "mnist3d"), "keras": ([0], "mnist3d_keras")}
"""Recipe -> folds to run, and its network."""


class Reshaped(ColourMap):
    """The colour map as the notebooks apply it."""

    def forward(self, x: Tensor) -> Tensor:
        moved = super().forward(x)
        return moved.movedim(1, -1).reshape(moved.shape)


@networks.register
class ReshapedMnist3d(Mnist3dNetwork):
    """The PyTorch network behind the reshape error."""

    name: Literal["mnist3d_reshaped"] = "mnist3d_reshaped"  # type: ignore[assignment]

    def build(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        return reshaped(super().build(in_channels, out_channels, patch_size))


@networks.register
class ReshapedKeras(Mnist3dKeras):
    """The Keras network behind the reshape error."""

    name: Literal["mnist3d_keras_reshaped"] = "mnist3d_keras_reshaped"  # type: ignore[assignment]

    def build(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        return reshaped(super().build(in_channels, out_channels, patch_size))


def reshaped(module: nn.Module) -> nn.Module:
    colours = module[0]  # type: ignore[index]
    module[0] = Reshaped(colours.name)  # type: ignore[operator]
    return module


def main(folder: Path, overrides: list[str]) -> None:
    for recipe, (folds, network) in RECIPES.items():
        for suffix in ("", "_reshaped"):
            where = [f"machine.runs={folder / 'runs'}", f"machine.cache={folder / 'cache'}"]
            config = load_config(Path(f"configs/mnist3d_{recipe}_recipe.yaml"), [*where, *overrides])
            options = config.network.model_dump() | {"name": network + suffix}
            config = config.model_copy(update={"network": networks.parse(options)})
            outcome = run(config, name=recipe + suffix, folds=folds, until="evaluate", progress=TerminalProgress())
            axis = "reshaped" if suffix else "moved"
            print(f"| {recipe} | {axis} | {outcome.headline['test accuracy']:.3f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
