"""Figures of one case, class by class: ignored voxels, missing classes, regions, unannotated ones."""

from typing import Literal

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.imaging.labels import IGNORE, Labels
from pipeline.metrics.base import MaskPair, Metric
from pipeline.metrics.overlap import Dice
from pipeline.metrics.scoring import class_members, score_masks
from pipeline.metrics.surface import Assd, Hd95, Nsd
from pipeline.metrics.volume import Volume

SPACING = (3.0, 1.0, 1.5)
METRICS = (Dice(), Hd95(), Nsd(), Assd(), Volume())
MEMBERS = {"liver": (1,), "kidney": (2,)}


@pytest.fixture
def masks():
    """A reference with two classes and a prediction that moved them by a voxel."""
    reference = np.zeros((12, 20, 20), np.uint8)
    reference[2:8, 4:12, 4:12] = 1
    reference[6:10, 13:18, 13:18] = 2
    return np.roll(reference, 1, axis=1), reference


def by_class(rows):
    return {row["class"]: row for row in rows}


def test_equals_the_metrics_on_whole_masks(masks):
    prediction, reference = masks
    found = by_class(score_masks(prediction, reference, SPACING, members=MEMBERS, metrics=METRICS))
    for name, (index,) in MEMBERS.items():
        pair = MaskPair(prediction == index, reference == index, SPACING)
        for metric in METRICS:
            for column, value in metric.score(pair).items():
                assert found[name][column] == pytest.approx(value)
        assert found[name]["presence"] == "both"


def test_says_where_a_class_was(masks):
    _, reference = masks
    prediction = np.where(reference == 2, np.uint8(3), reference)
    members = MEMBERS | {"spleen": (3,), "vessel": (4,)}
    found = by_class(score_masks(prediction, reference, SPACING, members=members, metrics=METRICS))
    presence = {name: row["presence"] for name, row in found.items()}
    assert presence == {"liver": "both", "kidney": "missed", "spleen": "false_positive", "vessel": "absent"}
    assert [found[name]["dice"] for name in ("liver", "kidney", "spleen")] == [1.0, 0.0, 0.0]
    assert [found[name]["nsd_2mm"] for name in ("liver", "kidney", "spleen")] == [1.0, 0.0, 0.0]
    assert np.isnan(found["kidney"]["hd95_mm"])
    assert np.isnan(found["vessel"]["dice"])
    assert found["vessel"]["volume_error_ml"] == 0.0


def test_ignored_voxels_count_in_neither_mask(masks):
    prediction, reference = masks
    reference = np.where(prediction != reference, np.uint8(IGNORE), reference)
    found = by_class(score_masks(prediction, reference, SPACING, members=MEMBERS, metrics=METRICS))
    assert found["liver"]["dice"] == 1.0
    assert found["liver"]["volume_ml"] == found["liver"]["reference_ml"]


def test_unannotated_class_has_no_figures(masks):
    found = by_class(score_masks(*masks, SPACING, members=MEMBERS, metrics=METRICS, annotated=["liver"]))
    assert found["liver"]["dice"] > 0.8
    assert found["kidney"]["presence"] == "not_annotated"
    assert all(np.isnan(value) for key, value in found["kidney"].items() if key not in ("class", "presence"))


def test_regions_are_unions(masks):
    labels = Labels.model_validate(
        {0: "background", 1: "core", 2: "oedema", "regions": {"whole": ["core", "oedema"], "core": ["core"]}}
    )
    members = class_members(labels)
    assert members == {"whole": (1, 2), "core": (1,)}
    prediction, reference = masks
    found = by_class(score_masks(prediction, reference, SPACING, members=members, metrics=METRICS))
    whole = Dice().score(MaskPair(prediction > 0, reference > 0, SPACING))
    assert found["whole"]["dice"] == pytest.approx(whole["dice"])


def test_members_follow_the_order_of_classes():
    labels = Labels.model_validate({0: "background", 7: "liver", 3: "spleen", 9: "liver", 255: "ignore"})
    assert class_members(labels) == {"spleen": (1,), "liver": (2,)}


@pytest.mark.parametrize("column", ["dice", "presence"])
def test_a_column_that_is_taken_is_refused(masks, column):
    class Clash(Metric):
        name: Literal["clash"] = "clash"

        def score(self, found):
            return {column: 0.99}

    with pytest.raises(ConfigError, match=f"metric clash: it writes the column '{column}'"):
        score_masks(*masks, SPACING, members=MEMBERS, metrics=(Dice(), Clash()))
