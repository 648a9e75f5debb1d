"""What is written reads back the same, with SimpleITK and with nibabel, or is not there."""

import gzip
import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.imaging import geometry as geo
from pipeline.imaging import write
from pipeline.imaging.read import read_image
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image, write_mask

RNG = np.random.default_rng(11)
MASK = RNG.integers(0, 5, (7, 8, 9)).astype(np.uint8)
OBLIQUE = np.reshape(sitk.Euler3DTransform((0, 0, 0), 0.2, -0.4, 0.5).GetMatrix(), (3, 3))


def _grids():
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(axes), range(3)] = signs
            for turn in (np.eye(3), OBLIQUE):
                yield Geometry(shape=MASK.shape, spacing_mm=(3.0, 0.7, 1.1), origin=(-120.5, 33.3, 700.25),
                               direction=tuple((turn @ matrix).ravel()))  # fmt: skip


GRID = list(_grids())[1]


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd"])
def test_all_orientations_read_back_with_simpleitk(tmp_path, name):
    for geometry in list(_grids())[:: 1 if name == "a.nii.gz" else 7]:
        write_mask(MASK, geometry, tmp_path / name)
        image = sitk.ReadImage(str(tmp_path / name))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), MASK)
        np.testing.assert_allclose(geo.affine(geo.geometry_of(image)), geo.affine(geometry), atol=1e-4)


def test_both_nifti_transforms_say_the_same_to_nibabel(tmp_path):
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    for geometry in _grids():
        write_mask(MASK, geometry, tmp_path / "a.nii.gz")
        image = nibabel.load(tmp_path / "a.nii.gz")
        lps = geo.affine(geometry)
        lps[:3, :3] = lps[:3, 2::-1]
        for matrix, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
            assert code == 1
            np.testing.assert_allclose(matrix, flip @ lps, atol=1e-4)
        assert image.header.get_xyzt_units() == ("mm", "sec")
        np.testing.assert_array_equal(np.asarray(image.dataobj), MASK.T)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "uint32", "int32"])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd"])
def test_types_and_endings(tmp_path, kind, name):
    write_mask((MASK.astype(np.int64) * 50).astype(kind), GRID, tmp_path / "deep" / "er" / name)
    volume = read_image(tmp_path / "deep" / "er" / name, case_id="c1")
    assert volume.dtype == kind
    np.testing.assert_array_equal(volume.voxels[0], MASK.astype(np.int64) * 50 % (256 if kind == "uint8" else 65536))
    assert geo.difference(volume.geometry, GRID, tolerance_mm=1e-4) == []


def test_views_in_any_memory_order(tmp_path):
    source = Volume(MASK[None], GRID)
    volume, reorientation = geo.canonical(source)
    write_mask(volume.voxels[0], volume.geometry, tmp_path / "a.nii.gz")
    back = read_image(tmp_path / "a.nii.gz", case_id="c1")
    np.testing.assert_array_equal(geo.restore(back.voxels, reorientation), source.voxels)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd"])
def test_images_with_channels(tmp_path, name):
    voxels = RNG.normal(size=(3, *MASK.shape)).astype(np.float32)
    write_image(Volume(voxels, GRID), tmp_path / name)
    back = read_image(tmp_path / name, case_id="c1", channels=3)
    np.testing.assert_array_equal(back.voxels, voxels)
    assert geo.difference(back.geometry, GRID, tolerance_mm=1e-4) == []


def test_equal_masks_are_equal_files(tmp_path):
    write_mask(MASK, GRID, tmp_path / "one.nii.gz")
    write_mask(MASK, GRID, tmp_path / "two.nii.gz")
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
    assert len(gzip.decompress((tmp_path / "one.nii.gz").read_bytes())) == 352 + MASK.size


def test_an_empty_mask_is_written_too(tmp_path):
    write_mask(np.zeros_like(MASK), GRID, tmp_path / "a.nii.gz")
    assert not sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))).any()


def test_failing_half_way_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    write_mask(MASK, GRID, tmp_path / "a.nii.gz")
    before = (tmp_path / "a.nii.gz").read_bytes()

    def break_off(volume, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(write, "_write_nifti", break_off)
    with pytest.raises(OSError, match="disk full"):
        write_mask(MASK + 1, GRID, tmp_path / "a.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
    assert (tmp_path / "a.nii.gz").read_bytes() == before


def test_other_types_and_endings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="a mask of float32"):
        write_mask(MASK.astype(np.float32), GRID, tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match="ending is not known"):
        write_mask(MASK, GRID, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
