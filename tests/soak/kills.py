"""A short training killed again and again: how many starts went on, and whether its weights are those of no kill."""

import argparse
import contextlib
import io
import json
import random
import sys
import tempfile
from pathlib import Path

from conftest import load


def main() -> int:
    """Print what became of the kills; return 1 where anything differs from an undisturbed training."""
    parser = argparse.ArgumentParser(prog="scripts/soak kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="how many SIGKILLs (default: 50)")
    parser.add_argument("--seed", type=int, help="of the moments of the kills (default: drawn, and printed)")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    loop = load("learning/test_loop")
    with tempfile.TemporaryDirectory() as folder:
        told = io.StringIO()
        with contextlib.redirect_stdout(told):
            loop.main(Path(folder), given.kills, seed)
        killed, undisturbed = (loop.fingerprint(Path(folder) / name) for name in ("killed", "undisturbed"))
    kills, is_equal = json.loads(told.getvalue()), killed == undisturbed
    resumed, torn = sum(bool(kill["checkpoint"]) for kill in kills), sum(kill["half_written"] > 0 for kill in kills)
    sys.stdout.write(
        f"seed {seed}: {len(kills)} of {given.kills} kills struck, {torn} of them while a file was written\n"
        f"{resumed} starts went on from a checkpoint, {len(kills) - resumed} from the beginning; the training ended\n"
        f"weights, checkpoint and history: {'bit-identical to' if is_equal else 'NOT EQUAL to'} those without a kill\n"
    )
    return 0 if is_equal and len(kills) == given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
