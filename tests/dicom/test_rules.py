"""Rules: each condition, preferences, and what they leave open."""

import pytest

from pipeline.dicom.audit import audit
from pipeline.dicom.rules import matches, parse_rules, select
from pipeline.errors import ConfigError


def rules(*given):
    return parse_rules({"rules": list(given)}, "rules.yaml")


@pytest.fixture
def one(judge_one, synthetic):
    return judge_one(synthetic.make(1)).series


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"modality": "ct"}, True), ({"modality": "MR"}, False), ({"description": "venous|portal"}, True),
        ({"description": "^lung"}, False), ({"exclude": "venous"}, False), ({"body_part": "abdomen"}, True),
        ({"kernel": "^B3"}, True), ({"image_type": "axial"}, True), ({"image_type": ["MIP"]}, False),
        ({"exclude_image_type": ["PRIMARY"]}, False), ({"slice_thickness_mm": [1, 3]}, True),
        ({"slice_thickness_mm": [3, 5]}, False), ({"slices": [10, 10]}, True), ({"slices": [11, 99]}, False),
        ({"step_mm": [2.5, 2.5]}, True), ({"orientation": "axial"}, True), ({"orientation": "coronal"}, False),
        ({"contrast": False}, True), ({"contrast": True}, False), ({"protocol": "x"}, False),
    ],
)  # fmt: skip
def test_condition(condition, expected, one):
    assert matches(rules({"name": "r", **condition}).rules[0], one) is expected


@pytest.fixture
def study(tmp_path, synthetic):
    """One study: a thin series, a thick one, a second thin one, and a broken one."""
    for number, (thickness, slices) in enumerate([(1, 20), (5, 8), (1, 10)]):
        made = synthetic.make(number, slices=slices, step=thickness)
        for each in made.datasets:
            each.StudyInstanceUID, each.SliceThickness = "1.2.3", thickness
            each.SeriesInstanceUID = f"1.2.3.{number}"
        synthetic.write(made, tmp_path / str(number))
    synthetic.write(synthetic.make_broken("one slice missing", 9), tmp_path / "broken")
    return audit([tmp_path]).judged


def test_several_candidates_are_ambiguous(study):
    selection = select(study, rules({"name": "liver", "modality": "CT"}))
    assert selection.chosen == {}
    assert set(selection.ambiguous) == {"1.2.3.0", "1.2.3.1", "1.2.3.2"}
    assert "liver: 3 series" in selection.ambiguous["1.2.3.0"]


def test_thinnest_alone_leaves_two(study):
    selection = select(study, rules({"name": "liver", "prefer": "thinnest"}))
    assert set(selection.ambiguous) == {"1.2.3.0", "1.2.3.2"}
    assert selection.passed_over == {"1.2.3.1": "liver"}


def test_preferences_in_turn_choose_one(study):
    selection = select(study, rules({"name": "liver", "prefer": ["thinnest", "most slices"]}))
    assert selection.chosen == {"1.2.3.0": ("liver",)}


def test_all_takes_all_and_a_series_may_go_to_two_models(study):
    selection = select(study, rules({"name": "a", "take": "all"}, {"name": "b", "slices": [20, 20]}))
    assert selection.chosen == {"1.2.3.0": ("a", "b"), "1.2.3.1": ("a",), "1.2.3.2": ("a",)}


def test_unmatched_are_told_and_refused_take_no_part(study):
    selection = select(study, rules({"name": "mr", "modality": "MR"}))
    assert selection.unmatched == ("1.2.3.0", "1.2.3.1", "1.2.3.2")


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"rules": [{"name": "a", "description": "("}]}, "regular expression"),
        ({"rules": [{"name": "a", "modalty": "CT"}]}, "modalty"),
        ({"rules": [{"name": "a"}, {"name": "a"}]}, "two rules"),
        ({"rules": [{"name": "a", "slices": [9, 1]}]}, "lower end first"),
    ],
)
def test_wrong_rules_are_refused(tree, told):
    with pytest.raises(ConfigError, match=told):
        parse_rules(tree, "rules.yaml")


def test_picks_the_cropped_hippocampus(real_data):
    judged = audit([real_data / "dicom_mr_study"]).judged
    selection = select(judged, rules({"name": "hippocampus", "modality": "MR", "description": "hippo.?crop"}))
    assert list(selection.chosen.values()) == [("hippocampus",)]
    assert len(selection.unmatched) == 2
