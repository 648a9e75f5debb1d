"""The same content under two ids is found however it was saved, and what it means depends on groups and splits."""

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.doctor.repair import plan_repairs


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


def _copy(ward, case_id):
    shutil.copyfile(ward.image("a"), ward.image(case_id))


def _saved_again(ward, case_id):
    elsewhere = AFFINE.copy()
    elsewhere[:3, 3] += 9
    save(voxels(0)[0].astype(np.float32), ward.image(case_id), elsewhere)


def _turned(ward, case_id):
    save(np.ascontiguousarray(voxels(0)[0][::-1].transpose(1, 0, 2)), ward.image(case_id))


@pytest.mark.parametrize(
    ("how", "words"), [(_copy, "byte for byte"), (_saved_again, "same voxels as"), (_turned, "turned or mirrored")]
)
def test_one_patient_in_two_groups(ward, how, words):
    how(ward, "c")
    ward.ids = ("a", "c", "d")
    ward.change("a", group="patient_1", label=None)
    ward.change("c", group="patient_2", label=None)
    ward.change("d", group="patient_3", label=None)
    checkup = ward.check()
    assert told(checkup, "c")["one patient in two groups"] == "error"
    assert words in text(checkup, "one patient in two groups")
    assert "patient_2 against patient_1" in text(checkup, "one patient in two groups")
    assert told(checkup, "a") == {}
    assert told(checkup, "d") == {}


def test_three_times_the_same(ward):
    _copy(ward, "b")
    _saved_again(ward, "c")
    for case_id in ward.ids:
        ward.change(case_id, label=None)
    checkup = ward.check()
    assert told(checkup, "a") == {}
    assert told(checkup, "b") == {"duplicate": "warning"}
    assert told(checkup, "c") == {"duplicate": "warning"}


@pytest.mark.parametrize(
    ("of_a", "of_b", "severity", "kind"),
    [
        ({}, {}, "warning", "duplicate"),
        ({"group": "p"}, {"group": "p"}, "warning", "duplicate"),
        ({"group": "p"}, {"group": "q"}, "error", "one patient in two groups"),
        ({"split": "test"}, {}, "error", "duplicate in test and train"),
        ({"split": "test"}, {"split": "test"}, "warning", "duplicate"),
        ({"classes": ("well",)}, {"classes": ("ill",)}, "error", "duplicate of another class"),
    ],
)
def test_what_a_duplicate_means(ward, of_a, of_b, severity, kind):
    _copy(ward, "b")
    shutil.copyfile(ward.label("a"), ward.label("b"))
    ward.change("a", **of_a)
    ward.change("b", **of_b)
    assert told(ward.check())[kind] == severity


def test_one_file_under_two_ids(ward):
    ward.change("b", images={"image": ward.image("a")}, label=ward.label("a"))
    checkup = ward.check()
    assert "is the file of a" in text(checkup, "duplicate")
    assert healthy(checkup)


def test_one_label_for_two_images(ward):
    shutil.copyfile(ward.label("a"), ward.label("b"))
    checkup = ward.check()
    assert told(checkup)["same label"] == "warning"
    assert healthy(checkup)


def test_other_voxels_with_equal_extremes_and_sum_are_no_duplicate(ward):
    image = voxels(0)[0].copy()
    image[0, 0, 0], image[1, 0, 0] = image[1, 0, 0] + 1, image[0, 0, 0] - 1
    save(image, ward.image("b"))
    ward.change("b", label=None)
    assert told(ward.check()) == {}


def test_a_shared_second_channel_is_named(ward):
    for seed, case_id in enumerate(ward.ids):
        second = save(voxels(seed)[0][::-1] + np.int16(7), ward.folder / f"{case_id}_second.nii.gz")
        ward.change(case_id, images={"first": ward.image(case_id), "second": second}, label=None, group=case_id)
    shutil.copyfile(ward.folder / "a_second.nii.gz", ward.folder / "c_second.nii.gz")
    checkup = ward.check()
    assert told(checkup, "c")["one patient in two groups"] == "error"
    assert "its channel second is a copy, byte for byte" in text(checkup, "one patient in two groups")
    assert not any(one.action == "drop case" for one in plan_repairs(checkup)), "its other channel is its own"
