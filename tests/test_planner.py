"""`auto` is decided once, from facts, and read back."""

import json
from pathlib import Path

from pipeline import planner
from pipeline.config import check
from pipeline.datasets.base import Manifest
from pipeline.records import DatasetFacts

TREE = {
    "dataset": {"name": "phantom"},
    "network": {"name": "unet", "features": [8, 16]},
    "sample": {"patch_size": [8, 8, 8]},
    "ingest": {"spacing_mm": [1, 1, 1]},
}


def test_a_decision_is_written_down_and_kept(tmp_path: Path) -> None:
    facts = DatasetFacts(manifest=Manifest(cases=()), facts={})
    config = check(TREE, "here")
    assert config.train.precision == "auto"
    resolved = planner.resolve(config, facts, tmp_path)
    assert resolved.train.precision in ("fp32", "bf16", "fp16")
    note = tmp_path / planner.AUTO
    saved = json.loads(note.read_text())
    key = next(iter(saved))
    saved[key]["train.precision"] = "fp16"  # as if another machine had decided
    note.write_text(json.dumps(saved))
    assert planner.resolve(config, facts, tmp_path).train.precision == "fp16"


def test_nothing_is_decided_that_the_user_said(tmp_path: Path) -> None:
    tree = {**TREE, "train": {"precision": "fp32"}, "predict": {"precision": "fp32"}}
    config = check(tree, "here")
    assert planner.resolve(config, DatasetFacts(manifest=Manifest(cases=()), facts={}), tmp_path) == config
    assert not (tmp_path / planner.AUTO).exists()
