"""A scanner's export as a data set: usable series are cases, and nothing personal is kept."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pipeline.datasets.base import Case
from pipeline.datasets.dicom_series import DicomSeries, refused_folders
from pipeline.datasets.manifest import read_manifest
from pipeline.datasets.write_manifest import write_manifest
from pipeline.dicom.audit import audit
from pipeline.dicom.codes import code_of, codes_of
from pipeline.dicom.decode import read_series
from pipeline.dicom.seg import Algorithm, write_seg
from pipeline.errors import DataError
from pipeline.imaging.labels import Labels
from pipeline.imaging.read import read_case, read_case_images


@pytest.fixture
def synthetic() -> ModuleType:
    """The generator of the tests of `dicom/`."""
    name = "tests_dicom_synthetic"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "dicom" / "synthetic.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def test_usable_series_are_cases(tmp_path: Path, synthetic: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    synthetic.write(synthetic.make(1), tmp_path / "in/a")
    other = synthetic.make(2)
    for one in other.datasets:
        one.PatientID = "another"
    synthetic.write(other, tmp_path / "in/b")
    synthetic.write(synthetic.make(3), tmp_path / "in/two")
    synthetic.write(synthetic.make(4), tmp_path / "in/two", prefix="J")
    synthetic.write(synthetic.make_broken("one slice missing", 5), tmp_path / "in/c")
    manifest = DicomSeries(folder=tmp_path / "in").cases()
    assert {case.images["image"] for case in manifest.cases} == {tmp_path / "in/a", tmp_path / "in/b"}
    assert len({case.group for case in manifest.cases}) == 2
    assert len(manifest.metadata["left_out"]) == 3
    reasons = " ".join(manifest.metadata["left_out"].values())
    assert "missing slices" in reasons
    assert "shares its folder" in reasons
    assert "3 series left out" in caplog.text
    assert manifest == DicomSeries(folder=tmp_path / "in").cases()  # the same ids at each look
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest
    for case in manifest.cases:
        assert read_case_images(case.images, case_id=case.case_id).channels == 1


def test_nothing_personal_is_written(tmp_path: Path, synthetic: ModuleType) -> None:
    made = synthetic.make(1)
    for one in made.datasets:
        one.PatientName, one.PatientID, one.PatientBirthDate = "Doe^Jane", "MRN-4711", "19700101"
    synthetic.write(made, tmp_path / "in/a")
    write_manifest(DicomSeries(folder=tmp_path / "in").cases(), tmp_path / "x.csv")
    text = (tmp_path / "x.csv").read_text()
    assert not [word for word in ("Doe", "Jane", "4711", "1970") if word in text.replace(str(tmp_path), "")]


def test_rules_and_uids(tmp_path: Path, synthetic: ModuleType) -> None:
    synthetic.write(synthetic.make(1), tmp_path / "in/a")
    (tmp_path / "rules.yaml").write_text("rules:\n  - {name: mr, modality: MR}\n")
    dataset = DicomSeries(folder=tmp_path / "in", ids="uid")
    assert dataset.cases().cases[0].case_id.startswith(("1.", "2."))
    with pytest.raises(DataError, match="no rule takes it"):
        dataset.model_copy(update={"rules": tmp_path / "rules.yaml"}).cases()
    with pytest.raises(DataError, match=r"rules: .* cannot be read"):
        dataset.model_copy(update={"rules": tmp_path / "gone.yaml"}).cases()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no cases"):
        DicomSeries(folder=tmp_path / "empty").cases()


def test_real_study(real_data: Path) -> None:
    manifest = DicomSeries(folder=real_data / "dicom_mr_study").cases()
    assert len(manifest.cases) == 3
    assert len({case.group for case in manifest.cases}) == 1


def test_segmentations_are_labels(tmp_path: Path, synthetic: ModuleType) -> None:
    """There and back: what was written as DICOM is the label of its series, voxel for voxel, with names and codes."""
    pytest.importorskip("highdicom")
    synthetic.write(synthetic.make(1), tmp_path / "in/a")
    (judged,) = audit([tmp_path / "in"]).judged
    grid = read_series(judged.series).geometry
    mask = np.random.default_rng(0).integers(0, 3, grid.shape).astype(np.uint8)
    labels = Labels.model_validate({0: "background", 1: "liver", 2: "left_kidney"})
    write_seg(mask, grid, judged.series, labels, tmp_path / "in/seg/result.dcm", algorithm=Algorithm("test"))
    dataset = DicomSeries(folder=tmp_path / "in", labels_folder=tmp_path / "labels")
    manifest = dataset.cases()
    (case,) = manifest.cases
    assert case.label == tmp_path / "labels" / f"{case.case_id}.nii.gz"
    assert manifest.labels == labels
    _, indices = read_case(case.images, case.label, manifest.labels, case_id=case.case_id)
    assert indices is not None
    np.testing.assert_array_equal(indices.voxels[0], mask)
    assert codes_of(manifest.metadata) == {name: code_of(name) for name in ("liver", "left_kidney")}
    write_manifest(manifest, tmp_path / "x.csv")
    assert read_manifest(tmp_path / "x.csv") == manifest
    without = dataset.model_copy(update={"labels_folder": None}).cases()
    assert without.cases[0].label is None
    assert "SEG holds no image" in " ".join(without.metadata["left_out"].values())


def test_folders_of_a_manifest_written_by_hand_are_audited(tmp_path: Path, synthetic: ModuleType) -> None:
    synthetic.write(synthetic.make(1), tmp_path / "sound")
    synthetic.write(synthetic.make_broken("one slice missing", 2), tmp_path / "gap")
    synthetic.write(synthetic.make(3, tilt_mm=0.8), tmp_path / "tilted")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.nii").touch()
    names = ("sound", "gap", "tilted", "empty", "file.nii")
    refused = refused_folders([Case(case_id=name, images={"image": tmp_path / name}) for name in names])
    assert set(refused) == {"gap", "tilted", "empty"}
    assert refused["gap"].startswith("case gap: image: missing slices: 1 slice missing")
    assert "tilted or uneven" in refused["tilted"]
    assert "holds 0 DICOM series" in refused["empty"]
