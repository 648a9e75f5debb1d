"""What is found among files, folders and manifests, and what is not predicted."""

import errno
import os
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.batch.inputs import find_files
from pipeline.errors import ConfigError


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_an_optional_channel_may_lack(tmp_path: Path) -> None:
    for name in ("a_t1", "a_t2", "b_t1", "c_t2"):
        (tmp_path / f"{name}.nii.gz").touch()
    found, _ = find_files([tmp_path], ["t1", "t2"], ["t2"])
    assert {source.case_id: tuple(source.files) for source in found.sources} == {"a": ("t1", "t2"), "b": ("t1",)}
    assert [(one.case_id, "channel t1" in one.reason) for one in found.passed] == [("c", True)]


def test_files_and_folders_are_cases_by_name(tmp_path: Path) -> None:
    _touch(tmp_path / "in" / "b 1.nii.gz", tmp_path / "in" / "sub" / "a.mha", tmp_path / "in" / "._b.nii.gz",
           tmp_path / "in" / "notes.txt", tmp_path / "c.NII.GZ", tmp_path / "in" / "case10.nrrd",
           tmp_path / "in" / "case9.nrrd")  # fmt: skip
    found, rest = find_files([tmp_path / "in", tmp_path / "c.NII.GZ"], ["image"])
    assert [source.case_id for source in found.sources] == ["b_1", "case9", "case10", "sub_a", "c"]
    assert found.sources[0].files == {"image": (tmp_path / "in" / "b 1.nii.gz",)}
    assert not rest
    assert not found.passed


def test_folders_without_volumes_are_left_to_the_audit(tmp_path: Path) -> None:
    _touch(tmp_path / "export" / "IM0001", tmp_path / "x.dcm")
    found, rest = find_files([tmp_path / "export", tmp_path / "x.dcm"], ["image"])
    assert found.sources == ()
    assert rest == (tmp_path / "export", tmp_path / "x.dcm")


def test_channels_by_number_and_by_name(tmp_path: Path) -> None:
    for name in ("one_0000", "one_0001", "two_t1", "two_t2", "lone_0001", "four"):
        _touch(tmp_path / f"{name}.nii.gz")
    found, _ = find_files([tmp_path], ["t1", "t2"])
    files = {
        source.case_id: [path.name for paths in source.files.values() for path in paths] for source in found.sources
    }
    assert files == {
        "one": ["one_0000.nii.gz", "one_0001.nii.gz"],
        "two": ["two_t1.nii.gz", "two_t2.nii.gz"],
        "four": ["four.nii.gz", "four.nii.gz"],  # a 4-D file
    }
    assert [(one.case_id, one.status) for one in found.passed] == [("lone", "unreadable")]
    assert "no file for channel t1" in found.passed[0].reason
    assert "lone_0000" in found.passed[0].reason


def test_one_channel_takes_only_its_own_number_for_one(tmp_path: Path) -> None:
    _touch(tmp_path / "a_0000.nii.gz", tmp_path / "scan_0012.nii.gz")
    found, _ = find_files([tmp_path], ["image"])
    assert [source.case_id for source in found.sources] == ["a", "scan_0012"]


def test_one_name_for_two_inputs_is_ambiguous(tmp_path: Path) -> None:
    _touch(
        tmp_path / "x" / "ct.nii.gz",
        tmp_path / "y" / "ct.nii.gz",
        tmp_path / "y" / "z.nii.gz",
        tmp_path / "y" / "z.mha",
    )
    found, _ = find_files([tmp_path / "x", tmp_path / "y"], ["image"])
    assert found.sources == ()
    assert [(one.case_id, one.status) for one in found.passed] == [("ct", "ambiguous"), ("z", "ambiguous")]
    again, _ = find_files([tmp_path / "x", tmp_path / "x" / "ct.nii.gz"], ["image"])
    assert len(again.sources) == 1  # one file named twice is one case


def test_a_manifest_names_its_cases(tmp_path: Path) -> None:
    _touch(tmp_path / "a.nii.gz")
    (tmp_path / "list.csv").write_text("case_id,image\nfirst,a.nii.gz\ngone,b.nii.gz\n")
    found, _ = find_files([tmp_path / "list.csv"], ["CT"])
    assert [source.case_id for source in found.sources] == ["first"]
    assert found.sources[0].files == {"CT": (tmp_path / "a.nii.gz",)}
    assert [(one.case_id, one.status) for one in found.passed] == [("gone", "unreadable")]


def test_inputs_that_do_not_exist_are_named_together(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)2 problems.*one.*two"):
        find_files([tmp_path / "one", tmp_path / "two"], ["image"])


def test_dicom_beside_volumes_is_left_to_the_audit(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.nii.gz").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("no scan")
    assert find_files([tmp_path], ("image",))[1] == ()
    (tmp_path / "sub" / "IM0001").write_bytes(bytes(128) + b"DICM" + bytes(20))
    found, rest = find_files([tmp_path], ("image",))
    assert [source.case_id for source in found.sources] == ["a"]
    assert rest == (tmp_path,)


def test_masks_of_an_earlier_start_are_no_inputs(tmp_path: Path) -> None:
    _touch(tmp_path / "a.nii.gz", tmp_path / "out" / "masks" / "a.nii.gz", tmp_path / "out" / "status.csv")
    (tmp_path / "out" / "provenance").mkdir()
    found, rest = find_files([tmp_path], ["image"])
    assert ([source.case_id for source in found.sources], rest) == (["a"], ())
    assert [source.case_id for source in find_files([tmp_path / "out" / "masks"], ["image"])[0].sources] == ["a"]


def test_pipes_are_passed_over_and_closed_folders_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path / "in" / "a.nii.gz", tmp_path / "in" / "closed" / "b.nii.gz")
    for name in ("fifo", "fifo.nii"):
        os.mkfifo(tmp_path / "in" / name)
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found, rest = find_files([tmp_path / "in"], ["image"])
    assert [source.case_id for source in found.sources] == ["a"]
    assert [(one.case_id, one.status) for one in found.passed] == [("closed", "unreadable")]
    assert "cannot be looked into (Permission denied)" in found.passed[0].reason
    assert not rest


def test_names_beyond_ascii_are_cases_of_their_own(tmp_path: Path) -> None:
    for name in ("海馬", "東京", "Иванов"):
        (tmp_path / f"{name}.nii.gz").touch()
    found, _ = find_files([tmp_path], ["image"])
    assert len({source.case_id for source in found.sources}) == 3


def test_folders_of_a_manifest_are_audited(tmp_path: Path, synthetic: ModuleType) -> None:
    synthetic.write(synthetic.make(1), tmp_path / "sound")
    for kind in ("one slice missing", "two patients under one UID"):
        synthetic.write(synthetic.make_broken(kind, 2), tmp_path / kind.replace(" ", "_"))
    rows = "".join(f"{name},{name}\n" for name in ("sound", "one_slice_missing", "two_patients_under_one_UID"))
    (tmp_path / "x.csv").write_text(f"case_id,image\n{rows}")
    found, _ = find_files([tmp_path / "x.csv"], ["image"])
    (source,) = found.sources
    assert (source.case_id, len(source.files["image"])) == ("sound", synthetic.SLICES)
    assert source.series
    assert {one.case_id: one.status for one in found.passed} == {
        "one_slice_missing": "unreadable", "two_patients_under_one_UID": "unreadable",
    }  # fmt: skip
    assert "1 slice missing" in found.passed[0].reason
