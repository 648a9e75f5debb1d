"""What a header says agrees with nibabel, whatever its form, unit and byte order."""

import nibabel
import numpy as np
import pytest

from pipeline.imaging.geometry import affine
from pipeline.imaging.nifti import read_nifti
from pipeline.imaging.nifti_forms import _fields, _qform, read_forms

RNG = np.random.default_rng(4)
VOXELS = RNG.integers(0, 100, (6, 7, 8)).astype(np.int16)


def _turned(degrees, flip):
    a, b = np.radians(degrees), np.radians(2 * degrees)
    one = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    two = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3] = one @ two @ np.diag([1.2, 0.8, -3.0 if flip else 3.0])
    matrix[:3, 3] = [10, -20, 30]
    return matrix


def _forms(path):
    return read_forms(path, read_nifti(path).geometry)


@pytest.mark.parametrize("degrees", [0, 13, 50, 120])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_qform_equals_nibabels(tmp_path, degrees, flip, kind):
    image = kind(VOXELS, None)
    image.set_qform(_turned(degrees, flip), 1)
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "x.nii.gz")
    np.testing.assert_allclose(_qform(_fields(tmp_path / "x.nii.gz")), image.get_qform(), atol=1e-4)
    found = _forms(tmp_path / "x.nii.gz")
    assert (found.has_qform, found.has_sform, found.used, found.apart_mm) == (True, False, "qform", 0.0)


def test_big_endian(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.dtype(">i2"))
    image = nibabel.Nifti1Image(VOXELS, _turned(20, False), header)
    nibabel.save(image, tmp_path / "x.nii")
    np.testing.assert_allclose(_qform(_fields(tmp_path / "x.nii")), image.get_sform(), atol=1e-4)


@pytest.mark.parametrize(("codes", "used"), [((1, 1), "sform"), ((1, 2), "qform"), ((0, 2), "sform")])
def test_forms_apart_and_the_one_that_was_used(tmp_path, codes, used):
    sform, qform = _turned(0, False), _turned(0, False)
    qform[0, 3] += 7
    image = nibabel.Nifti1Image(VOXELS, sform)
    image.set_qform(qform, codes[0])
    image.set_sform(sform, codes[1])
    nibabel.save(image, tmp_path / "x.nii.gz")
    found = _forms(tmp_path / "x.nii.gz")
    assert found.apart_mm == pytest.approx(7 if codes[0] else 0, abs=1e-4)
    read = affine(read_nifti(tmp_path / "x.nii.gz").geometry)[0, 3]
    assert found.used == {-10: "sform", -17: "qform"}[round(read)]
    assert found.used == used


def test_unit_and_slope(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "x.nii.gz")
    found = _forms(tmp_path / "x.nii.gz")
    assert found.unit == "metre"
    assert found.apart_mm < 0.01
    assert (found.slope, found.intercept) == (1.0, 0.0)
