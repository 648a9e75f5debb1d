"""BIDS data sets: subjects, sessions, derivatives and participants.tsv."""

import json
from pathlib import Path

import pytest

from pipeline.datasets.bids import Bids
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.write_manifest import write_manifest
from pipeline.errors import DataError


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def study(folder: Path) -> Path:
    for subject, session in (("01", "1"), ("01", "2"), ("02", "1")):
        stem = f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}"
        put(folder, f"{stem}_T1w.nii.gz", f"{stem}_T1w.json", f"{stem}_FLAIR.nii.gz")
        put(folder / "derivatives/manual", f"{stem}_desc-lesion_dseg.nii.gz", f"{stem}_desc-lesion_probseg.nii.gz")
    put(folder, "sub-01/ses-1/func/sub-01_ses-1_task-rest_bold.nii.gz", "sourcedata/sub-09/anat/sub-09_T1w.nii.gz")
    (folder / "derivatives/manual/dseg.tsv").write_text("index\tname\tcolor\n1\tlesion\t#f00\n")
    (folder / "participants.tsv").write_text("participant_id\tage\tsite\tgroup\nsub-01\t61\tA\tMS\n02\tn/a\tB\tHC\n")
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "Toy", "BIDSVersion": "1.9.0"}))
    return folder


def test_sessions_are_cases_and_subjects_groups(tmp_path: Path) -> None:
    manifest = Bids(folder=study(tmp_path), suffixes=("FLAIR", "T1w"), class_column="group").cases()
    assert [case.case_id for case in manifest.cases] == ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]
    assert [(case.group, case.site, case.classes) for case in manifest.cases] == [
        ("sub-01", "A", ("MS",)),
        ("sub-01", "A", ("MS",)),
        ("sub-02", "B", ("HC",)),
    ]
    assert manifest.channels == ("FLAIR", "T1w")
    stem = "sub-01/ses-1/anat/sub-01_ses-1"
    assert manifest.cases[0].images["T1w"] == tmp_path / f"{stem}_T1w.nii.gz"
    assert manifest.cases[0].label == tmp_path / f"derivatives/manual/{stem}_desc-lesion_dseg.nii.gz"
    assert manifest.labels.classes == ("background", "lesion")
    assert manifest.metadata["dataset_description"]["Name"] == "Toy"
    assert manifest.metadata["columns"] == {"age": {"sub-01_ses-1": "61", "sub-01_ses-2": "61"}}
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest


def test_which_images_must_be_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"found FLAIR \(3\), T1w \(3\)"):
        Bids(folder=study(tmp_path)).cases()
    put(tmp_path, "sub-02/ses-1/anat/sub-02_ses-1_acq-high_T1w.nii.gz")
    with pytest.raises(DataError, match="T1w is both"):
        Bids(folder=tmp_path, suffixes=("T1w",)).cases()
    manifest = Bids(folder=tmp_path, suffixes=("T1w",), entities={"acq": "high"}).cases()
    assert [case.case_id for case in manifest.cases] == ["sub-02_ses-1"]


def test_which_labels_must_be_said(tmp_path: Path) -> None:
    study(tmp_path)
    put(tmp_path / "derivatives/model", "sub-01/ses-1/anat/sub-01_ses-1_desc-model_dseg.nii.gz")
    with pytest.raises(DataError, match=r"case sub-01_ses-1: 2 labels fit.*label_entities"):
        Bids(folder=tmp_path, suffixes=("T1w",)).cases()
    by_folder = Bids(folder=tmp_path, suffixes=("T1w",), labels_in=Path("derivatives/manual")).cases()
    by_name = Bids(folder=tmp_path, suffixes=("T1w",), label_entities={"desc": "lesion"}).cases()
    assert by_folder.cases == by_name.cases


def test_runs_and_subjects_without_sessions(tmp_path: Path) -> None:
    for run in ("1", "2"):
        put(tmp_path, f"sub-a/anat/sub-a_run-{run}_T1w.nii.gz")
    put(tmp_path, "sub-b/anat/sub-b_run-1_T1w.nii.gz")
    put(tmp_path / "derivatives", "sub-a/anat/sub-a_run-2_mask.nii.gz", "sub-b/anat/sub-b_mask.nii.gz")
    manifest = Bids(folder=tmp_path, label_suffix="mask").cases()
    assert [case.case_id for case in manifest.cases] == ["sub-a_run-1", "sub-a_run-2", "sub-b_run-1"]
    labels = [case.label.name if case.label else None for case in manifest.cases]
    assert labels == [None, "sub-a_run-2_mask.nii.gz", "sub-b_mask.nii.gz"]


def test_one_message_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        Bids(folder=tmp_path).cases()
    with pytest.raises(DataError, match="no such folder"):
        Bids(folder=tmp_path / "gone").cases()
    put(tmp_path, "sub-a/anat/sub-a_T1w.nii.gz")
    with pytest.raises(DataError, match="class_column: there is no"):
        Bids(folder=tmp_path, class_column="sex").cases()
    (tmp_path / "participants.tsv").write_text("participant_id\tsex\nsub-a\tn/a\n")
    with pytest.raises(DataError, match="sub-a has no sex"):
        Bids(folder=tmp_path, class_column="sex").cases()
    with pytest.raises(DataError, match="no column 'age'; found participant_id, sex"):
        Bids(folder=tmp_path, class_column="age").cases()
    (tmp_path / "derivatives").mkdir()
    (tmp_path / "derivatives/dseg.tsv").write_text("index\tname\none\tx\n")
    with pytest.raises(DataError, match=r"dseg\.tsv: expected columns"):
        Bids(folder=tmp_path).cases()


def test_no_label_that_fits_is_told_with_what_there_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = Bids(folder=study(tmp_path), suffixes=("T1w",), label_suffix="mask").cases()
    assert all(case.label is None for case in manifest.cases)
    assert "no label *_mask fits" in caplog.text
    assert "dseg (3)" in caplog.text


def test_a_subject_twice_in_participants_is_refused(tmp_path: Path) -> None:
    study(tmp_path)
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t61\n01\t62\n")
    with pytest.raises(DataError, match="sub-01 stands in it twice"):
        Bids(folder=tmp_path, suffixes=("T1w",)).cases()
