"""A training step in bf16 against fp32: .venv/bin/python -m scripts.bench.precision.

The network, batch and patch of configs/hippocampus.yaml: forward, Dice and cross-entropy, backward, optimiser.
"""

import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pipeline.config import load_config
from pipeline.learning.precision import autocast, choose_layout
from pipeline.losses.base import Target, losses
from pipeline.machine import keep_freed_memory
from scripts.bench.measure import interleaved, row

CONFIG = Path("configs/hippocampus.yaml")
CLASSES = 3


def main() -> None:
    keep_freed_memory()
    config = load_config(CONFIG)
    size = config.sample.patch_size
    size = (32, 48, 40) if size == "auto" else size
    steps = {precision: step(config, size, precision) for precision in ("fp32", "bf16")}
    times = interleaved(steps, 15)
    middle = {name: statistics.median(found) for name, found in times.items()}
    row(
        f"training step in bf16 against fp32, batch {config.train.batch_size} of {' x '.join(map(str, size))}",
        f"{middle['fp32'] / middle['bf16']:.2f} x ({middle['bf16']:.3f} s against {middle['fp32']:.3f} s)",
    )


def step(config, size: tuple[int, int, int], precision: str) -> Callable[[], None]:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    device = torch.device("cpu")
    layout = choose_layout("auto", precision, device)  # type: ignore[arg-type]
    module: nn.Module = config.network.build(1, CLASSES, size).to(memory_format=layout)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    loss = losses.parse("dice_ce").build()
    image = torch.randn(config.train.batch_size, 1, *size).to(memory_format=layout)
    truth = torch.randint(0, CLASSES, (config.train.batch_size, *size))

    def run() -> None:
        optimizer.zero_grad()
        with autocast(precision, device):  # type: ignore[arg-type]
            logits = module(image)
        outputs = logits if isinstance(logits, (list, tuple)) else [logits]
        loss(outputs[0].float(), Target(truth)).backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
