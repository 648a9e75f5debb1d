"""What `machine.keep_freed_memory` gives: forward passes and training steps with it and with glibc's defaults.

Run: .venv/bin/python scripts/bench/allocator.py [pairs]. Processes alternate; the ratio is the median over pairs.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def measure(keep: bool) -> dict[str, float]:
    import torch

    from pipeline.machine import keep_freed_memory
    from pipeline.networks.unet import UNet

    if keep:
        keep_freed_memory()
    torch.manual_seed(0)
    module = UNet(features=(16, 32, 64, 128)).build(1, 8, (48, 48, 48))
    image = torch.randn(2, 1, 48, 48, 48)

    def forward() -> None:
        with torch.inference_mode():
            module(image)

    def step() -> None:
        module(image).square().mean().backward()

    found = {}
    for name, work in (("forward", forward), ("step", step)):
        work()
        started = time.perf_counter()
        for _ in range(4):
            work()
        found[name] = (time.perf_counter() - started) / 4
    return found


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in ("kept", "default"):
        print(json.dumps(measure(sys.argv[1] == "kept")))
        return
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ratios: dict[str, list[float]] = {"forward": [], "step": []}
    for _ in range(pairs):
        one, other = (
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, how],
                    capture_output=True,
                    check=True,
                    text=True,
                    cwd=ROOT,
                    env={"PYTHONPATH": str(ROOT)},
                ).stdout
            )
            for how in ("default", "kept")
        )
        for name, found in ratios.items():
            found.append(one[name] / other[name])
    for name, found in ratios.items():
        spread = f"from {min(found):.2f} to {max(found):.2f}, {pairs} pairs"
        print(f"{name}: {statistics.median(found):.2f} x faster ({spread})")


if __name__ == "__main__":
    main()
