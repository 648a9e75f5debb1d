"""Each kind of damage, done to one of four healthy cases: it is found there, as severe as it is, and nowhere else."""

import gzip
import importlib.util
import struct
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipeline.doctor.findings import exit_code
from pipeline.errors import DataError
from pipeline.imaging.read import read_case


def _conftest():
    name = "tests_doctor_ward"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("conftest.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


here = _conftest()
AFFINE, save, voxels, told, text, healthy = (
    here.AFFINE, here.save, here.voxels, here.told, here.text, here.healthy,
)  # fmt: skip


def _moved(**change):
    """Return the affine with another origin, direction or spacing."""
    affine = AFFINE.copy()
    if "origin" in change:
        affine[:3, 3] += change["origin"]
    if "spacing" in change:
        affine[:3, :3] *= change["spacing"]
    if "degrees" in change:
        angle = np.radians(change["degrees"])
        turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        affine[:3, :3] = turn @ affine[:3, :3]
    return affine


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def _lie(path):
    """Let the header promise twice the slices that follow."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[46:48] = struct.pack("<h", 2 * struct.unpack("<h", content[46:48])[0])
    path.write_bytes(gzip.compress(bytes(content)))


def _no_spacing(path):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[80:84] = struct.pack("<f", 0.0)
    path.write_bytes(gzip.compress(bytes(content)))


def _with(value, *, everywhere=False):
    def change(path):
        image = voxels(1)[0].astype(np.float32)
        image[... if everywhere else (slice(2), 3, 4)] = value
        save(image, path)

    return change


def _sheared(path):
    affine = AFFINE.copy()
    affine[0, 1] = 0.3
    image = nibabel.Nifti1Image(voxels(1)[0], affine)
    image.set_sform(affine, 1)
    image.header["qform_code"] = 0
    nibabel.save(image, path)


def _forms_apart(path):
    image = nibabel.Nifti1Image(voxels(1)[0], AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(_moved(origin=[7, 0, 0]), 1)
    nibabel.save(image, path)


IMAGE_DAMAGE = {
    "missing": (Path.unlink, "error", "missing file"),
    "empty": (lambda path: path.write_bytes(b""), "error", "unreadable file"),
    "text": (lambda path: path.write_text("no volume at all"), "error", "unreadable file"),
    "truncated": (_truncate, "error", "damaged file"),
    "a byte flipped": (_flip_a_byte, "error", "damaged file"),
    "lying header": (_lie, "error", "lying header"),
    "zero spacing": (_no_spacing, "error", "impossible spacing"),
    "NaN": (_with(np.nan), "error", "NaN or infinity"),
    "all NaN": (_with(np.nan, everywhere=True), "error", "NaN or infinity"),
    "infinity": (_with(np.inf), "error", "NaN or infinity"),
    "constant": (_with(7, everywhere=True), "error", "constant image"),
    "sheared": (_sheared, "error", "sheared grid"),
    "forms apart": (_forms_apart, "warning", "sform and qform differ"),
    "8 bits": (
        lambda path: save(((voxels(1)[0] + 1100) / 10).astype(np.uint8), path), "warning", "CT without negative HU"),
    "stored values": (
        lambda path: save((voxels(1)[0] + 1100).astype(np.int16), path), "warning", "CT without negative HU"),
}  # fmt: skip


@pytest.mark.parametrize("damage", IMAGE_DAMAGE)
def test_image(ward, damage):
    change, severity, kind = IMAGE_DAMAGE[damage]
    change(ward.image())
    checkup = ward.check()
    assert told(checkup)[kind] == severity
    assert healthy(checkup)
    assert exit_code(checkup.findings) == {"error": 2, "warning": 1}[severity]


def _label(array, affine=AFFINE):
    return lambda path: save(array, path, affine)


_OWN = voxels(1)[1]
LABEL_DAMAGE = {
    "missing": (Path.unlink, "error", "missing file"),
    "truncated": (_truncate, "error", "damaged file"),
    "origin": (_label(_OWN, _moved(origin=[0, 0, 5])), "error", "label grid differs"),
    "spacing": (_label(_OWN, _moved(spacing=1.2)), "error", "label grid differs"),
    "direction": (_label(_OWN, _moved(degrees=10)), "error", "label grid differs"),
    "shape": (_label(_OWN[:, :, :-1]), "error", "label grid differs"),
    "mirrored header": (_label(_OWN, AFFINE * [[-1], [-1], [1], [1]]), "error", "mirrored label"),
    "turned": (
        _label(_OWN[::-1], AFFINE @ [[-1, 0, 0, 15], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        "error", "label stored turned"),
    "mirrored voxels": (_label(_OWN[::-1]), "warning", "mirrored label"),
    "unknown value": (_label(np.where(_OWN == 2, 7, _OWN).astype(np.uint8)), "error", "unknown label values"),
    "negative value": (_label(np.where(_OWN == 2, -3, _OWN).astype(np.int16)), "error", "unknown label values"),
    "fractions": (_label((_OWN * 0.4).astype(np.float32)), "error", "label values not whole"),
    "NaN": (_label(np.where(_OWN == 2, np.nan, _OWN).astype(np.float32)), "error", "label values not whole"),
    "empty": (_label(np.zeros_like(_OWN)), "warning", "empty label"),
    "float": (_label(_OWN.astype(np.float32)), "info", "label stored as float"),
}  # fmt: skip


@pytest.mark.parametrize("damage", LABEL_DAMAGE)
def test_label(ward, damage):
    change, severity, kind = LABEL_DAMAGE[damage]
    change(ward.label())
    checkup = ward.check()
    assert told(checkup)[kind] == severity
    assert healthy(checkup)
    assert exit_code(checkup.findings) == {"error": 2, "warning": 1, "info": 0}[severity]


def test_healthy_cases_get_no_word_of_their_own(ward):
    checkup = ward.check()
    assert {one.severity for one in checkup.findings} == {"info"}
    assert not [one for one in checkup.findings if one.case_id]


@pytest.mark.parametrize("damage", [*IMAGE_DAMAGE, *LABEL_DAMAGE])
def test_what_the_reader_refuses_is_an_error_and_the_reverse(ward, damage):
    """The doctor and the run never disagree on what can be used."""
    if damage in IMAGE_DAMAGE:
        IMAGE_DAMAGE[damage][0](ward.image())
    if damage in LABEL_DAMAGE:
        LABEL_DAMAGE[damage][0](ward.label())
    refused = False
    try:
        read_case({"image": ward.image()}, ward.label(), ward.labels, case_id="b")
    except DataError:
        refused = True
    assert ("error" in told(ward.check()).values()) == refused


def test_distances_are_told_in_mm(ward):
    save(_OWN, ward.label(), _moved(origin=[0, 0, 5]))
    assert "origin 5 mm apart along D" in text(ward.check(), "label grid differs")


def test_values_and_counts_are_told(ward):
    wrong = _OWN.copy()
    wrong[wrong == 2] = 9
    save(wrong, ward.label())
    assert f"9 ({int((_OWN == 2).sum())} voxels)" in text(ward.check(), "unknown label values")


@pytest.mark.parametrize(("factor", "unit"), [(0.001, "metres"), (1000, "micrometres")])
def test_spacing_in_another_unit(ward, factor, unit):
    affine = AFFINE.copy()
    affine[:3] *= factor
    for path, array in zip((ward.image(), ward.label()), voxels(1), strict=True):
        save(array, path, affine)
    checkup = ward.check()
    assert told(checkup)["absurd spacing"] == "warning"
    assert unit in text(checkup, "absurd spacing")
    assert healthy(checkup)


@pytest.mark.parametrize(("factor", "said"), [(0.1, "10 times smaller"), (10, "10 times larger")])
def test_spacing_that_is_plausible_but_not_beside_the_others(ward, factor, said):
    affine = AFFINE.copy()
    affine[:3] *= factor
    for path, array in zip((ward.image(), ward.label()), voxels(1), strict=True):
        save(array, path, affine)
    checkup = ward.check()
    assert told(checkup) == {"spacing in another unit": "warning"}
    assert said in text(checkup, "spacing in another unit")
    assert healthy(checkup)


def test_a_header_in_metres_is_read_right_and_noted(ward):
    affine = AFFINE.copy()
    affine[:3] *= 0.001
    for path, array in zip((ward.image(), ward.label()), voxels(1), strict=True):
        image = nibabel.Nifti1Image(array, affine)
        image.set_sform(affine, 1)
        image.set_qform(affine, 1)
        image.header.set_xyzt_units("meter")
        nibabel.save(image, path)
    checkup = ward.check()
    assert healthy(checkup, but="")
    assert told(checkup)["unit"] == "info"


def test_no_slope_where_others_have_one(ward):
    for case_id in ward.ids:
        image = nibabel.Nifti1Image(np.zeros(voxels(0)[0].shape, np.int16), AFFINE)
        image.set_data_dtype(np.int16)
        path = ward.image(case_id)
        stored = (voxels(ward.ids.index(case_id))[0] + 1024) // 2
        image = nibabel.Nifti1Image(stored.astype(np.int16), AFFINE)
        image.set_sform(AFFINE, 1)
        nibabel.save(image, path)
        if case_id != "b":
            _set_slope(path, 2.0, -1024.0)
    checkup = ward.check()
    assert told(checkup)["no slope"] == "warning"
    assert healthy(checkup)


def _set_slope(path, slope, intercept):
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[112:120] = struct.pack("<ff", slope, intercept)
    path.write_bytes(gzip.compress(bytes(content)))


def test_ct_is_known_by_its_channel_or_by_the_config(ward):
    from pipeline.doctor.checkup import Expectation

    for case_id in ward.ids:
        save((voxels(ward.ids.index(case_id))[0] + 1100).astype(np.int16), ward.image(case_id))
    assert exit_code(ward.check().findings) == 0
    checkup = ward.check(Expectation(ct_because="the config's hu_window takes it for CT"))
    assert exit_code(checkup.findings) == 1
    assert all(told(checkup, case_id) == {"CT without negative HU": "warning"} for case_id in ward.ids)
    for case_id in ward.ids:
        ward.change(case_id, images={"CT": ward.image(case_id)})
    manifest = ward.manifest().model_copy(update={"channels": ("CT",)})
    ward.manifest = lambda: manifest
    assert exit_code(ward.check().findings) == 1


def test_label_and_image_are_one_file(ward):
    ward.change("b", label=ward.image())
    assert told(ward.check())["label is the image"] == "error"


def test_classes_beyond_those_annotated(ward):
    ward.change("b", annotated=("liver",))
    ward.change("c", annotated=("liver", "spleen"))
    checkup = ward.check()
    assert told(checkup) == {"not annotated class": "warning"}
    assert healthy(checkup)


def test_a_class_that_no_case_has(ward):
    from pipeline.imaging.labels import Labels

    ward.labels = Labels(values={**ward.labels.values, 3: "kidney"})
    assert "kidney" in text(ward.check(), "class without a case")


def test_channels_on_different_grids_and_the_same_channel_twice(ward):
    other = save(voxels(1)[0], ward.folder / "b_other.nii.gz", _moved(origin=[3, 0, 0]))
    copy = ward.folder / "c_copy.nii.gz"
    copy.write_bytes(ward.image("c").read_bytes())
    ward.change("b", images={"ct": ward.image(), "pet": other})
    ward.change("c", images={"ct": ward.image("c"), "pet": copy})
    checkup = ward.check()
    assert told(checkup)["channel grids differ"] == "error"
    assert told(checkup, "c") == {"same channel twice": "warning"}


def test_labels_without_a_meaning(ward):
    from pipeline.doctor.checkup import Expectation
    from pipeline.imaging.labels import Labels

    ward.labels = Labels()
    assert exit_code(ward.check().findings) == 0
    checkup = ward.check(Expectation(needs_labels=True))
    assert "labels: {0: background" in text(checkup, "no labels")


@pytest.mark.parametrize("column", [{"split": "test"}, {"fold": 1}])
def test_a_group_that_is_torn_apart(ward, column):
    for case_id in ward.ids:
        ward.change(case_id, group=f"patient_{case_id}", fold=0 if "fold" in column else None)
    ward.change("b", group="patient_a", **column)
    found = text(ward.check(), "group torn apart")
    assert "group patient_a has cases in" in found
    assert "a, b" in found
