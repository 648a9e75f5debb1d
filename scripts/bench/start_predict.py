"""How long `predict` takes to its first windows: .venv/bin/python scripts/bench/start_predict.py IMAGE MODEL...

The line `to do:` comes after two windows of noise went through the network, so the time to it is an upper bound.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(image: Path, models: list[Path]) -> None:
    for model in models:
        found = [seconds(model, image) for _ in range(6)][1:]
        print(f"{model.name}: {statistics.median(found):.2f} s (from {min(found):.2f} to {max(found):.2f})")


def seconds(model: Path, image: Path) -> float:
    command = [sys.executable, "-m", "pipeline", "predict", str(model), str(image), "--output", "none", "--dry-run"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        while not process.stdout.readline().startswith("to do:"):
            if process.poll() is not None:
                raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
        return time.perf_counter() - started


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), [Path(one).resolve() for one in sys.argv[2:]])
