"""The table of lung nodules."""

from pathlib import Path

import pytest

from pipeline.datasets.lidc import LidcNodules
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.write_manifest import write_manifest
from pipeline.errors import DataError


def put(folder: Path, csv: str, files: tuple[str, ...]) -> LidcNodules:
    (folder / "nodules.csv").write_text(csv)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
        for name in files:
            (folder / kind / name).touch()
    return LidcNodules(folder=folder)


def test_one_case_a_nodule(tmp_path: Path) -> None:
    csv = "file,patient_id,malignant,diameter_mm\nP1_1.nii.gz,P1,1,22.88\nP1_2.nii.gz,P1,0,4.1\n"
    manifest = put(tmp_path, csv, ("P1_1.nii.gz", "P1_2.nii.gz")).cases()
    first, second = manifest.cases
    assert (first.case_id, first.group, first.classes) == ("P1_1", "P1", ("malignant",))
    assert first.images == {"image": tmp_path / "images/P1_1.nii.gz"}
    assert first.label == tmp_path / "masks/P1_1.nii.gz"
    assert second.classes == ("benign",)
    assert manifest.metadata["columns"]["diameter_mm"] == {"P1_1": "22.88", "P1_2": "4.1"}
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    csv = "file,patient_id,malignant,diameter_mm\na.nii.gz,P1,2,3\ngone.nii.gz,P1,0,4\nc.nii.gz,P,1,1\nc.nii.gz,P,1,1\n"
    with pytest.raises(DataError) as caught:
        put(tmp_path, csv, ("a.nii.gz", "c.nii.gz")).cases()
    for part in ("malignant is '2'", "images/gone.nii.gz is listed but", "'c.nii.gz' is listed twice"):
        assert part in str(caught.value), part


@pytest.mark.parametrize("csv", ["", "file,patient\na,b\n", "file,patient_id,malignant,diameter_mm\n"])
def test_one_message_for(tmp_path: Path, csv: str) -> None:
    with pytest.raises(DataError, match=r"nodules\.csv"):
        put(tmp_path, csv, ()).cases()


def test_real_nodules(real_data: Path) -> None:
    manifest = LidcNodules(folder=real_data / "lidc_nodules").cases()
    assert len(manifest.cases) == 212
    assert len({case.group for case in manifest.cases}) == 128
    assert sum(case.classes == ("malignant",) for case in manifest.cases) == 73
