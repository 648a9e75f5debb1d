"""The commands that predict and package, and the three lines of Python."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.imaging.read import read_image
from tests.batch.models import make_run, make_volume


def test_predict_and_package(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_volume(tmp_path / "in" / "a.nii.gz")
    run = make_run(tmp_path / "runs" / "tiny")
    place = ["--output", str(tmp_path / "out"), "--set", "predict.precision=fp32"]
    assert main(["predict", str(run), str(tmp_path / "in"), *place, "--dry-run"]) == 0
    assert not (tmp_path / "out").exists()
    assert main(["predict", str(run), str(tmp_path / "in"), *place]) == 0
    assert "1 case done, 0 failed" in capsys.readouterr().out
    assert main(["package", str(run), "--output", str(tmp_path / "m.zip")]) == 0
    assert "2 models" in capsys.readouterr().out
    before = (tmp_path / "out" / "masks" / "a.nii.gz").stat().st_mtime_ns
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"no volume")
    assert main(["predict", str(tmp_path / "m.zip"), str(tmp_path / "in"), *place]) == 1
    assert (tmp_path / "out" / "masks" / "a.nii.gz").stat().st_mtime_ns == before  # the package is the same model
    assert "failed: case b" in capsys.readouterr().out


def test_refusals_before_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", folds=1)
    (tmp_path / "empty").mkdir()
    out = ["--output", str(tmp_path / "out")]
    assert main(["predict", str(run), str(tmp_path / "gone"), *out]) == 2
    assert main(["predict", str(run), str(tmp_path / "empty"), *out]) == 2
    assert main(["predict", str(tmp_path / "empty"), str(tmp_path / "empty"), *out]) == 2
    assert "no trained model is there" in capsys.readouterr().err
    assert main(["predict", str(run), str(tmp_path / "empty"), *out, "--fold", "3"]) == 2
    assert not (tmp_path / "out").exists()


def test_three_lines_of_python(tmp_path: Path) -> None:
    volume = make_volume(tmp_path / "ct.nii.gz")
    make_run(tmp_path / "run", folds=1)

    from pipeline import load_model

    model = load_model(tmp_path / "run")
    mask = model.predict(tmp_path / "ct.nii.gz")
    assert np.asarray(mask).shape == volume.geometry.shape
    mask.save(tmp_path / "mask.nii.gz")
    assert np.array_equal(read_image(tmp_path / "mask.nii.gz", case_id="x").voxels[0], np.asarray(mask))
