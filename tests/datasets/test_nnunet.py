"""Raw data sets of nnU-Net: channels, regions, the ignore label and fixed folds."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.nnunet import NnUnet, labels_of
from pipeline.datasets.write_manifest import write_manifest
from pipeline.errors import DataError

CASES = ("a_1", "a_2", "b_1")


def table(**changes: Any) -> dict[str, Any]:
    return {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "liver": 1, "tumour": 2},
        "numTraining": 3,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    } | changes


def put(folder: Path, said: dict[str, Any], *, ending: str = ".nii.gz", **files: Any) -> Path:
    names = [f"imagesTr/{case}_000{channel}" for case in CASES for channel in range(2)]
    for name in [*names, *(f"labelsTr/{case}" for case in CASES), "imagesTs/t_0000", "imagesTs/t_0001"]:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / f"{name}{ending}").touch()
    (folder / "dataset.json").write_text(json.dumps(said))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def splits(*vals: tuple[str, ...], everyone: tuple[str, ...] = CASES) -> list[dict[str, list[str]]]:
    return [{"train": [case for case in everyone if case not in val], "val": list(val)} for val in vals]


def problem(dataset: NnUnet) -> str:
    with pytest.raises(DataError) as caught:
        dataset.cases()
    return str(caught.value)


def test_cases_channels_and_folds(tmp_path: Path) -> None:
    said = splits(("a_1", "a_2"), ("b_1",))
    manifest = NnUnet(folder=put(tmp_path, table(), splits_final=said), group=r"^([a-z])_").cases()
    assert manifest.channels == ("T1", "FLAIR")
    assert [case.case_id for case in manifest.cases] == [*CASES, "t"]
    first, last = manifest.cases[0], manifest.cases[-1]
    assert first.images == {"T1": tmp_path / "imagesTr/a_1_0000.nii.gz", "FLAIR": tmp_path / "imagesTr/a_1_0001.nii.gz"}
    assert (first.label, first.group, first.split) == (tmp_path / "labelsTr/a_1.nii.gz", "a", "train")
    assert (last.split, last.label, last.fold) == ("test", None, None)
    assert [case.fold for case in manifest.cases[:3]] == [0, 0, 1]
    assert manifest.labels.classes == ("background", "liver", "tumour")
    assert manifest.metadata == {"dataset_json": table(), "splits_final": said}
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest


def test_splits_from_a_preprocessed_folder(tmp_path: Path) -> None:
    raw = put(tmp_path / "nnUNet_raw/Dataset001_X", table())
    other = tmp_path / "nnUNet_preprocessed/Dataset001_X"
    other.mkdir(parents=True)
    (other / "splits_final.json").write_text(json.dumps(splits(("a_1", "a_2"), ("b_1",))))
    assert NnUnet(folder=raw).cases().cases[2].fold == 1
    assert NnUnet(folder=raw, splits=other).cases().cases[2].fold == 1
    assert NnUnet(folder=raw, fixed_folds=False).cases().cases[2].fold is None


@pytest.mark.parametrize(
    "said",
    [
        splits(("a_1",), ("a_1", "a_2", "b_1")),
        splits(("a_1",), ("b_1",)),
        splits(("a_1",), ("a_2",), everyone=("a_1", "a_2")),
    ],
)
def test_splits_that_are_no_cross_validation_are_told(
    tmp_path: Path, said: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        manifest = NnUnet(folder=put(tmp_path, table(), splits_final=said)).cases()
    assert all(case.fold is None for case in manifest.cases)
    assert "not taken over" in caplog.text


def test_regions_and_ignore() -> None:
    said = {
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4},
        "regions_class_order": [1, 2, 3],
    }
    labels = labels_of(said, [])
    assert labels.values == {0: "background", 1: "label_1", 2: "label_2", 3: "label_3", 4: "ignore"}
    assert labels.regions == {
        "whole": ("label_1", "label_2", "label_3"),
        "core": ("label_2", "label_3"),
        "enhancing": ("label_3",),
    }
    assert labels.foreground == ("whole", "core", "enhancing")


def test_version_1(tmp_path: Path) -> None:
    said = {"modality": {"0": "CT", "1": "CT"}, "labels": {"0": "background", "1": "x"}, "training": []}
    manifest = NnUnet(folder=put(tmp_path, said), test=False).cases()
    assert manifest.channels == ("CT", "CT_1")
    assert manifest.labels.classes == ("background", "x")


def test_files_listed_in_dataset_json(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    for name in ("i0.nrrd", "i1.nrrd", "l.nrrd"):
        (tmp_path / "far" / name).touch()
    listed = {"c": {"images": ["far/i0.nrrd", "far/i1.nrrd"], "label": "far/l.nrrd"}}
    manifest = NnUnet(folder=put(tmp_path, table(dataset=listed)), test=False).cases()
    assert [case.case_id for case in manifest.cases] == ["c"]
    assert manifest.cases[0].label == tmp_path / "far/l.nrrd"


def test_a_missing_channel_must_be_allowed(tmp_path: Path) -> None:
    put(tmp_path, table())
    (tmp_path / "imagesTr/a_1_0001.nii.gz").unlink()
    assert "case a_1: no file for channel FLAIR" in problem(NnUnet(folder=tmp_path))
    manifest = NnUnet(folder=tmp_path, optional_channels=("FLAIR",)).cases()
    assert list(manifest.cases[0].images) == ["T1"]
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    put(tmp_path, table(labels={"background": 0, "liver": "1"}))
    (tmp_path / "labelsTr/b_1.nii.gz").rename(tmp_path / "labelsTr/c.nii.gz")
    (tmp_path / "imagesTr/a_1_0002.nii.gz").touch()
    text = problem(NnUnet(folder=tmp_path))
    for part in ("labels are", "b_1.nii.gz is listed but not there", "labelsTr/c.nii.gz", "case a_1: it has a file of"):
        assert part in text, part


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"channel_names": {"1": "CT"}}, "channel_names is"),
        ({"file_ending": ".png"}, "file_ending is '.png'"),
        ({"file_ending": ".nrrd"}, "imagesTr holds no file CASE_0000.nrrd"),
    ],
)
def test_one_message_for(tmp_path: Path, changes: dict[str, Any], part: str) -> None:
    assert part in problem(NnUnet(folder=put(tmp_path, table(**changes))))


def test_another_folder_is_told(tmp_path: Path) -> None:
    assert "no such file" in problem(NnUnet(folder=tmp_path))
    (tmp_path / "dataset.json").write_text("{}")
    assert "channel_names" in problem(NnUnet(folder=tmp_path))
    (tmp_path / "x").mkdir()
    with pytest.raises(DataError, match="regular expression"):
        NnUnet(folder=put(tmp_path / "x", table()), group="(").cases()


def test_a_decathlon_folder_is_told(real_data: Path) -> None:
    assert "Is it of the Decathlon?" in problem(NnUnet(folder=real_data / "Task04_Hippocampus"))


def test_two_names_of_one_value_are_refused(tmp_path: Path) -> None:
    said = table(labels={"background": 0, "liver": 1, "tumour": 1})
    assert "two names have one value" in problem(NnUnet(folder=put(tmp_path, said)))


def test_a_list_of_cases_in_place_of_a_mapping_is_refused(tmp_path: Path) -> None:
    assert "expected a mapping of cases" in problem(NnUnet(folder=put(tmp_path, table(dataset=[1]))))


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = put(tmp_path, table()) / "dataset.json"
    path.write_text("\ufeff" + path.read_text("utf-8"), "utf-8")
    assert len(NnUnet(folder=tmp_path).cases().cases) == 4
