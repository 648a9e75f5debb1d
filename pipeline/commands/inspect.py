"""Show a network, or one layer, as a table: shapes, parameters, receptive field, multiply-adds and memory.

Nothing is computed and no input is allocated, so any size may be asked for.

Examples:
  python -m pipeline inspect configs/ct.yaml
  python -m pipeline inspect configs/ct.yaml --input 1,1,128,256,256
  python -m pipeline inspect --layer Conv3d:1,2,kernel=2x3x3 --input 1,1,301,512,512
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from pipeline.config import RunConfig
    from pipeline.networks.inspection import Inspection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="YAML file whose network is shown")
    parser.add_argument("--layer", metavar="LAYER", help="one layer instead, such as Conv3d:1,2,kernel=2x3x3")
    parser.add_argument("--input", metavar="B,C,D,H,W", help="size of the input; without it one patch of the config")
    parser.add_argument("--classes", type=int, metavar="K", help="channels of the logits; without it from the data set")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change an option of the config; may be given several times")  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Print the table."""
    from pipeline.errors import ConfigError

    if (arguments.config is None) == (arguments.layer is None):
        raise ConfigError("inspect: expected a CONFIG or --layer, one of the two.")
    return _show_layer(arguments) if arguments.layer else _show_network(arguments)


def _show_layer(arguments: argparse.Namespace) -> int:
    from pipeline.errors import ConfigError
    from pipeline.networks.inspection import inspect_module
    from pipeline.networks.single_layer import parse_layer, parse_shape, size_formula

    if arguments.input is None:
        raise ConfigError("inspect --layer: expected --input too, such as --input 1,1,301,512,512.")
    layer, shape = parse_layer(arguments.layer), parse_shape(arguments.input)
    formula = size_formula(layer, shape)
    found = inspect_module(layer, shape)
    print(f"{arguments.layer}: {found.input} -> {found.output}, {_many(found.parameters)} parameters")
    print(f"{_short(found.multiply_adds)} multiply-adds, {_bytes(found.layers[0].bytes)} of output in float32")
    print("\n".join(formula))
    return 0


def _show_network(arguments: argparse.Namespace) -> int:
    from pipeline.commands.arguments import config_of
    from pipeline.networks.inspection import inspect_module

    config = config_of(arguments)
    module, shape = _build(config, arguments.input, arguments.classes)
    spacing = config.ingest.spacing_mm
    print(_table(inspect_module(module, shape), spacing if isinstance(spacing, tuple) else None))
    return 0


def _build(config: "RunConfig", input_text: str | None, classes: int | None) -> tuple["nn.Module", tuple[int, ...]]:
    """Return the network of a config and the size of its input."""
    import torch

    from pipeline.errors import ConfigError
    from pipeline.networks.single_layer import parse_shape

    if any(path == "network" or path.startswith("network.") for path in config.left_open):
        raise ConfigError(
            "inspect: the network is auto; expected one that is stated. Run 'python -m pipeline plan' first."
        )
    shape = parse_shape(input_text) if input_text else None
    if shape is None and config.sample.patch_size == "auto":
        raise ConfigError("inspect: sample.patch_size is auto; expected --input, such as --input 1,1,64,96,96.")
    if shape is not None and len(shape) != 5:
        raise ConfigError(f"--input {input_text}: expected five numbers for a 3-D network: batch, channels, D, H, W.")
    if shape is None or classes is None:
        manifest = config.dataset.cases()
        labels = config.labels or manifest.labels
        shape = shape or (1, len(manifest.channels), *map(int, config.sample.patch_size))
        classes = classes or len(config.task.class_names(labels, manifest.class_names))
    with torch.device("meta"):
        return config.network.build(shape[1], classes, (shape[2], shape[3], shape[4])), shape


def _table(found: "Inspection", spacing_mm: Sequence[float] | None) -> str:
    heads = ["layer", "kind", "kernel", "stride", "padding", "output", "parameters", "sees voxels", "sees mm",
             "multiply-adds", "memory"]  # fmt: skip
    rows = [
        [
            layer.name, layer.kind, _sides(layer.kernel), _sides(layer.stride), _sides(layer.padding),
            _sides(layer.shape), _many(layer.parameters) if layer.parameters else "",
            _seen(layer.receptive_field, None),
            _seen(layer.receptive_field, spacing_mm) if spacing_mm else "",
            _short(layer.multiply_adds) if layer.multiply_adds else "", _bytes(layer.bytes) if layer.bytes else "",
        ]
        for layer in found.layers
    ]  # fmt: skip
    if spacing_mm is None:
        heads, rows = [*heads[:8], *heads[9:]], [[*row[:8], *row[9:]] for row in rows]
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"input {_sides(found.input)}, output {_sides(found.output)}",
            f"{_many(found.parameters)} parameters, {_bytes(found.parameters * 4)} in float32",
            f"{_short(found.multiply_adds)} multiply-adds forward, about three times that in a training step",
            f"activations in float32: {_bytes(found.inference_bytes)} at once for inference, "
            f"{_bytes(found.training_bytes)} for training (without what convolutions need to work)",
        ]
    )


def _sides(values: Sequence[int]) -> str:
    return "x".join(map(str, values))


def _seen(size: Sequence[float] | None, spacing_mm: Sequence[float] | None) -> str:
    if size is None:
        return "all"
    if spacing_mm is None:
        return "x".join(f"{value:g}" for value in size)
    return "x".join(f"{value * step:.4g}" for value, step in zip(size, spacing_mm, strict=True))


def _many(value: int) -> str:
    return f"{value:,}".replace(",", " ")


def _short(value: float) -> str:
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.4g}{unit}"
        value /= 1000
    return f"{value:.4g} T"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} GiB"
