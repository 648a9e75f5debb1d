"""Hundreds of kills while watching, and a thousand series through one reader: run by scripts/soak, not by the suite."""

import sys

import psutil

from pipeline.batch.child import Child, read_in
from pipeline.batch.exports import find_exports
from pipeline.machine import resident_memory_mb


def test_a_hundred_kills_while_watching(tmp_path, synthetic, watching):
    watching.kill_and_check(tmp_path, synthetic, kills=100, series=150)


def test_memory_after_a_hundred_and_after_a_thousand_series(tmp_path, synthetic):
    for number in range(20):
        synthetic.write(synthetic.make(number, slices=5), tmp_path / str(number))
    sources = find_exports([tmp_path]).sources
    seen = {}
    with Child() as child:
        read = read_in(child, ["image"])
        for count in range(1, 1001):
            read(sources[count % len(sources)])
            if count in (100, 1000):
                seen[count] = (resident_memory_mb(), psutil.Process(child._process.pid).memory_info().rss / 2**20)
        assert child.starts == 1
    told = ", ".join(f"{count}: {ours:.0f} and {theirs:.0f}" for count, (ours, theirs) in seen.items())
    sys.stdout.write(f"resident MiB of reader and child after series {told}\n")
    assert abs(seen[1000][0] - seen[100][0]) < 50
    assert abs(seen[1000][1] - seen[100][1]) < 50
