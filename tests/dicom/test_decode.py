"""Decoding against SimpleITK, pydicom and dcm2niix, and the oddities that scanners write."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from pipeline.dicom.audit import audit
from pipeline.dicom.decode import acquired, read_series, stored_values
from pipeline.dicom.header import read_planes
from pipeline.errors import DataError
from pipeline.imaging.geometry import affine, geometry_of, to_physical


def read_one(folder: Path, **options):
    (judged,) = audit([folder], **options).judged
    return read_series(judged.series, **options)


@pytest.mark.parametrize("number", range(5))
def test_every_syntax_gives_the_values_that_were_written(number, tmp_path, synthetic):
    made = synthetic.make(number)
    made.syntax = synthetic.SOUND_SYNTAXES[number]
    synthetic.write(made, tmp_path)
    volume = read_one(tmp_path)
    assert volume.dtype == np.int16
    np.testing.assert_array_equal(volume.voxels[0], made.truth)


def test_oblique_grid_is_that_of_simpleitk(tmp_path, synthetic):
    turn = np.radians(20)
    made = synthetic.make(1, orientation=(1, 0, 0, 0, np.cos(turn), np.sin(turn)))
    paths = synthetic.write(made, tmp_path)
    image = sitk.ReadImage([str(path) for path in paths])
    volume = read_one(tmp_path)
    np.testing.assert_array_equal(volume.voxels[0], sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(affine(volume.geometry), affine(geometry_of(image)), atol=1e-4)


def test_descending_positions_come_out_ascending_along_the_normal(tmp_path, synthetic):
    made = synthetic.make(1, step=-2.5)
    synthetic.write(made, tmp_path)
    np.testing.assert_array_equal(read_one(tmp_path).voxels[0], made.truth[::-1])


def test_each_slice_has_its_own_rescale(tmp_path, synthetic):
    made = synthetic.make(2)
    for number, one in enumerate(made.datasets):
        one.RescaleSlope, one.RescaleIntercept = 0.5 + number, -number
    synthetic.write(made, tmp_path)
    volume = read_one(tmp_path)
    assert volume.dtype == np.float32
    expected = [one.stored * (0.5 + number) - number for number, one in enumerate(made.datasets)]
    np.testing.assert_allclose(volume.voxels[0], expected, rtol=1e-6)


@pytest.mark.parametrize("group", [0x60000000, 0x60020000, 0x601E0000])
def test_overlay_in_high_bits_is_masked_off(group, tmp_path, synthetic):
    made = synthetic.make(2)
    for one in made.datasets:
        one.add_new(group + 0x0102, "US", 12)
        one.PixelData = (one.stored | 0x1000).tobytes()
    synthetic.write(made, tmp_path)
    np.testing.assert_array_equal(read_one(tmp_path).voxels[0], made.truth)


def test_values_in_bits_that_are_called_unused_are_refused(tmp_path, synthetic):
    made = synthetic.make(2)
    made.datasets[3].PixelData = (made.datasets[3].stored | 0x1000).tobytes()
    synthetic.write(made, tmp_path)
    with pytest.raises(DataError, match="more than the 12 bits"):
        read_one(tmp_path)


def test_signed_twelve_bits(tmp_path, synthetic):
    made = synthetic.make(2)
    for number, one in enumerate(made.datasets):
        values = (one.stored.astype(np.int16) - 2048).astype(np.int16)
        one.PixelRepresentation = 1
        # Half of them with the sign carried up, half without.
        one.PixelData = (values if number % 2 else values & 0x0FFF).tobytes()
        one.RescaleIntercept = 0
    synthetic.write(made, tmp_path)
    np.testing.assert_array_equal(read_one(tmp_path).voxels[0], made.truth + 1024 - 2048)


def test_monochrome1_is_inverted_unless_values_have_a_unit(tmp_path, synthetic):
    for modality in ("CT", "MR"):
        made = synthetic.make(2)
        for one in made.datasets:
            one.Modality, one.PhotometricInterpretation = modality, "MONOCHROME1"
        synthetic.write(made, tmp_path / modality)
    kept, inverted = read_one(tmp_path / "CT").voxels[0], read_one(tmp_path / "MR").voxels[0]
    np.testing.assert_array_equal(kept, made.truth)
    np.testing.assert_array_equal(inverted + 1024, 4095 - (made.truth + 1024))


def test_far_padding_gets_the_lowest_real_value(tmp_path, synthetic):
    made = synthetic.make(2)
    for one in made.datasets:
        values = one.stored.astype(np.int16)
        values[0, :4] = -2000
        one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 15, 1
        one.add_new(0x00280120, "SS", -2000)
        one.PixelData = values.tobytes()
    synthetic.write(made, tmp_path)
    voxels = read_one(tmp_path).voxels[0]
    real = np.ones(voxels.shape, bool)
    real[:, 0, :4] = False
    np.testing.assert_array_equal(voxels[real], made.truth[real])
    assert (voxels[~real] == made.truth[real].min()).all()


def test_sheared_slices_lie_where_their_headers_say(tmp_path, synthetic):
    # A whole number of pixels a slice: then no value is interpolated and each can be looked up.
    made = synthetic.make(5, tilt_mm=0.8)
    synthetic.write(made, tmp_path)
    volume = read_one(tmp_path)
    assert volume.geometry.shape == (10, 12 + 9, 16)
    for number, one in enumerate(made.datasets):
        inside = volume.voxels[0, number, number : number + 12]
        np.testing.assert_array_equal(inside, made.truth[number])
        place = to_physical(volume.geometry, (number, number, 0))
        np.testing.assert_allclose(place, np.array(one.ImagePositionPatient, float), atol=1e-5)


def test_shear_by_part_of_a_pixel_keeps_a_ramp(tmp_path, synthetic):
    made = synthetic.make(5, tilt_mm=0.3)
    for one in made.datasets:
        start = float(one.ImagePositionPatient[1])
        height = start + 0.8 * np.arange(12)
        stored = np.rint(2000 + 10 * height)[:, None].repeat(16, axis=1).astype(np.uint16)
        synthetic.set_pixels(one, stored)
    synthetic.write(made, tmp_path)
    volume = read_one(tmp_path)
    at = np.stack(np.meshgrid(range(10), range(4, 11), range(16), indexing="ij"), axis=-1)
    expected = 2000 + 10 * to_physical(volume.geometry, at)[..., 1] - 1024
    np.testing.assert_allclose(volume.voxels[0, :, 4:11], expected, atol=1.01)


def test_uneven_steps_keep_a_ramp(tmp_path, synthetic):
    heights = [0, 2, 4.5, 6.4, 8.9, 10.8, 13.4, 15.3, 17.8, 19.8]
    made = synthetic.make(5, heights=heights)
    for one, height in zip(made.datasets, heights, strict=True):
        synthetic.set_pixels(one, np.full((12, 16), 1024 + round(10 * height), np.uint16))
    synthetic.write(made, tmp_path)
    volume = read_one(tmp_path, allow_uneven=True)
    step = volume.geometry.spacing_mm[0]
    np.testing.assert_allclose(volume.voxels[0, :, 0, 0], 10 * step * np.arange(volume.geometry.shape[0]), atol=0.51)


def test_refused_series_is_not_read(tmp_path, synthetic):
    synthetic.write(synthetic.make_broken("one slice missing", 1), tmp_path)
    with pytest.raises(DataError, match="missing slices"):
        read_one(tmp_path)


GREY = [
    "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "MR_small.dcm", "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "examples_overlay.dcm", "image_dfl.dcm", "693_J2KI.dcm",
]  # fmt: skip


@pytest.mark.parametrize("name", GREY)
def test_stored_values_are_those_of_pydicom(name, pydicom_files):
    if name in ("J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "MR_small_jp2klossless.dcm", "693_J2KI.dcm"):
        pytest.importorskip("PIL")
    planes = read_planes(str(pydicom_files / name), b"key")
    stored = stored_values(planes)
    try:
        expected = pydicom.dcmread(pydicom_files / name).pixel_array
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"pydicom has no decoder here: {error}")
    np.testing.assert_array_equal(stored[0], expected)


@pytest.mark.slow
def test_real_series_are_those_of_dcm2niix(real_data, tmp_path):
    program = shutil.which("dcm2niix", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    nibabel = pytest.importorskip("nibabel")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    for folder in (real_data / "ct_multiorgan" / "dicom", *(real_data / "dicom_mr_study").iterdir()):
        out = tmp_path / folder.name
        out.mkdir()
        subprocess.run([program, "-z", "n", "-b", "n", "-o", out, folder], check=True, capture_output=True)
        (file,) = out.glob("*.nii")
        assert_same_image(read_one(folder), nibabel.load(file))


def assert_same_image(volume, other) -> None:
    """Compare with an image of nibabel: voxels exactly, voxel vectors and first slice to 0.001 mm.

    dcm2niix takes the step between the first two slices, we the mean one. Where positions are rounded to 0.001 mm
    (6.50008 against 6.50000 mm, with 6.5 in the header) its last slice of 22 lies 0.0016 mm off that slice's own
    header and ours lies on it, so ours stays: the test on every slice's header holds it.
    """
    ours = np.diag([-1, -1, 1, 1]) @ affine(volume.geometry)[:, [2, 1, 0, 3]]
    mapping = np.linalg.inv(other.affine) @ ours
    signs = np.sign(np.diag(mapping)[:3])
    np.testing.assert_allclose(ours[:3, :3] * signs, other.affine[:3, :3], atol=1e-3)
    start = np.append(np.where(signs < 0, np.array(other.shape) - 1, 0), 1)
    np.testing.assert_allclose((other.affine @ start)[:3], ours[:3, 3], atol=1e-3)
    flips = tuple(slice(None, None, int(sign)) for sign in signs)
    np.testing.assert_array_equal(np.asanyarray(other.dataobj)[flips].transpose(2, 1, 0), volume.voxels[0])


def test_series_of_pydicom_is_that_of_dcm2niix(pydicom_files, tmp_path):
    program = shutil.which("dcm2niix", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    nibabel = pytest.importorskip("nibabel")
    if program is None:
        pytest.skip("dcm2niix is not installed")
    usable = [one.series for one in audit([pydicom_files]).judged if one.verdict.is_usable]
    for number, series in enumerate(usable):
        given, out = tmp_path / f"in{number}", tmp_path / f"out{number}"
        given.mkdir(), out.mkdir()
        for at, plane in enumerate(series.planes):
            shutil.copy(plane.header.path, given / f"{at}.dcm")
        subprocess.run([program, "-z", "n", "-b", "n", "-o", out, given], check=True, capture_output=True)
        (file,) = out.glob("*.nii")
        assert_same_image(read_series(series), nibabel.load(file))


def test_every_real_slice_lies_where_its_header_says(real_data):
    for judged in audit([real_data / "ct_multiorgan" / "dicom", real_data / "dicom_mr_study"]).judged:
        geometry = read_series(judged.series).geometry
        places = to_physical(geometry, [(number, 0, 0) for number in range(geometry.shape[0])])
        np.testing.assert_allclose(places, [plane.position for plane in judged.series.planes], atol=1e-3)


def test_what_no_slice_covers_is_known(tmp_path, synthetic):
    synthetic.write(synthetic.make(5, tilt_mm=0.8), tmp_path / "tilted")
    (judged,) = audit([tmp_path / "tilted"]).judged
    expected = np.zeros((10, 12 + 9, 16), bool)
    for number in range(10):
        expected[number, number : number + 12] = True
    np.testing.assert_array_equal(acquired(judged.series), expected)
    synthetic.write(synthetic.make(5), tmp_path / "straight")
    (judged,) = audit([tmp_path / "straight"]).judged
    assert acquired(judged.series) is None


def test_a_rescale_beyond_all_numbers_is_refused(tmp_path, synthetic):
    made = synthetic.make(5)
    for one in made.datasets:
        one.RescaleSlope = "1e300"
    synthetic.write(made, tmp_path)
    with pytest.raises(DataError, match="beyond all numbers"):
        read_one(tmp_path)
