"""The fast path equals SimpleITK on sound files, and refuses what SimpleITK reads without a word."""

import gzip
import itertools
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.errors import DataError
from pipeline.imaging import geometry as geo
from pipeline.imaging.nifti import read_nifti

VOXELS = np.random.default_rng(3).integers(0, 100, (6, 5, 4)).astype(np.int16)
AFFINE = np.array([[1.0, 0, 0, -10], [0, 2, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
# Where NIfTI-1 keeps what the tests change.
DIM, DATATYPE, PIXDIM, SLOPE, UNITS, QUATERNION, SROW = 40, 70, 76, 112, 123, 256, 280


def _save(path, voxels=VOXELS, affine=AFFINE, qform=1, sform=1, kind=nibabel.Nifti1Image, **options):
    image = kind(voxels, affine, **options)
    image.set_qform(affine if qform else None, qform)
    image.set_sform(affine if sform else None, sform)
    nibabel.save(image, path)
    return path


def _patch(path, offset, form, *values):
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, offset, *values)
    path.write_bytes(content)
    return path


def _expect_equal_to_simpleitk(path):
    volume, image = read_nifti(path), sitk.ReadImage(str(path))
    expected = sitk.GetArrayFromImage(image)
    assert volume.voxels.dtype == expected.dtype
    assert volume.voxels.dtype.isnative
    np.testing.assert_allclose(volume.voxels[0], expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(geo.affine(volume.geometry), geo.affine(geo.geometry_of(image)), atol=1e-5)
    return volume


def test_all_real_files_equal_simpleitk(real_data):
    paths = sorted(real_data.glob("**/*.nii.gz"))
    # All but the many alike.
    for path in [path for path in paths if "ct_multiorgan" in str(path)] + paths[::10]:
        volume, image = read_nifti(path), sitk.ReadImage(str(path))
        np.testing.assert_array_equal(volume.voxels[0], sitk.GetArrayFromImage(image))
        assert volume.geometry == geo.geometry_of(image)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("order", "<>")
def test_every_real_type_in_both_byte_orders(tmp_path, kind, order):
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(kind)
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(VOXELS.astype(kind), AFFINE, header, dtype=kind), path)
    assert _expect_equal_to_simpleitk(path).dtype == np.dtype(kind)


def _orientations():
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = np.zeros((3, 3))
            matrix[list(axes), range(3)] = signs
            yield matrix


OBLIQUE = np.reshape(sitk.Euler3DTransform((0, 0, 0), 0.2, -0.4, 0.5).GetMatrix(), (3, 3))


@pytest.mark.parametrize(("qform", "sform"), [(1, 1), (1, 0), (0, 2), (2, 4)])
def test_all_orientations_by_either_transform(tmp_path, qform, sform):
    for number, turn in enumerate(_orientations()):
        affine = AFFINE.copy()
        affine[:3, :3] = (OBLIQUE if number % 5 == 0 else np.eye(3)) @ turn @ np.diag([1.0, 2.0, 3.0])
        _expect_equal_to_simpleitk(_save(tmp_path / f"{number}.nii", affine=affine, qform=qform, sform=sform))


@pytest.mark.parametrize(("qform", "sform"), list(itertools.product((0, 1, 2, 4), repeat=2)))
def test_transforms_that_disagree_are_chosen_between_as_in_simpleitk(tmp_path, qform, sform):
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    image.set_qform(AFFINE, qform)
    other = AFFINE.copy()
    other[:3, :3] = OBLIQUE @ AFFINE[:3, :3]
    image.set_sform(other, sform)
    nibabel.save(image, tmp_path / "a.nii.gz")
    _expect_equal_to_simpleitk(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(("slope", "inter"), [(2.5, -1024.0), (1.0, -1024.0), (1.0, 0.0), (0.0, 0.0), (0.0, 5.0),
                                              (float("nan"), float("nan")), (1e-3, 1e4)])  # fmt: skip
@pytest.mark.parametrize("kind", ["i2", "u1", "f4", "f8"])
def test_slope_and_intercept(tmp_path, slope, inter, kind):
    path = _patch(_save(tmp_path / "a.nii", VOXELS.astype(kind)), SLOPE, "<ff", slope, inter)
    _expect_equal_to_simpleitk(path)


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_units(tmp_path, code):
    _expect_equal_to_simpleitk(_patch(_save(tmp_path / "a.nii"), UNITS, "B", code))


def test_trailing_axes_of_one(tmp_path):
    for extra in [(1,), (1, 1), (1, 1, 1)]:
        volume = _expect_equal_to_simpleitk(_save(tmp_path / "a.nii.gz", VOXELS.reshape(*VOXELS.shape, *extra)))
        assert volume.voxels.shape == (1, 4, 5, 6)


@pytest.mark.parametrize("axes", [4, 5])
def test_a_fourth_axis_is_refused_unless_asked_as_channels(tmp_path, axes):
    voxels = np.stack([VOXELS, VOXELS + 1], -1)
    path = _save(tmp_path / "a.nii.gz", voxels if axes == 4 else voxels[..., None, :])
    with pytest.raises(DataError, match="holds 2 volumes along a fourth axis; expected 1"):
        read_nifti(path)
    volume = read_nifti(path, channels=2)
    np.testing.assert_array_equal(volume.voxels, voxels.T)
    assert volume.geometry == read_nifti(_save(tmp_path / "one.nii.gz")).geometry


def test_nifti2_reads_as_nifti1(tmp_path):
    one = read_nifti(_save(tmp_path / "one.nii.gz"))
    two = read_nifti(_save(tmp_path / "two.nii.gz", kind=nibabel.Nifti2Image))
    np.testing.assert_array_equal(one.voxels, two.voxels)
    assert geo.difference(one.geometry, two.geometry) == []


def test_header_extensions_are_passed_over(tmp_path):
    image = nibabel.Nifti1Image(VOXELS, AFFINE)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * 1000))
    nibabel.save(image, tmp_path / "a.nii.gz")
    _expect_equal_to_simpleitk(tmp_path / "a.nii.gz")


def test_voxels_come_from_the_named_file_where_a_twin_lies_beside(tmp_path):
    path = _save(tmp_path / "x.nii.gz")
    _save(tmp_path / "x.nii", VOXELS + 1)
    np.testing.assert_array_equal(read_nifti(path).voxels[0], VOXELS.T)
    np.testing.assert_array_equal(read_nifti(tmp_path / "x.nii").voxels[0], VOXELS.T + 1)


def test_content_decides_what_is_compressed_not_the_name(tmp_path):
    path = _save(tmp_path / "a.nii")
    (tmp_path / "b.nii.gz").write_bytes(path.read_bytes())
    (tmp_path / "c.nii").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("b.nii.gz", "c.nii"):
        np.testing.assert_array_equal(read_nifti(tmp_path / name).voxels[0], VOXELS.T)


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9, -4])
def test_truncated_files_are_refused_where_simpleitk_reads_them(tmp_path, where):
    voxels = np.random.default_rng(4).integers(0, 100, (40, 50, 60)).astype(np.int16)
    for name in ("a.nii.gz", "b.nii"):
        path = _save(tmp_path / name, voxels)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * where) if where > 0 else where])
        with pytest.raises(DataError, match=r"cut short|cannot hold"):
            read_nifti(path)


def test_a_damaged_checksum_is_refused(tmp_path):
    # Of smaller files SimpleITK finds the damage while it looks for a reader.
    path = _save(tmp_path / "a.nii.gz", np.random.default_rng(4).integers(0, 100, (100, 100, 60)).astype(np.int16))
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(content)
    sitk.ReadImage(str(path))  # the trap: no word of it
    with pytest.raises(DataError, match="damaged"):
        read_nifti(path)


@pytest.mark.parametrize(
    ("offset", "form", "values", "message"),
    [
        (DIM, "<8h", (3, 600, 5, 4, 1, 1, 1, 1), "cut short|cannot hold"),
        (DIM, "<8h", (3, 30000, 30000, 30000, 1, 1, 1, 1), "cannot hold"),
        (DIM, "<8h", (3, 6, 5, 3, 1, 1, 1, 1), "more bytes"),
        (DIM, "<8h", (3, 6, -5, 4, 1, 1, 1, 1), "dimensions"),
        (DIM, "<8h", (2, 30, 4, 1, 1, 1, 1, 1), "2 axes; expected a 3-D"),
        (DATATYPE, "<h", (32,), "complex"),
        (DATATYPE, "<h", (99,), "unknown"),
        (PIXDIM + 12, "<f", (0.0,), "voxel size along"),
        (PIXDIM + 12, "<f", (-3.0,), "voxel size along"),
        (PIXDIM + 12, "<f", (float("nan"),), "voxel size along"),
        (PIXDIM + 12, "<f", (4.0,), "contradicts itself"),
        (344, "<4s", (b"nope",), "magic"),
        (0, "<i", (17,), "no NIfTI"),
    ],
)  # fmt: skip
def test_lying_headers_are_refused(tmp_path, offset, form, values, message):
    path = _patch(_save(tmp_path / "a.nii", qform=0), offset, form, *values)
    packed = tmp_path / "b.nii.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for each in (path, packed):
        with pytest.raises(DataError, match=message):
            read_nifti(each)


def test_a_sheared_grid_is_refused_with_its_angle(tmp_path):
    affine = AFFINE.copy()
    affine[0, 1] = 2 * np.tan(np.radians(5))
    with pytest.raises(DataError, match=r"5 degrees off a right angle"):
        read_nifti(_save(tmp_path / "a.nii", affine=affine, qform=0, sform=2))


def test_a_grid_that_is_not_finite_is_refused(tmp_path):
    path = _patch(_save(tmp_path / "a.nii", sform=0), QUATERNION + 12, "<f", float("inf"))
    with pytest.raises(DataError, match="qform has NaN or infinite"):
        read_nifti(path)
    path = _patch(_save(tmp_path / "a.nii", qform=0), SROW + 12, "<f", float("nan"))
    with pytest.raises(DataError, match="sform has NaN or infinite"):
        read_nifti(path)


@pytest.mark.parametrize("content", [b"", b"abc", b"\x1f\x8b", b"\x5c\x01\x00\x00" + bytes(100)])
def test_scraps_are_refused(tmp_path, content):
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(DataError):
        read_nifti(tmp_path / "a.nii.gz")
