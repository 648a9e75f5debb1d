"""A recorded prediction made again: equal, or what differs."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.batch.inputs import find_files
from pipeline.batch.record import read_record, record_path
from pipeline.batch.verify import Finding, verify
from pipeline.batch.worker import Batch, predict_batch
from pipeline.errors import ConfigError, ModelError
from pipeline.imaging.read import read_image
from pipeline.imaging.write import write_mask
from pipeline.learning.models import open_source
from pipeline.learning.pack import pack
from pipeline.learning.prediction import PredictOptions
from pipeline.learning.predictor import predictor_of
from tests.batch.models import make_run, make_volume


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A predicted case."""
    make_volume(tmp_path / "in" / "a.nii.gz")
    run = make_run(tmp_path / "runs" / "tiny", folds=1)
    models = open_source(run)
    batch = Batch(models, predictor_of(models, PredictOptions(precision="fp32")), tmp_path / "out",
                  where={"path": str(run), "fold": None})  # fmt: skip
    predict_batch(find_files([tmp_path / "in"], ["image"])[0], batch)
    return batch.folder


def again(out: Path, **places: object) -> dict[str, Finding]:
    record = read_record(record_path(out, "a"))
    assert record is not None
    return {finding.what: finding for finding in verify(record, out, **places)}  # type: ignore[arg-type]


def test_the_same_again(out: Path, tmp_path: Path) -> None:
    found = again(out)
    assert list(found) == ["files", "input", "model", "mask", "versions"]
    assert all(finding.is_equal for finding in found.values())
    assert main(["verify", str(record_path(out, "a"))]) == 0
    # Input and model lie elsewhere now, the model as a package: found by their content.
    pack(tmp_path / "runs" / "tiny", tmp_path / "m.zip")
    os.replace(tmp_path / "in", tmp_path / "moved")
    os.replace(tmp_path / "moved" / "a.nii.gz", tmp_path / "moved" / "b.nii.gz")
    elsewhere = find_files([tmp_path / "moved"], ["image"])[0]
    assert all(finding.is_equal for finding in again(out, model=tmp_path / "m.zip", found=elsewhere).values())


def test_a_changed_mask_is_told(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = out / "masks" / "a.nii.gz"
    mask = read_image(path, case_id="a")
    changed = mask.voxels[0].copy()
    changed[3, 4, 5] = 7 - changed[3, 4, 5]
    write_mask(changed.astype(np.uint8), mask.geometry, path)
    found = again(out)
    assert not found["files"].is_equal
    assert found["mask"].says == f"1 of {changed.size} voxels differ"
    assert main(["verify", str(record_path(out, "a"))]) == 1
    assert "DIFFERS: 1 of" in capsys.readouterr().out


def test_changed_input_and_model_are_told(out: Path, tmp_path: Path) -> None:
    make_volume(tmp_path / "in" / "a.nii.gz", seed=4)
    found = again(out)
    assert not found["input"].is_equal
    assert "mask" not in found
    make_run(tmp_path / "runs" / "other", folds=2)
    assert not again(out, model=tmp_path / "runs" / "other")["model"].is_equal
    with pytest.raises(ConfigError, match="no input with sha256"):
        again(out, found=find_files([tmp_path / "in"], ["image"])[0])
    with pytest.raises(ModelError, match="not there any more"):
        again(out, model=tmp_path / "gone")


def test_other_versions_are_told_and_are_no_fault(out: Path) -> None:
    path = record_path(out, "a")
    tree = json.loads(path.read_text())
    tree["environment"]["libraries"]["torch"] = "1.0"
    path.write_text(json.dumps(tree))
    assert "torch 1.0 then" in again(out)["versions"].says
    assert main(["verify", str(path)]) == 0


def test_what_is_no_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert main(["verify", str(tmp_path / "x.json")]) == 2
