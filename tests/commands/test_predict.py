"""The commands that predict and package, and the three lines of Python."""

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest

from pipeline.__main__ import main
from pipeline.dicom.codes import Code, SegmentCode
from pipeline.imaging.facts import survey_case
from pipeline.imaging.read import read_image
from pipeline.imaging.training_range import training_range
from tests.batch.models import LABELS, make_run, make_volume
from tests.dicom import synthetic


@pytest.mark.slow
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


def test_volumes_and_series_of_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A crash of a reader costs one case, files that are no scan are counted, and only exports are drawn."""
    make_volume(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "notes.txt").write_text("no scan")
    run, out = make_run(tmp_path / "run", folds=1), tmp_path / "out"
    place = ["--output", str(out), "--set", "predict.precision=fp32", "--set", "machine.device=cpu"]
    assert main(["predict", str(run), str(tmp_path / "in"), *place]) == 0
    assert not (out / "previews").exists()
    assert not (out / "report.html").exists()
    synthetic.write(synthetic.make(1), tmp_path / "in" / "scan")
    assert main(["predict", str(run), str(tmp_path / "in"), *place]) == 0
    told = capsys.readouterr().out
    assert "1 series, 1 usable, in " in told
    assert "2 not DICOM, 0 DICOMDIR, 0 damaged" in told
    assert "2 cases done, 0 failed" in told
    assert len(list((out / "masks").glob("*.nii.gz"))) == 2
    assert (out / "report.html").exists()


def test_what_a_model_was_trained_on_and_its_codes_travel_with_it(tmp_path: Path) -> None:
    make_volume(tmp_path / "thick.nii.gz")
    facts = survey_case({"image": tmp_path / "thick.nii.gz"}, None, LABELS, "thick")
    seen = training_range([facts], "MR")
    assert seen is not None
    muscle = SegmentCode(type=Code(value="71616004", meaning="Skeletal muscle"))
    run = make_run(tmp_path / "run", folds=1, seen=seen.model_dump(mode="json"), codes={"soft": muscle})
    synthetic.write(synthetic.make(1), tmp_path / "scan")
    out = tmp_path / "out"
    place = ["--output", str(out), "--set", "predict.precision=fp32", "--dicom-seg"]
    assert main(["predict", str(run), str(tmp_path / "scan"), *place]) == 0
    with (out / "status.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert "modality CT; trained on MR" in row["review"]
    assert "intensities: " in row["review"]
    assert "trained on" in (out / "report.html").read_text()
    segments = pydicom.dcmread(next((out / "seg").glob("*.dcm"))).SegmentSequence
    codes = {one.SegmentLabel: one.SegmentedPropertyTypeCodeSequence[0].CodeValue for one in segments}
    assert codes["soft"] == "71616004"


def test_three_lines_of_python(tmp_path: Path) -> None:
    volume = make_volume(tmp_path / "ct.nii.gz")
    make_run(tmp_path / "run", folds=1)

    from pipeline import load_model

    model = load_model(tmp_path / "run")
    mask = model.predict(tmp_path / "ct.nii.gz")
    assert np.asarray(mask).shape == volume.geometry.shape
    mask.save(tmp_path / "mask.nii.gz")
    assert np.array_equal(read_image(tmp_path / "mask.nii.gz", case_id="x").voxels[0], np.asarray(mask))


def test_two_files_of_one_name_are_told_and_change_the_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("a", "b"):
        make_volume(tmp_path / folder / "x.nii.gz")
    run, out = make_run(tmp_path / "run", folds=1), ["--output", str(tmp_path / "out")]
    assert main(["predict", str(run), str(tmp_path / "a"), str(tmp_path / "b"), *out]) == 1
    assert "ambiguous: case x: several inputs have this name" in capsys.readouterr().out


def test_masks_of_another_meaning_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_volume(tmp_path / "in" / "x.nii.gz")
    run, out = make_run(tmp_path / "run", folds=1), tmp_path / "out"
    place = ["--output", str(out), "--set", "predict.precision=fp32"]
    assert main(["predict", str(run), str(tmp_path / "in"), *place]) == 0
    (out / "masks" / "labels.json").write_text('{"labels": {"0": "background", "1": "another"}}')
    assert main(["predict", str(run), str(tmp_path / "in"), *place]) == 2
    assert "mean something else" in capsys.readouterr().err


def test_codes_of_a_class_that_is_not_there_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.write(synthetic.make(1), tmp_path / "in")
    name = LABELS.classes[1]
    codes = tmp_path / "codes.yaml"
    codes.write_text(f'{name}x: {{type: {{value: "1", meaning: X}}}}')
    words = ["predict", str(make_run(tmp_path / "run", folds=1)), str(tmp_path / "in"), "--output", str(tmp_path / "o")]
    assert main([*words, "--dicom-seg", "--codes", str(codes)]) == 2
    assert f"did you mean '{name}'" in capsys.readouterr().err


def test_nothing_is_found_where_no_slice_lies(tmp_path: Path) -> None:
    """A model that sees its class everywhere marks every scanned voxel of a tilted series, and no other."""
    synthetic.write(synthetic.make(5, tilt_mm=0.8), tmp_path / "in")
    run, out = make_run(tmp_path / "run", folds=1), tmp_path / "out"
    words = ["predict", str(run), str(tmp_path / "in"), "--output", str(out), "--set", "predict.precision=fp32"]
    assert main([*words, "--dicom-seg"]) == 0
    (mask,) = (out / "masks").glob("*.nii.gz")
    marked = int((read_image(mask, case_id="m").voxels > 0).sum())
    (seg,) = (out / "seg").glob("*.dcm")
    assert marked
    assert marked == int(pydicom.dcmread(seg).pixel_array.sum())
