"""Cases of a made-up block for tests."""

import numpy as np

from pipeline.imaging.block_store import BlockCase, ingest_block, open_block
from pipeline.imaging.normalise import HuWindow, window
from pipeline.imaging.prepare import PrepareOptions
from pipeline.learning.patches import PatchCase
from pipeline.records import SamplingPlan

SIDE = 6


def block_cases(folder, count=12, classes=3, seed=0):
    """Return volumes whose mean says their class."""
    random = np.random.default_rng(seed)
    values = random.random((count, SIDE, SIDE, SIDE)).astype(np.float32) / 2
    values += (np.arange(count) % classes)[:, None, None, None] * 0.15
    np.savez(folder / "grids.npz", X=values)
    ingest_block(folder / "grids.npz", "X", PrepareOptions(crop="none"), folder / "entry")
    block = open_block(folder / "entry")
    return [BlockCase(f"c{index:02d}", block, index) for index in range(count)]


def patch_cases_of(cases, classes=3):
    """Return them as training reads them, normalised from 0..1 to -1..1."""
    normalise = HuWindow(range_hu=(0, 1))
    return [
        PatchCase(
            case, (window(normalise, case.meta.stats[0]),), None, np.eye(classes, dtype=np.float32)[number % classes]
        )
        for number, case in enumerate(cases)
    ]


def plan_of(cases, classes=3, foreground=0.0, weights=None):
    """Return a plan of whole volumes."""
    members = {k: tuple(case.case_id for n, case in enumerate(cases) if n % classes == k) for k in range(classes)}
    return SamplingPlan(
        train=tuple(case.case_id for case in cases), validation=(), patch_size=(SIDE,) * 3, foreground=foreground,
        class_weights=weights or {}, cases_of_class=members,
    )  # fmt: skip
