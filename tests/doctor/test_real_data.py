"""On real data sets the doctor tells what is known of them, and raises no false alarm."""

import pytest

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.decathlon import Decathlon
from pipeline.datasets.lidc import LidcNodules
from pipeline.datasets.mnist3d import Mnist3d
from pipeline.doctor.checkup import Expectation, check_up
from pipeline.machine import Machine
from pipeline.progress import Progress


def _check(manifest, expectation=Expectation()):
    findings = check_up(manifest, Machine(workers=1), Progress(), expectation).findings
    worse = [one for one in findings if one.severity != "info"]
    return worse, " ".join(one.found for one in findings)


def _folders(folder, *names):
    cases = [Case(case_id=f"c{number}", images={"image": folder / name}) for number, name in enumerate(names)]
    return Manifest(cases=tuple(cases))


def test_hippocampus(real_data):
    worse, said = _check(Decathlon(folder=real_data / "Task04_Hippocampus").cases())
    assert worse == []
    assert "float32 (61), uint8 (10)" in said
    assert "direction (-1, -1, 1)" in said
    assert "1 x 1 x 1 mm" in said
    assert "share no unit" in said


@pytest.mark.slow
def test_lung_nodules(real_data):
    manifest = LidcNodules(folder=real_data / "lidc_nodules").cases()
    worse, said = _check(manifest, Expectation("the config's hu_window takes it for CT", needs_labels=True))
    assert worse == []
    assert "212 cases of 128 patients" in said
    assert "fewer than 8 slices (median of all: 6)" in said
    assert "205 of 212 cases run to S, P, L" in said
    assert "'diameter_mm' alone tells malignant from benign" in said


def test_trunk(real_data):
    folder = real_data / "ct_multiorgan"
    case = Case(case_id="trunk", images={"CT": folder / "ct.nii.gz"}, label=folder / "organs.nii.gz")
    worse, said = _check(Manifest(cases=(case,), channels=("CT",)))
    assert worse == []
    assert "from -1207 to 3382" in said
    assert "61 label values beside 0" in said
    assert "not consecutive" in said
    assert "112 x 101 x 122 voxels" in said


def test_series(real_data):
    worse, said = _check(_folders(real_data / "ct_multiorgan", "dicom"))
    assert worse == []
    assert "JPEG 2000" in said
    assert "file names without an ending" in said
    assert "2 mm apart, where SliceThickness says 3 mm" in said
    study = real_data / "dicom_mr_study"
    worse, said = _check(_folders(study, *sorted(part.name for part in study.iterdir() if part.is_dir())))
    assert worse == []
    assert "2 of 3 cases oblique" in said
    assert "6.5 mm apart" in said
    assert "uncompressed" in said


@pytest.mark.slow
def test_one_pair_of_equal_grids_in_3d_mnist(real_data):
    worse, said = _check(Mnist3d(file=real_data / "mnist3d_8" / "voxelgrid.npz").cases())
    assert [(one.severity, one.case_id, one.kind) for one in worse] == [("warning", "valid_00561", "duplicate")]
    assert "X_train (5000 volumes), X_valid (1000), X_test (1000)" in said
    assert "from 0 to 1" in said
