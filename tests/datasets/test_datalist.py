"""Lists of other programs: GaNDLF's CSV and MONAI's datalist."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.datalist import Datalist
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.write_manifest import write_manifest
from pipeline.errors import DataError


def put(folder: Path, content: str | dict[str, Any], *files: str) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    path = folder / ("list.csv" if isinstance(content, str) else "list.json")
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_gandlf(tmp_path: Path) -> None:
    text = (
        "SubjectID,Channel_0,Channel_1,Label,ValueToPredict,age\n"
        "p 1,a0.nii.gz,a1.nii.gz,al.nii.gz,1.0,50\n"
        "p2,b0.nii.gz,b1.nii.gz,bl.nii.gz,0,\n"
    )
    files = [f"{case}{part}.nii.gz" for case in "ab" for part in "01l"]
    manifest = Datalist(path=put(tmp_path, text, *files), channels=("T1", "T2")).cases()
    a, b = manifest.cases
    assert a.images == {"T1": tmp_path / "a0.nii.gz", "T2": tmp_path / "a1.nii.gz"}
    assert (a.case_id, a.label, a.classes, b.classes) == ("p_1", tmp_path / "al.nii.gz", ("1",), ("0",))
    assert manifest.class_names == ("0", "1")
    assert manifest.metadata == {"columns": {"age": {"p_1": "50"}}}
    assert Datalist(path=tmp_path / "list.csv").cases().channels == ("Channel_0", "Channel_1")
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest


def test_columns_by_name(tmp_path: Path) -> None:
    text = "scan,file,lesions,who,hospital,part,done\nx,i.mha,m.mha,p,N,1,liver|spleen\ny,j.mha,,p,N,1.0,|\n"
    (tmp_path / "lists").mkdir()
    path = put(tmp_path / "lists", text, "../far/i.mha", "../far/j.mha", "../far/m.mha")
    columns: dict[str, Any] = {"case_id": "scan", "image": "file", "label": "lesions", "group": "who",
                               "site": "hospital", "fold": "part", "annotated": "done"}  # fmt: skip
    manifest = Datalist(path=path, folder=tmp_path / "far", columns=columns).cases()
    x, y = manifest.cases
    assert (x.case_id, x.group, x.site, x.fold, x.annotated) == ("x", "p", "N", 1, ("liver", "spleen"))
    assert (y.label, y.fold, y.annotated) == (None, 1, ())
    assert x.images == {"image": tmp_path / "far/i.mha"}
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest


def test_monai_lists_and_folds(tmp_path: Path) -> None:
    tree = {
        "labels": {"0": "background", "1": "spleen"},
        "licence": "CC0",
        "training": [{"image": "a/i.nii.gz", "label": "a/l.nii.gz", "dose": 2}],
        "validation": [{"image": "b/i.nii.gz", "label": "b/l.nii.gz"}],
        "test": ["c/i.nii.gz"],
    }
    files = ("a/i.nii.gz", "a/l.nii.gz", "b/i.nii.gz", "b/l.nii.gz", "c/i.nii.gz")
    manifest = Datalist(path=put(tmp_path, tree, *files)).cases()
    assert [(case.case_id, case.split, case.fold) for case in manifest.cases] == [
        ("a_i", "train", 1),
        ("b_i", "train", 0),
        ("c_i", "test", None),
    ]
    assert manifest.labels.classes == ("background", "spleen")
    assert manifest.metadata == {"labels": tree["labels"], "licence": "CC0", "columns": {"dose": {"a_i": "2"}}}


def test_monai_classes_and_several_channels(tmp_path: Path) -> None:
    training = [{"image": [f"{name}0.nii", f"{name}1.nii"], "label": label, "fold": fold}
                for name, label, fold in (("a", 1, 0), ("b", [0, 2], 1))]  # fmt: skip
    path = put(tmp_path, {"training": training}, "a0.nii", "a1.nii", "b0.nii", "b1.nii")
    manifest = Datalist(path=path).cases()
    assert manifest.channels == ("channel_0", "channel_1")
    assert [(case.classes, case.fold, case.label) for case in manifest.cases] == [
        (("1",), 0, None),
        (("0", "2"), 1, None),
    ]


@pytest.mark.parametrize(
    ("content", "options", "part"),
    [
        ("id,scan\na,a.nii\n", {}, "no column holds images; found id, scan"),
        ("id,image\na,a.nii\n", {"columns": {"label": "mask"}}, "no column 'mask'; found id, image"),
        ("id,image\na,a.nii\n", {"columns": {"mask": "image"}}, "no field 'mask'"),
        ("id,image\na,a.nii\n", {"channels": ("x", "y")}, "channels names 2"),
        ("id,image\na,gone.nii\n", {}, "gone.nii is listed but not there"),
        ("id,image\na,a.nii\na,a.nii\n", {}, "case a is found 2 times"),
        ("id,image,fold\na,a.nii,x\n", {}, "row 1 (a): fold is 'x'"),
        ("id,Channel_0,Channel_1\na,a.nii,\n", {}, "case a: no file for channel Channel_1"),
        ({"cases": []}, {}, "expected a mapping with the list 'training'"),
        ({"training": []}, {}, "no column holds images"),
        ({"training": [{"image": "a.nii"}], "labels": {"x": "y"}}, {}, "labels are"),
    ],
)
def test_one_message_for(tmp_path: Path, content: Any, options: dict[str, Any], part: str) -> None:
    with pytest.raises(DataError) as caught:
        Datalist(path=put(tmp_path, content, "a.nii"), **options).cases()
    assert part in str(caught.value)


def test_no_such_file(tmp_path: Path) -> None:
    for name in ("x.csv", "x.json"):
        with pytest.raises(DataError, match="no such file"):
            Datalist(path=tmp_path / name).cases()


@pytest.mark.parametrize("column", ["PatientID", "subject_id"])
def test_a_patient_column_beside_the_case_is_the_group(tmp_path: Path, column: str) -> None:
    text = f"case_id,image,{column}\na,a.nii,p1\nb,b.nii,p1\n"
    manifest = Datalist(path=put(tmp_path, text, "a.nii", "b.nii")).cases()
    assert [case.group for case in manifest.cases] == ["p1", "p1"]


def test_a_label_file_of_another_kind_is_no_class(tmp_path: Path) -> None:
    text = "case_id,image,label\na,a.nii,a.npy\n"
    (one,) = Datalist(path=put(tmp_path, text, "a.nii", "a.npy")).cases().cases
    assert (one.label, one.classes) == (tmp_path / "a.npy", ())
