"""What is said of the list of cases: patients, splits, labels, and columns that tell the class by themselves."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pipeline.datasets.base import Case, Manifest
from pipeline.doctor.cohort import _auroc, look_at_list
from pipeline.imaging.examine import Examination, FileFacts
from pipeline.imaging.labels import Labels

RNG = np.random.default_rng(3)


def _cases(number, **fields):
    return tuple(
        Case(case_id=f"c{at}", images={"image": "x.nii"}, **{name: of(at) for name, of in fields.items()})
        for at in range(number)
    )


def _said(manifest, exams=()):
    return {one.kind: f"{one.severity}: {one.found}" for one in look_at_list(manifest, exams)}


@pytest.mark.parametrize("number", [2, 10, 101])
def test_auroc_equals_scikit_learns(number):
    is_second = np.arange(number) % 2 == 1
    values = np.round(RNG.normal(is_second, 1), 1)
    assert _auroc(values, is_second) == pytest.approx(roc_auc_score(is_second, values))


def test_auroc_of_one_class_is_none():
    assert _auroc(np.arange(3.0), np.zeros(3, bool)) is None


def test_patients_and_splits():
    cases = _cases(6, group=lambda at: f"p{at // 2}", split=lambda at: "test" if at > 3 else "")
    said = _said(Manifest(cases=cases))
    assert "6 cases of 3 patients (groups); 3 have several, up to 2" in said["groups"]
    assert said["split"] == "info: train (4 cases), test (2)."


def test_column_that_tells_the_class():
    cases = _cases(20, classes=lambda at: ("ill",) if at % 2 else ("well",))
    columns = {
        "size": {f"c{at}": str(at % 2 + at / 1000) for at in range(20)},
        "noise": {f"c{at}": str(at) for at in range(20)},
        "words": dict.fromkeys(["c0", "c1"], "large"),
    }
    manifest = Manifest(cases=cases, class_names=("well", "ill"), metadata={"columns": columns})
    found = [one.found for one in look_at_list(manifest, []) if one.kind == "telling column"]
    assert found == ["column 'size' alone tells ill from well with an AUROC of 1.00."]


def test_rare_absent_and_missing_labels():
    cases = _cases(21, label=lambda at: None if at == 20 else "l.nii")
    exams = [
        Examination(f"c{at}", {}, FileFacts("l.nii", counts={0: 9, 1: 5, **({7: 1} if at == 3 else {})}))
        for at in range(20)
    ]
    labels = Labels(values={0: "background", 1: "liver", 7: "tumour", 9: "cyst"})
    said = _said(Manifest(cases=cases, labels=labels), exams)
    assert said["class without a case"] == "warning: cyst: named in the labels, but no case has a voxel of it."
    assert said["rare class"] == "info: classes that few of 20 cases have: tumour in 1."
    assert said["case without label"].startswith("warning: 1 training case without a label")
    assert "2 label values beside 0: 1, 7; not consecutive, up to 7" in said["label values"]


def test_cases_without_a_group_among_others_with_one():
    said = _said(Manifest(cases=_cases(4, group=lambda at: f"p{at}" if at else "")))
    assert "1 case of 4 without a group" in said["some groups"]


@pytest.mark.parametrize(("zero", "is_told"), [("air", True), ("background", False)])
def test_no_background(zero, is_told):
    manifest = Manifest(cases=_cases(1, label=lambda at: "l.nii"), labels=Labels(values={0: zero, 1: "liver"}))
    said = _said(manifest, [Examination("c0", {}, FileFacts("l.nii", counts={0: 9, 1: 5}))])
    assert ("no background" in said) == is_told
    assert not is_told or "value 0 is called 'air'" in said["no background"]
