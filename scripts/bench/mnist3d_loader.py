"""Measures how many whole small volumes a second reach a training: python -m scripts.bench.mnist3d_loader."""

import tempfile
import time
from pathlib import Path

import numpy as np

from pipeline.imaging.block_store import BlockCase, ingest_block, open_block
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import HuWindow, window
from pipeline.imaging.prepare import PrepareOptions
from pipeline.learning.patches import PatchCase
from pipeline.learning.prefetch import InOrder
from pipeline.learning.volumes import VolumeSource
from pipeline.records import SamplingPlan
from pipeline.transforms.base import transforms

COUNT, SIDE, BATCH, STEPS = 10_000, 16, 100, 200
AUGMENT = {"none": [], "rotation of half": [transforms.parse({"name": "affine", "probability": 0.5})]}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "grids.npz"
        np.savez(file, X=np.random.default_rng(0).random((COUNT, SIDE**3), np.float32))
        began = time.perf_counter()
        ingest_block(file, "X", PrepareOptions(crop="none"), Path(folder) / "entry")
        print(f"stored {COUNT} volumes of {SIDE}^3 in {time.perf_counter() - began:.1f} s, once")
        began = time.perf_counter()
        block = open_block(Path(folder) / "entry")
        cases = [BlockCase(f"c{number}", block, number) for number in range(COUNT)]
        normalise, truth = HuWindow(range_hu=(0, 1)), np.eye(10, dtype=np.float32)[0]
        chosen = [PatchCase(c, (window(normalise, c.meta.stats[0]),), None, truth)
                  for c in cases]  # fmt: skip
        print(f"opened in {time.perf_counter() - began:.1f} s, once a training")
        plan = SamplingPlan(
            train=tuple(c.case_id for c in cases), validation=(), patch_size=(SIDE,) * 3, foreground=0.0
        )
        for name, augment in AUGMENT.items():
            source = VolumeSource(chosen, plan, batch_size=BATCH, labels=Labels(), transforms=augment)
            for workers in (1, 2):
                with InOrder(source.batch, workers=workers) as batches:
                    batches(0)
                    began = time.perf_counter()
                    for step in range(1, STEPS):
                        batches(step)
                    rate = (STEPS - 1) * BATCH / (time.perf_counter() - began)
                print(f"augmentation {name}, {workers} thread(s): {rate:,.0f} volumes/s")


if __name__ == "__main__":
    main()
