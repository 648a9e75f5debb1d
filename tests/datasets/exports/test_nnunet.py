"""Out to nnU-Net and back: equal JSON, equal bytes, and conversions only where they are needed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.exports.nnunet import export_nnunet
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.nnunet import NnUnet
from pipeline.datasets.write_manifest import write_manifest
from pipeline.errors import ConfigError, DataError
from pipeline.imaging.labels import Labels
from pipeline.imaging.read import read_image
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image, write_mask

GRID = Geometry(shape=(4, 5, 6), spacing_mm=(3.0, 1.0, 0.5), origin=(1.0, 2.0, 3.0))
RANDOM = np.random.default_rng(0)


def image(path: Path, channels: int = 1) -> Path:
    write_image(Volume(RANDOM.normal(0, 9, (channels, 4, 5, 6)).astype(np.float32), GRID), path)
    return path


def label(path: Path, *values: int) -> Path:
    write_mask(RANDOM.choice(values, (4, 5, 6)).astype(np.uint8), GRID, path)
    return path


def raw(folder: Path) -> dict[str, Any]:
    said = {
        "channel_names": {"0": "T1", "1": "noNorm"},
        "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
        "regions_class_order": [1, 2],
        "numTraining": 4,
        "file_ending": ".nrrd",
        "overwrite_image_reader_writer": "SimpleITKIO",
        "licence": {"name": "CC0", "since": 2.5},
    }
    for case in "abcd":
        for channel in range(2):
            image(folder / f"imagesTr/{case}_000{channel}.nrrd")
        label(folder / f"labelsTr/{case}.nrrd", 0, 1, 2, 3)
    image(folder / "imagesTs/t_0000.nrrd")
    image(folder / "imagesTs/t_0001.nrrd")
    label(folder / "labelsTs/t.nrrd", 0, 1)
    (folder / "dataset.json").write_text(json.dumps(said))
    folds = [{"train": ["d", "a"], "val": ["c", "b"]}, {"train": ["b", "c"], "val": ["a", "d"]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    return said


def content(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and file.suffix != ".json"
    }


@pytest.mark.parametrize("copy", [False, True])
def test_import_and_export_back_are_equal(tmp_path: Path, copy: bool) -> None:
    said = raw(tmp_path / "raw/D1")
    write_manifest(NnUnet(folder=tmp_path / "raw/D1").cases(), tmp_path / "x.csv")
    made = export_nnunet(read_manifest(tmp_path / "x.csv"), tmp_path / "out", copy=copy)
    assert made == {"linked": 0 if copy else 15, "copied": 15 if copy else 0, "converted": 0, "there": 0}
    assert json.loads((tmp_path / "out/dataset.json").read_text()) == said
    assert list(json.loads((tmp_path / "out/dataset.json").read_text())) == list(said)
    splits = [
        json.loads((folder / "splits_final.json").read_text()) for folder in (tmp_path / "raw/D1", tmp_path / "out")
    ]
    assert splits[0] == splits[1]
    assert content(tmp_path / "out") == content(tmp_path / "raw/D1")
    again = export_nnunet(read_manifest(tmp_path / "x.csv"), tmp_path / "out")
    assert again["there"] == 15


def other(folder: Path, **changes: Any) -> Manifest:
    """A data set with gaps in its labels, 4-D images, mixed endings, and folds."""
    cases = []
    for number, name in enumerate(("a", "b")):
        file = image(folder / f"{name}.nii.gz", channels=2)
        mask = label(folder / f"{name}_seg.{('nii.gz', 'mha')[number]}", 0, 5, 9, 200, 255)
        cases.append(Case(case_id=name, images={"T1": file, "T2": file}, label=mask, fold=number))
    values = {0: "background", 5: "liver", 9: "tumour", 200: "tumour", 255: "ignore"}
    labels = Labels(values=values, regions={"tumour only": ("tumour",), "all": ("liver", "tumour")})
    return Manifest(cases=tuple(cases), labels=labels, channels=("T1", "T2"), **changes)


def test_other_data_is_renumbered_and_converted(tmp_path: Path) -> None:
    manifest = other(tmp_path)
    made = export_nnunet(manifest, tmp_path / "out", workers=1)
    assert made == {"linked": 0, "copied": 0, "converted": 6, "there": 0}
    assert json.loads((tmp_path / "out/dataset.json").read_text()) == {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "all": [1, 2], "tumour only": [2], "ignore": 3},
        "regions_class_order": [1, 2],
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    back = NnUnet(folder=tmp_path / "out").cases()
    assert [case.fold for case in back.cases] == [0, 1]
    for case, source in zip(back.cases, manifest.cases, strict=True):
        assert case.label
        assert source.label
        values = read_image(source.label, case_id="x").voxels
        expected = np.select([values == 5, (values == 9) | (values == 200), values == 255], [1, 2, 3])
        found = read_image(case.label, case_id="x")
        assert np.array_equal(found.voxels, expected)
        both = read_image(source.images["T1"], case_id="x", channels=2)
        one = read_image(case.images["T2"], case_id="x")
        assert np.array_equal(one.voxels[0], both.voxels[1])
        assert one.geometry == found.geometry == both.geometry


def test_what_the_layout_cannot_say_is_refused(tmp_path: Path) -> None:
    manifest = other(tmp_path)
    a, b = manifest.cases
    partial = manifest.model_copy(update={"cases": (a.model_copy(update={"annotated": ("liver",)}), b)})
    with pytest.raises(DataError, match=r"1 case labelled in part or without a channel \(a\)"):
        export_nnunet(partial, tmp_path / "out")
    export_nnunet(partial, tmp_path / "out", leave_out=True)
    assert json.loads((tmp_path / "out/dataset.json").read_text())["numTraining"] == 1
    with pytest.raises(ConfigError, match="holds something else"):
        export_nnunet(manifest, tmp_path / "out")
    with pytest.raises(DataError, match="case a has no label"):
        export_nnunet(manifest.model_copy(update={"cases": (a.model_copy(update={"label": None}), b)}), tmp_path / "o")
    with pytest.raises(DataError, match="nothing says what the label values mean"):
        export_nnunet(manifest.model_copy(update={"labels": Labels()}), tmp_path / "o")
    blocks = a.model_copy(update={"images": {"T1": Path("x.npz#X/3"), "T2": Path("x.npz#X/3")}})
    with pytest.raises(DataError, match="case a: its image is a folder of slices or one of many"):
        export_nnunet(manifest.model_copy(update={"cases": (blocks, b)}), tmp_path / "o")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    manifest = other(tmp_path)
    (tmp_path / "b_seg.mha").write_bytes(b"nothing")
    with pytest.raises(DataError, match="case b: label"):
        export_nnunet(manifest, tmp_path / "out")
    assert not (tmp_path / "out/dataset.json").exists()


def test_cases_of_one_patient_stay_in_one_fold(tmp_path: Path) -> None:
    cases = [
        Case(case_id=f"c{at}", images={"CT": image(tmp_path / f"c{at}.nii.gz")},
             label=label(tmp_path / f"l{at}.nii.gz", 0, 1), group=f"p{at // 2}")
        for at in range(8)
    ]  # fmt: skip
    labels = Labels(values={0: "background", 1: "liver"})
    export_nnunet(Manifest(cases=tuple(cases), labels=labels, channels=("CT",)), tmp_path / "out")
    splits = json.loads((tmp_path / "out/splits_final.json").read_text())
    group = {case.case_id: case.group for case in cases}
    assert sorted(case for one in splits for case in one["val"]) == sorted(group)
    for one in splits:
        assert not {group[case] for case in one["train"]} & {group[case] for case in one["val"]}
