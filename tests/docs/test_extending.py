"""The page on extending: its module, its config and its examples work as they stand there."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.__main__ import main
from pipeline.config import RunConfig
from pipeline.plugin import Registry

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
MODULE = "\n".join(block for block in BLOCKS if block.startswith("# my_lab.py"))
OTHERS = [block for block in BLOCKS if not block.startswith("# my_lab.py")]
assert RunConfig  # brings every registry into being
CONFIG = re.search(r"```yaml\n(.*?)```", TEXT, re.DOTALL)[1]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with the module, the config and four small scans of three patients."""
    (tmp_path / "my_lab.py").write_text(MODULE)
    (tmp_path / "ward.yaml").write_text(CONFIG)
    (tmp_path / "scans").mkdir()
    for number, case in enumerate(("P01-1", "P01-2", "P02-1", "P03-1")):
        voxels = np.random.default_rng(number).normal(size=(8, 16, 16)).astype(np.float32)
        mask = np.zeros(voxels.shape, np.uint8)
        mask[2:5, 4:9, 4 : 9 + number] = 1
        sitk.WriteImage(sitk.GetImageFromArray(voxels + mask), str(tmp_path / "scans" / f"{case}.scan.nii.gz"))
        sitk.WriteImage(sitk.GetImageFromArray(mask), str(tmp_path / "scans" / f"{case}.mask.nii.gz"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = {kind: {cls.model_fields["name"].default: cls for cls in reg} for kind, reg in Registry.all.items()}
    yield tmp_path
    sys.modules.pop("my_lab", None)
    for kind, classes in before.items():
        Registry.all[kind]._classes = classes


def test_the_examples_run(lab):
    names: dict[str, object] = {"__name__": "page"}
    exec(compile(MODULE, str(lab / "my_lab.py"), "exec"), names)
    for kind, name in (("dataset", "ward_seven"), ("network", "slice_net"), ("loss", "soft_overlap")):
        del Registry.all[kind]._classes[name]
    del Registry.all["metric"]._classes["volume_ratio"]
    for block in OTHERS:
        exec(compile(block, str(PAGE), "exec"), names)


def test_its_data_set_can_be_divided(lab, capsys):
    assert main(["folds", "ward.yaml"]) == 0
    text = capsys.readouterr().out
    assert "with nodule" in text
    assert "no group and no image lies in two folds (3 groups" in text


def test_its_network_can_be_looked_at(lab, capsys):
    assert main(["inspect", "ward.yaml"]) == 0
    assert "input 1x1x8x16x16, output 1x2x8x16x16" in capsys.readouterr().out


@pytest.mark.slow
def test_its_config_runs(lab, capsys):
    assert main(["run", "ward.yaml", "--folds", "0"]) == 0
    assert "mean Dice" in capsys.readouterr().out
    table = next((lab / "runs" / "ward").glob("evaluate-*/per_case.csv")).read_text()
    assert "volume_ratio" in table.splitlines()[0]
