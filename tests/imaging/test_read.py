"""Every format gives the same volume, and every unusable file one sentence that names the case."""

import gzip
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.errors import DataError
from pipeline.imaging import geometry as geo
from pipeline.imaging.labels import IGNORE, Labels
from pipeline.imaging.read import read_case, read_case_images, read_image, read_label

LABELS = Labels(values={0: "background", 3: "liver", 7: "spleen", 9: "ignore"})
VOXELS = np.random.default_rng(8).integers(-1000, 1000, (8, 9, 10)).astype(np.int16)


def _save(path, voxels=VOXELS, *, shift=(0.0, 0.0, 0.0), compress=True, vector=False):
    image = sitk.GetImageFromArray(voxels, isVector=vector)
    image.SetSpacing((0.8, 0.9, 2.5))
    image.SetOrigin((np.array([10.0, -20.0, 30.0]) + shift).tolist())
    image.SetDirection(sitk.Euler3DTransform((0, 0, 0), 0.1, 0.2, 0.3).GetMatrix())
    sitk.WriteImage(image, str(path), compress)
    return path


def _label(path, voxels=None, **options):
    if voxels is None:
        voxels = np.random.default_rng(9).choice(np.array([0, 3, 7, 9], np.uint8), VOXELS.shape)
    return _save(path, voxels, **options)


def _message(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, case_id="c1", **options)
    text = str(caught.value)
    assert text.startswith("case c1: ")
    return text


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
@pytest.mark.parametrize("compress", [True, False])
def test_every_format_gives_the_same_volume(tmp_path, name, compress):
    volume = read_image(_save(tmp_path / name, compress=compress), case_id="c1")
    np.testing.assert_array_equal(volume.voxels, VOXELS[None])
    assert volume.dtype == np.int16
    expected = geo.geometry_of(sitk.ReadImage(str(_save(tmp_path / "reference.mha"))))
    assert geo.difference(volume.geometry, expected, tolerance_mm=1e-4) == []


def test_one_dicom_series_in_a_folder(real_data, tmp_path):
    # One study holds one folder a series.
    series = next(path for path in sorted((real_data / "dicom_mr_study").rglob("*")) if "Crop" in path.name)
    folder = series if series.is_dir() else series.parent
    volume = read_image(folder, case_id="c1")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    image = sitk.ReadImage(list(files))
    np.testing.assert_array_equal(volume.voxels[0], sitk.GetArrayFromImage(image))
    assert volume.geometry == geo.geometry_of(image)


def test_a_folder_with_none_or_several_series_is_refused(real_data, tmp_path):
    assert "0 DICOM series; expected 1" in _message(read_image, tmp_path)
    folders = sorted({path.parent for path in (real_data / "dicom_mr_study").rglob("*.dcm")})
    for folder in folders[:2]:
        shutil.copy(sorted(folder.glob("*.dcm"))[0], tmp_path / f"{folder.name}.dcm")
    assert "2 DICOM series; expected 1" in _message(read_image, tmp_path)


def test_a_dicom_series_in_jpeg2000_without_file_endings(real_data):
    volume = read_image(real_data / "ct_multiorgan" / "dicom", case_id="c1")
    assert volume.voxels.shape[:2] == (1, 20)
    assert volume.geometry.spacing_mm[0] == pytest.approx(2.0)


def test_a_missing_file_is_named(tmp_path):
    assert f"there is no file {tmp_path / 'absent.nii.gz'}" in _message(read_image, tmp_path / "absent.nii.gz")


@pytest.mark.parametrize("name", ["a.npy", "a.dcm", "a"])
def test_unknown_endings_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    assert "is not known; expected .nii" in _message(read_image, tmp_path / name)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_garbage_is_refused_in_silence(tmp_path, name, content, capfd):
    (tmp_path / name).write_bytes(content)
    _message(read_image, tmp_path / name)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd"])
@pytest.mark.parametrize("compress", [True, False])
def test_truncated_files_are_refused_in_silence(tmp_path, name, compress, capfd):
    path = _save(tmp_path / name, compress=compress)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    text = _message(read_image, path)
    assert "cut short" in text or "cannot hold" in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd"])
def test_damaged_files_are_refused_in_silence(tmp_path, name, capfd):
    path = _save(tmp_path / name)
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 0x55
    path.write_bytes(content)
    text = _message(read_image, path)
    assert "damaged" in text or "cut short" in text or "lies" in text
    assert capfd.readouterr() == ("", "")


def test_voxels_are_those_of_the_named_file_not_of_its_twin(tmp_path):
    packed = _save(tmp_path / "x.nii.gz")
    _save(tmp_path / "x.nii", VOXELS + 1)
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(packed))) == VOXELS + 1).all()  # the trap
    np.testing.assert_array_equal(read_image(packed, case_id="c1").voxels[0], VOXELS)


def test_nan_and_infinite_voxels_are_counted(tmp_path):
    voxels = VOXELS.astype(np.float32)
    voxels[0, 0, :3] = np.nan
    voxels[1, 1, 1] = -np.inf
    for name in ("a.nii.gz", "a.mha"):
        assert "3 NaN voxels and 1 infinite voxel" in _message(read_image, _save(tmp_path / name, voxels))


def test_constant_images_are_refused(tmp_path):
    assert "every voxel is 5" in _message(read_image, _save(tmp_path / "a.nii.gz", np.full_like(VOXELS, 5)))


def test_two_axes_are_refused(tmp_path):
    for name in ("a.mha", "a.nii.gz"):
        sitk.WriteImage(sitk.GetImageFromArray(VOXELS[0]), str(tmp_path / name))
        assert "2 axes" in _message(read_image, tmp_path / name)


def test_complex_voxels_are_refused(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS.astype(np.complex64)), str(tmp_path / "a.nii.gz"))
    assert "voxels are complex; expected one real number" in _message(read_image, tmp_path / "a.nii.gz")


def test_a_slanted_grid_is_refused(tmp_path):
    path = _save(tmp_path / "a.nhdr", compress=False)
    lines = path.read_text().splitlines()
    lines = ["space directions: (1,0,0) (0.1,1,0) (0,0,1)" if "space directions" in line else line for line in lines]
    path.write_text("\n".join(lines) + "\n")
    assert "degrees off a right angle" in _message(read_image, path)


def test_channels_of_one_file_and_of_several(tmp_path):
    other = (VOXELS * 0.5).astype(np.float32)
    files = {"t1": _save(tmp_path / "t1.nii.gz"), "t2": _save(tmp_path / "t2.mha", other)}
    volume = read_case_images(files, case_id="c1")
    np.testing.assert_array_equal(volume.voxels, np.stack([VOXELS, other]))

    both = tmp_path / "both.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.stack([VOXELS, VOXELS + 1]).T, np.diag([1, 2, 3, 1])), both)
    vector = _save(tmp_path / "v.mha", np.stack([VOXELS, VOXELS + 1], -1), vector=True)
    for path in (both, vector):
        np.testing.assert_array_equal(read_image(path, case_id="c1", channels=2).voxels, [VOXELS, VOXELS + 1])
        volume = read_case_images({"a": path, "b": path}, case_id="c1")
        np.testing.assert_array_equal(volume.voxels, [VOXELS, VOXELS + 1])
        assert "expected 1" in _message(read_image, path)


def test_channels_on_different_grids_are_refused(tmp_path):
    files = {"t1": _save(tmp_path / "t1.nii.gz"), "t2": _save(tmp_path / "t2.nii.gz", shift=(0, 0, 5.0))}
    text = _message(read_case_images, files)
    assert "grids of channels t1 and t2 differ: origin" in text
    assert "mm apart along D" in text


@pytest.mark.parametrize("kind", ["u1", "i2", "i4", "f4", "f8"])
def test_labels_become_class_indices(tmp_path, kind):
    path = _label(tmp_path / "a.nii.gz")
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    path = _label(tmp_path / "b.nii.gz", values.astype(kind))
    label = read_label(path, LABELS, case_id="c1")
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label.voxels[0], LABELS.to_index(values))
    assert set(np.unique(label.voxels)) == {0, 1, 2, IGNORE}


def test_a_label_without_foreground_is_fine(tmp_path):
    label = read_label(_label(tmp_path / "a.nii.gz", np.zeros(VOXELS.shape, np.uint8)), LABELS, case_id="c1")
    assert not label.voxels.any()


def test_rounding_of_a_stored_slope_is_forgiven(tmp_path):
    values = np.full(VOXELS.shape, 2.99999, np.float32)
    assert (read_label(_label(tmp_path / "a.nii.gz", values), LABELS, case_id="c1").voxels == 1).all()


def test_label_values_that_are_not_whole_are_named(tmp_path):
    values = np.zeros(VOXELS.shape, np.float32)
    values[0, 0, :2], values[1, 0, 0], values[2, 0, 0] = 0.5, 2.25, np.nan
    text = _message(read_label, _label(tmp_path / "a.nii.gz", values), LABELS)
    assert "not whole numbers: 0.5 (2 voxels)" in text
    assert "2.25 (1 voxel)" in text
    assert "nan (1 voxel)" in text


def test_unknown_label_values_are_named_with_their_counts(tmp_path):
    values = np.zeros(VOXELS.shape, np.int32)
    values[0, 0, :4], values[1, 1, 1] = 5, -2
    text = _message(read_label, _label(tmp_path / "a.nii.gz", values), LABELS)
    assert "2 unknown values: 5 (4 voxels), -2 (1 voxel); expected 0, 3, 7, 9" in text
    values[0, 0, 0] = 2_000_000_000
    assert "3 unknown values" in _message(read_label, _label(tmp_path / "a.nii.gz", values), LABELS)


def test_a_label_on_another_grid_is_refused_with_what_differs(tmp_path):
    image = read_image(_save(tmp_path / "a.nii.gz"), case_id="c1")
    near = _label(tmp_path / "near.nii.gz", shift=(0.03, 0, 0))
    assert read_label(near, LABELS, case_id="c1", like=image.geometry).geometry != image.geometry
    turn = np.reshape(sitk.Euler3DTransform((0, 0, 0), 0.1, 0.2, 0.3).GetMatrix(), (3, 3))
    far = _label(tmp_path / "far.nii.gz", shift=12.5 * turn[:, 2])
    text = _message(read_label, far, LABELS, like=image.geometry)
    assert "image and label grids differ: origin 12.5 mm apart along D; expected one grid" in text


def test_all_problems_of_a_case_come_at_once(tmp_path):
    values = np.full(VOXELS.shape, 5, np.uint8)
    images = {"t1": _save(tmp_path / "t1.nii.gz"), "t2": tmp_path / "absent.nii.gz",
              "t3": _save(tmp_path / "t3.nii.gz", np.zeros_like(VOXELS))}  # fmt: skip
    label = _label(tmp_path / "label.nii.gz", values, shift=(0, 9.0, 0))
    text = _message(read_case, images, label, LABELS)
    for part in ("channel t2: there is no file", "channel t3: every voxel is 0", "label grids differ", "unknown value"):
        assert part in text


def test_every_real_case_reads(real_data):
    folder = real_data / "Task04_Hippocampus"
    labels = Labels(values={0: "background", 1: "anterior", 2: "posterior"})
    for path in sorted((folder / "imagesTr").glob("*.nii.gz"))[::6]:
        volumes, label = read_case({"MR": path}, folder / "labelsTr" / path.name, labels, case_id="c1")
        assert label is not None
        assert volumes["MR"].geometry.shape == label.geometry.shape


def test_errors_carry_no_path_of_an_existing_file(tmp_path):
    # Folders of a hospital's export are named after patients.
    folder = tmp_path / "DOE^JANE"
    folder.mkdir()
    path = _save(folder / "a.nii.gz")
    path.write_bytes(gzip.compress(b"x" * 1000))
    assert "JANE" not in _message(read_image, path)
    assert "JANE" not in _message(read_image, folder)
    (folder / "a.mha").write_text("ObjectType = Image\nNDims = 3\nElementDataFile = LOCAL\n")
    assert "JANE" not in _message(read_image, Path(folder / "a.mha"))
