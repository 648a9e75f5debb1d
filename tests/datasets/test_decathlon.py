"""Decathlon folders and the table of lung nodules."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.decathlon import Decathlon
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.write_manifest import write_manifest
from pipeline.errors import DataError


def put(folder: Path, table: dict[str, Any], files: tuple[str, ...] = ()) -> Decathlon:
    (folder / "dataset.json").write_text(json.dumps(table))
    for name in files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return Decathlon(folder=folder)


def table(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Toy",
        "licence": "CC0",
        "modality": {"0": "CT"},
        "labels": {"0": "Background", "2": "liver"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": ["./imagesTs/b.nii.gz", "./imagesTs/c.nii.gz"],
    } | changes


FILES = ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz")


def test_cases_labels_and_metadata(tmp_path: Path) -> None:
    manifest = put(tmp_path, table(), (*FILES, "imagesTs/b.nii.gz")).cases()
    a, b = manifest.cases
    assert a.images == {"CT": tmp_path / FILES[0]}
    assert (a.case_id, a.label, a.split) == ("a", tmp_path / FILES[1], "train")
    assert (b.case_id, b.label, b.split) == ("b", None, "test")  # c was never unpacked
    assert manifest.labels.classes == ("background", "liver")
    assert manifest.channels == ("CT",)
    assert manifest.metadata == {key: table()[key] for key in ("name", "licence", "modality", "labels")}
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    training = [table()["training"][0], table()["training"][0], "x.nii.gz", {"image": "n.nii.gz", "label": "m.nii.gz"}]
    changes = {"training": training, "modality": {"first": "T1w"}, "labels": {"background": 0}}
    with pytest.raises(DataError) as caught:
        put(tmp_path, table(**changes), FILES).cases()
    for part in ("a is found 2 times", "training[2]", "n.nii.gz is", "m.nii.gz is", "modality is", "labels are"):
        assert part in str(caught.value), part


def test_modalities_are_the_channels_of_one_file(tmp_path: Path) -> None:
    manifest = put(tmp_path, table(modality={"1": "T2w", "0": "FLAIR", "2": "T2w"}), FILES).cases()
    assert manifest.channels == ("FLAIR", "T2w", "T2w_2")
    assert list(manifest.cases[0].images.values()) == [tmp_path / FILES[0]] * 3
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest


@pytest.mark.parametrize(
    ("text", "part"),
    [("{", "cannot be read"), ("[]", "expected a mapping"), ('{"channel_names": {}}', "nnU-Net"), ("{}", "no cases")],
)
def test_one_message_for(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=part):
        Decathlon(folder=tmp_path).cases()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Decathlon(folder=tmp_path / "gone").cases()


def test_real_hippocampus(real_data: Path) -> None:
    manifest = Decathlon(folder=real_data / "Task04_Hippocampus").cases()
    assert len(manifest.cases) == 71
    assert manifest.labels.classes == ("background", "Anterior", "Posterior")
    assert manifest.channels == ("MRI",)
    assert all(case.label and case.split == "train" for case in manifest.cases)


def test_a_copy_that_lacks_cases_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, table(numTraining=1), FILES).cases()
    assert not caplog.text
    put(tmp_path, table(numTraining=5)).cases()
    assert "numTraining 5; found 1" in caplog.text
