"""`auto` in a config: decided once, from facts, and read back; any planned value may say so."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline import planner
from pipeline.config import check, to_yaml
from pipeline.datasets.base import Manifest
from pipeline.errors import ConfigError
from pipeline.imaging.facts import CaseFacts, ChannelFacts, Intensities
from pipeline.imaging.volume import Geometry
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


def test_a_patch_has_the_form_of_the_median_case_and_suits_the_network(tmp_path: Path) -> None:
    geometry = Geometry(shape=(40, 200, 200), spacing_mm=(5.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    image = Intensities(voxels=1, minimum=0, maximum=1, mean=0, std=1, percentiles=(0.0,) * 9)
    channel = ChannelFacts(dtype="int16", sha256="", voxels_sha256="", nonzero=1, all=image)
    fact = CaseFacts(case_id="a", geometry=geometry, canonical=geometry, channels={"image": channel})
    facts = DatasetFacts(manifest=Manifest(cases=()), facts={"a": fact})
    tree = {**TREE, "sample": {"patch_size": "auto"}, "ingest": {"spacing_mm": [5.0, 2.0, 2.0]}}
    found = planner.resolve(check(tree, "here"), facts, tmp_path).sample.patch_size
    assert all(side % 2 == 0 for side in found)
    assert np.prod(found) <= 64**3
    assert found[0] == 40
    assert found[1] == found[2] == 80  # of 100 in the case; the next larger would be too many voxels
    tree["ingest"] = {"spacing_mm": "auto"}
    assert planner.resolve(check(tree, "here"), facts, tmp_path).ingest.spacing_mm == (5.0, 1.0, 1.0)


def test_auto_anywhere(planning, tmp_path: Path):
    config = check(
        {
            "dataset": {"name": "phantom"}, "network": "auto", "normalise": "auto", "folds": {"k": "auto"},
            "train": {"batch_size": "auto", "epochs": "auto", "max_minutes": 5},
        },
        "here",
    )  # fmt: skip
    assert "network.features" in config.left_open
    assert check(yaml.safe_load(to_yaml(config)), "again") == config
    found = planner.resolve(config, planning.facts(), tmp_path)
    assert not found.left_open
    assert found.network.features[:2] in ((16, 32), (8, 16))
    assert found.normalise.name == "zscore"
    assert found.folds.k == 5
    assert found.train.max_minutes == 5
    assert found.sample.patch_size == (40, 56, 40)
    assert planner.resolve(config, planning.facts(), tmp_path) == found


def test_auto_strides_of_a_stated_network(planning, tmp_path: Path):
    network = {"name": "unet", "features": [4, 8, 16], "strides": "auto", "kernels": "auto"}
    tree = {"dataset": {"name": "phantom"}, "network": network, "sample": {"patch_size": [6, 48, 48]}}
    found = planner.resolve(check(tree, "here"), planning.facts((6, 44, 44), (4.0, 1.0, 1.0)), tmp_path)
    assert found.network.features == (4, 8, 16)
    assert found.network.strides == ((1, 2, 2), (1, 2, 2))
    assert found.sample.patch_size == (6, 48, 48)


def test_auto_where_there_is_no_rule_is_refused():
    with pytest.raises(ConfigError, match=r"train\.accumulate"):
        check({"dataset": {"name": "phantom"}, "network": "auto", "train": {"accumulate": "auto"}}, "here")
