"""A mended label lies on its image's grid with each value where it was, in every orientation, and the source stays."""

import hashlib
from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.errors import DataError
from pipeline.imaging.geometry import image_of
from pipeline.imaging.mend import mend_label
from pipeline.imaging.nifti import read_nifti
from pipeline.imaging.volume import Geometry

RNG = np.random.default_rng(9)
GRID = Geometry(
    shape=(4, 5, 6), spacing_mm=(3.0, 1.5, 1.0), origin=(10, -20, 30), direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1)
)
VALUES = RNG.integers(0, 3, GRID.shape).astype(np.uint8)


def _codes():
    for axes in permutations(("LR", "AP", "IS")):
        for sides in product((0, 1), repeat=3):
            yield "".join(pair[side] for pair, side in zip(axes, sides, strict=True))


@pytest.mark.parametrize("code", list(_codes())[::5])
def test_turned_label_comes_back_voxel_for_voxel(tmp_path, code):
    turned = sitk.DICOMOrient(image_of(VALUES, GRID), code)
    sitk.WriteImage(turned, str(tmp_path / "label.nii.gz"))
    before, after = mend_label(tmp_path / "label.nii.gz", tmp_path / "new.nii.gz", GRID, "c")
    assert before == hashlib.sha256((tmp_path / "label.nii.gz").read_bytes()).hexdigest()
    assert after == hashlib.sha256((tmp_path / "new.nii.gz").read_bytes()).hexdigest()
    mended = read_nifti(tmp_path / "new.nii.gz")
    np.testing.assert_array_equal(mended.voxels[0], VALUES)
    np.testing.assert_allclose(mended.geometry.origin, GRID.origin, atol=1e-4)


@pytest.mark.parametrize(("kind", "expected"), [("f4", "uint8"), ("f8", "uint8"), ("i8", "uint8"), ("i2", "int16")])
def test_lost_grid_is_taken_over_in_the_smallest_type(tmp_path, kind, expected):
    values = VALUES.astype(kind) - (kind == "i2")
    image = sitk.GetImageFromArray(values)
    sitk.WriteImage(image, str(tmp_path / "label.nii.gz"))
    mend_label(tmp_path / "label.nii.gz", tmp_path / "new.nii.gz", GRID, "c")
    mended = read_nifti(tmp_path / "new.nii.gz")
    np.testing.assert_array_equal(mended.voxels[0], values)
    assert mended.voxels.dtype.name == expected
    np.testing.assert_allclose(mended.geometry.spacing_mm, GRID.spacing_mm, atol=1e-5)


def test_what_cannot_be_mended_is_refused_and_nothing_written(tmp_path):
    for values, said in ((VALUES[:-1], "shape"), (VALUES * 0.3, "whole")):
        sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "label.nii.gz"))
        with pytest.raises(DataError, match=said):
            mend_label(tmp_path / "label.nii.gz", tmp_path / "new.nii.gz", GRID, "c")
        assert not (tmp_path / "new.nii.gz").exists()
