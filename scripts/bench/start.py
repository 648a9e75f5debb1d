"""How long `python -m pipeline --help` takes, against an empty Python process.

Run: .venv/bin/python scripts/bench/start.py
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def seconds(*words: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True, cwd=ROOT)
    return time.perf_counter() - started


def main() -> None:
    commands = {
        "--help": ["-m", "pipeline", "--help"],
        "run --help": ["-m", "pipeline", "run", "--help"],
        "python": ["-c", ""],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(11):
        for name, words in commands.items():
            times[name].append(seconds(*words))
    for name, found in times.items():
        print(f"{name:12} {statistics.median(found):.3f} s (from {min(found):.3f} to {max(found):.3f})")


if __name__ == "__main__":
    main()
