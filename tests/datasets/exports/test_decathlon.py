"""Out to the Decathlon's layout and back."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.decathlon import Decathlon
from pipeline.datasets.exports.decathlon import export_decathlon
from pipeline.errors import DataError
from pipeline.imaging.labels import Labels
from pipeline.imaging.read import read_image
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image, write_mask

GRID = Geometry(shape=(4, 5, 6), spacing_mm=(3.0, 1.0, 0.5))
LABELS = Labels(values={0: "background", 7: "a", 9: "ignore"})


def put(path: Path) -> Path:
    voxels = np.random.default_rng(len(path.name)).integers(0, 99, (1, 4, 5, 6)).astype(np.int16)
    write_image(Volume(voxels, GRID), path)
    return path


def test_there_and_back(tmp_path: Path) -> None:
    empty = np.zeros((4, 5, 6), np.uint8)
    write_mask(empty, GRID, tmp_path / "al.mha")
    cases = (
        Case(case_id="a", images={"T1": put(tmp_path / "a1.nii.gz"), "T2": put(tmp_path / "a-2.nii.gz")},
             label=tmp_path / "al.mha"),
        Case(case_id="t", images={"T1": put(tmp_path / "t1.nii.gz"), "T2": put(tmp_path / "t22.mha")}, split="test"),
    )  # fmt: skip
    metadata = {"licence": "CC0", "columns": {"age": {"a": "3"}}}
    manifest = Manifest(cases=cases, labels=LABELS, channels=("T1", "T2"), metadata=metadata)
    made = export_decathlon(manifest, tmp_path / "Task01_X")
    assert made == {"linked": 0, "copied": 0, "converted": 3, "there": 0}
    said = json.loads((tmp_path / "Task01_X/dataset.json").read_text())
    assert (said["name"], said["licence"], said["numTraining"], said["numTest"]) == ("Task01_X", "CC0", 1, 1)
    back = Decathlon(folder=tmp_path / "Task01_X").cases()
    assert back.labels == LABELS
    assert back.channels == ("T1", "T2")
    assert [(case.case_id, case.split) for case in back.cases] == [("a", "train"), ("t", "test")]
    both = read_image(back.cases[0].images["T1"], case_id="a", channels=2)
    single = [read_image(cases[0].images[name], case_id="a") for name in ("T1", "T2")]
    assert np.array_equal(both.voxels, np.concatenate([one.voxels for one in single]))
    assert both.geometry == single[0].geometry


def test_one_channel_is_linked(tmp_path: Path) -> None:
    write_mask(np.full((4, 5, 6), 7, np.uint8), GRID, tmp_path / "al.nii.gz")
    case = Case(case_id="a", images={"image": put(tmp_path / "a.nii.gz")}, label=tmp_path / "al.nii.gz")
    made = export_decathlon(Manifest(cases=(case,), labels=LABELS), tmp_path / "out")
    assert made["linked"] == 2
    assert (tmp_path / "out/labelsTr/a.nii.gz").read_bytes() == (tmp_path / "al.nii.gz").read_bytes()
    with pytest.raises(DataError, match="case a has no label"):
        export_decathlon(Manifest(cases=(case.model_copy(update={"label": None}),), labels=LABELS), tmp_path / "x")


def test_real_hippocampus_comes_back(tmp_path: Path, real_data: Path) -> None:
    source = real_data / "Task04_Hippocampus"
    manifest = Decathlon(folder=source).cases()
    some = manifest.model_copy(update={"cases": manifest.cases[:3]})
    export_decathlon(some, tmp_path / "out", copy=True)
    said, before = (json.loads((folder / "dataset.json").read_text()) for folder in (tmp_path / "out", source))
    assert said.pop("training") == before.pop("training")[:3]
    assert said | {"numTraining": 71, "test": before.get("test")} == before | {"test": before.get("test")}
    for case in some.cases:
        assert case.label
        copied = tmp_path / "out/labelsTr" / case.label.name
        assert copied.read_bytes() == case.label.read_bytes()
