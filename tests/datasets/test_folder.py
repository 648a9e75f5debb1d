"""Folders of volumes by pattern, and the layouts that need none."""

from pathlib import Path

import pytest

from pipeline.datasets.folder import Folder
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.write_manifest import write_manifest
from pipeline.errors import DataError


def put(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def pairs(dataset: Folder) -> dict[str, tuple[str, str]]:
    return {
        case.case_id: (
            next(iter(case.images.values())).relative_to(dataset.folder).as_posix(),
            case.label.relative_to(dataset.folder).as_posix() if case.label else "",
        )
        for case in dataset.cases().cases
    }


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/{}.nii.gz", "labels/{}.nii.gz"),
        ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"),
        ("images/{}.mha", "masks/{}_seg.nrrd"),
        ("images/{}_ct.nii", "segmentations/{}_mask.nii"),
        ("{}.nii.gz", "{}_seg.nii.gz"),
        ("{0}_img.nii.gz", "{0}_label.nii.gz"),
        ("{0}/{0}_image.nii.gz", "{0}/{0}_mask.nii.gz"),
        ("{}/image.nii.gz", "{}/label.nii.gz"),
        ("{}/ct.nii.gz", "{}/segmentation.nii.gz"),
    ],
)
def test_usual_layouts_need_no_option(tmp_path: Path, image: str, label: str) -> None:
    cases = ("p1", "p2", "p10")
    put(tmp_path, *(text.format(case) for case in cases for text in (image, label)), "notes.txt", ".hidden.nii.gz")
    expected = {case: (image.format(case), label.format(case)) for case in cases}
    assert pairs(Folder(folder=tmp_path)) == expected
    assert list(pairs(Folder(folder=tmp_path))) == ["p1", "p2", "p10"]


def test_test_images_of_a_usual_layout(tmp_path: Path) -> None:
    put(tmp_path, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii.gz")
    assert [(case.case_id, case.split) for case in Folder(folder=tmp_path).cases().cases] == [
        ("a", "train"),
        ("b", "test"),
    ]


def test_patterns_with_channels_and_patients(tmp_path: Path) -> None:
    for patient in ("p1", "p2"):
        for day in ("d1", "d2"):
            put(tmp_path, *(f"north/{patient}/{day}/{name}.nii.gz" for name in ("t1", "t2", "lesion")))
    (tmp_path / "north/p2/d2/t2.nii.gz").unlink()
    images = {"T1": "{site}/{group}/{case}/t1.nii.gz", "T2": "{site}/{group}/{case}/t2.nii.gz"}
    dataset = Folder(folder=tmp_path, image=images, label="**/{group}/{case}/lesion.nii.gz")
    with pytest.raises(DataError, match="case p2_d2: no file for channel T2"):
        dataset.cases()
    manifest = dataset.model_copy(update={"optional_channels": ("T2",)}).cases()
    assert [case.case_id for case in manifest.cases] == ["p1_d1", "p1_d2", "p2_d1", "p2_d2"]
    assert [(case.group, case.site) for case in manifest.cases] == [("p1", "north")] * 2 + [("p2", "north")] * 2
    assert manifest.cases[0].label == tmp_path / "north/p1/d1/lesion.nii.gz"
    assert set(manifest.cases[3].images) == {"T1"}
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest


def test_what_does_not_match_is_named(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "images/b.nii.gz", "labels/c.nii.gz")
    with pytest.raises(DataError) as caught:
        Folder(folder=tmp_path).cases()
    for part in ("case b: there is no label for b.nii.gz", "c.nii.gz is a label without an image", "unlabelled=test"):
        assert part in str(caught.value), part
    (tmp_path / "labels/c.nii.gz").unlink()
    assert list(pairs(Folder(folder=tmp_path, unlabelled="leave_out"))) == ["a"]
    split = {case.case_id: case.split for case in Folder(folder=tmp_path, unlabelled="test").cases().cases}
    assert split == {"a": "train", "b": "test"}


@pytest.mark.parametrize(
    ("image", "label", "part"),
    [
        ("scans/{case}.nii.gz", None, "image: no file fits 'scans/{case}.nii.gz'; the files are called"),
        ("images/*.nii.gz", None, "has no field {case}"),
        ("images/{patient}.nii.gz", None, "has the field {patient}"),
        ("images/{case}_*.nii.gz", None, "case a: image:image is both"),
    ],
)
def test_one_message_for(tmp_path: Path, image: str, label: str | None, part: str) -> None:
    put(tmp_path, "images/a_1.nii.gz", "images/a_2.nii.gz")
    with pytest.raises(DataError) as caught:
        Folder(folder=tmp_path, image=image, label=label).cases()
    assert part in str(caught.value)


def test_strange_names_become_case_ids(tmp_path: Path) -> None:
    assert list(pairs(Folder(folder=put(tmp_path, "images/Fall 1 (a).nii.gz", "labels/Fall 1 (a).nii.gz")))) == [
        "Fall_1_a"
    ]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    put(tmp_path / "far", "a.nii.gz")
    put(tmp_path / "set", "labels/a.nii.gz")
    (tmp_path / "set/images").symlink_to(tmp_path / "far")
    (tmp_path / "set/images/loop").symlink_to(tmp_path)
    (tmp_path / "set/labels/up").symlink_to(tmp_path / "set")
    assert list(pairs(Folder(folder=tmp_path / "set"))) == ["a"]


def test_nothing_usable(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the usual layouts"):
        Folder(folder=put(tmp_path, "x/y/z/a.nii.gz")).cases()
    with pytest.raises(DataError, match="no such folder"):
        Folder(folder=tmp_path / "gone").cases()


def test_real_nodules(real_data: Path) -> None:
    manifest = Folder(folder=real_data / "lidc_nodules").cases()
    assert len(manifest.cases) == 212
    assert manifest.metadata["layout"] == {"image": "images/{case}.nii.gz", "label": "masks/{case}.nii.gz"}


def test_volumes_that_no_pattern_fits_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "images/a.nii.gz", "labels/a.nii.gz", "old/b.nii.gz", "old/c.nii.gz", "old/notes.txt")
    Folder(folder=tmp_path, image="images/{case}.nii.gz", label="labels/{case}.nii.gz").cases()
    assert "2 volume files that no pattern fits, such as old/b.nii.gz" in caplog.text


def test_names_that_differ_beyond_ascii_stay_apart_and_others_are_named(tmp_path: Path) -> None:
    put(tmp_path / "a", "images/ä 1.nii.gz", "images/ö 1.nii.gz", "images/海馬.nii.gz", "images/北京.nii.gz")
    ids = [case.case_id for case in Folder(folder=tmp_path / "a", image="images/{case}.nii.gz").cases().cases]
    assert len(set(ids)) == 4
    put(tmp_path / "b", "images/a 1.nii.gz", "images/a_1.nii.gz")
    with pytest.raises(DataError, match=r"case a_1 is found 2 times, as a 1\.nii\.gz and a_1\.nii\.gz"):
        Folder(folder=tmp_path / "b", image="images/{case}.nii.gz").cases()
