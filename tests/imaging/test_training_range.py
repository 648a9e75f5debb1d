"""Ranges over the cases of a training, from facts that are made up here."""

import pytest

from pipeline.imaging.facts import PERCENTILES, CaseFacts, ChannelFacts, ClassFacts, Intensities
from pipeline.imaging.training_range import Span, TrainingRange, modality_of, training_range
from pipeline.imaging.volume import Geometry


def facts(number: int, voxels: int, start=(1, 1, 1), stop=(3, 3, 3)) -> CaseFacts:
    grid = Geometry(shape=(4, 5, 6), spacing_mm=(number + 1.0, 1.0, 2.0))
    values = Intensities(voxels=120, minimum=0, maximum=9, mean=4, std=number, percentiles=tuple(
        percent + 10 * number for percent in PERCENTILES))  # fmt: skip
    channel = ChannelFacts(dtype="int16", sha256="", voxels_sha256="", nonzero=1, all=values)
    box = {"start": start, "stop": stop} if voxels else {}
    organ = ClassFacts(voxels=voxels, volume_ml=voxels / 100, components=min(1, voxels) * (number + 1), **box)
    return CaseFacts(
        case_id=f"c{number}", geometry=grid, canonical=grid, channels={"image": channel}, classes={"o": organ}
    )


def test_ranges_are_the_extremes():
    found = training_range([facts(0, 100), facts(1, 300, stop=(3, 5, 3)), facts(2, 0)], "CT")
    assert (found.cases, found.modality) == (3, "CT")
    assert found.spacing_mm[0] == Span(low=1, high=3)
    assert found.extent_mm[0] == Span(low=4, high=12)
    assert found.channels["image"].percentiles[1] == Span(low=50, high=70)
    organ = found.classes["o"]
    assert (organ.volume_ml, organ.components, organ.touching) == (Span(low=1, high=3), 2, 0.5)
    assert organ.present == pytest.approx(2 / 3)
    assert TrainingRange.model_validate(found.model_dump(mode="json")) == found


def test_class_that_no_case_has_is_left_out():
    assert training_range([facts(0, 0)]).classes == {}
    assert training_range([]) is None


def test_widened_span_of_negative_ends():
    assert Span(low=-100, high=50).widened(0.1) == Span(low=-110.00000000000001, high=55.00000000000001)
    assert Span(low=-100, high=-50).widened(0.1).holds(-45)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"modality": {"0": "MRI"}}, "MR"),
        ({"modality": "CT"}, "CT"),
        ({"modality": {"0": "T1w", "1": "MRI"}}, ""),
        ({}, ""),
    ],
)
def test_modality_of_a_data_set(metadata, expected):
    assert modality_of(metadata) == expected
