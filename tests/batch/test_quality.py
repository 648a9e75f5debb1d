"""Doubts about finished cases: each one told with its numbers, and none about a case like those of the training."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.batch.quality import QualityOptions, check_case, check_input, range_of
from pipeline.batch.sources import Finished, Source
from pipeline.imaging.facts import survey_case
from pipeline.imaging.labels import Labels
from pipeline.imaging.training_range import training_range
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image, write_mask

LABELS = Labels.model_validate({0: "background", 5: "ball"})
SHAPE = (16, 18, 20)


def image(seed: int, spacing=(2.0, 1.0, 1.0), shift=0.0, scale=1.0) -> Volume:
    voxels = np.random.default_rng(seed).normal(100 * scale + shift, 20 * scale, (1, *SHAPE)).astype(np.float32)
    return Volume(voxels, Geometry(shape=SHAPE, spacing_mm=spacing))


def ball(radius: float, centre=(8, 9, 10)) -> np.ndarray:
    at = np.indices(SHAPE)
    inside = sum((axis - middle) ** 2 for axis, middle in zip(at, centre, strict=True)) <= radius**2
    return np.where(inside, 5, 0).astype(np.uint8)


BALL = ball(4)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What ten made cases show, and how it is kept in a recipe."""
    folder, facts = tmp_path_factory.mktemp("training"), []
    for number in range(10):
        volume = image(number)
        write_image(volume, folder / "image.nii.gz")
        write_mask(ball(3 + number / 5), volume.geometry, folder / "label.nii.gz")
        facts.append(survey_case({"image": folder / "image.nii.gz"}, folder / "label.nii.gz", LABELS, f"c{number}"))
    return training_range(facts, "MR").model_dump(mode="json")


def check(seen, volume=None, mask=BALL, **more) -> tuple[str, ...]:
    volume = volume or image(77)
    volumes = {} if mask is None else {"ball": float((mask == 5).sum()) * volume.geometry.voxel_ml}
    prediction = SimpleNamespace(
        **({"mask": mask, "volumes_ml": volumes, "probabilities": {}, "confidence": {}} | more)
    )
    recipe = SimpleNamespace(labels=LABELS, channels=("image",), seen=seen)
    return check_case(Finished(Source("case", {}), volume, prediction, recipe, None)).review


def test_summary_goes_through_a_recipe(seen):
    found = range_of(seen)
    assert (found.cases, found.modality) == (10, "MR")
    assert (found.spacing_mm[0].low, found.spacing_mm[0].high) == (2, 2)
    assert (found.extent_mm[0].low, found.classes["ball"].present, found.classes["ball"].touching) == (32, 1.0, 0.0)
    assert found.classes["ball"].components == 1
    assert range_of({}) is None
    assert range_of({"something": "else"}) is None
    assert training_range([]) is None


def test_case_like_the_training_raises_no_doubt(seen):
    assert check(seen) == ()


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        (image(1, spacing=(6.0, 1, 1)), "voxel size along slices: 6 mm; trained on 2 to 2"),
        (image(1, spacing=(2.0, 3, 3)), "field of view along rows: 54 mm; trained on 18 to 18"),
        (image(1, shift=900), "intensities: percentile 5 is "),
        (image(1, scale=9), "intensities: percentile 5 is "),
    ],
)
def test_strange_input_is_told(volume, told, seen):
    assert any(reason.startswith(told) for reason in check(seen, volume))


def test_strange_modality_is_told(seen):
    found = list(check_input(image(1), ["image"], range_of(seen), QualityOptions(), {"CT"}))
    assert found == ["modality CT; trained on MR"]


def test_strange_orientation_is_no_doubt(seen):
    volume = image(3)
    turned = Volume(
        volume.voxels.transpose(0, 3, 1, 2),
        Geometry(shape=(20, 16, 18), spacing_mm=(1, 2, 1), direction=(0, 0, 1, 1, 0, 0, 0, 1, 0)),
    )
    assert list(check_input(turned, ["image"], range_of(seen), QualityOptions())) == []


def test_strange_volumes_are_told(seen):
    assert any("ball: " in one and "ml; trained on" in one for one in check(seen, mask=ball(7)))
    assert check(seen, mask=np.zeros(SHAPE, np.uint8)) == ("nothing was found in it",)


def test_border_is_named_by_the_side_of_the_patient(seen):
    found = check(seen, mask=ball(4, centre=(8, 9, 0)))
    assert any(one.startswith("ball reaches the right border") for one in found)
    found = check(seen, mask=ball(4, centre=(15, 9, 10)))
    assert any(one.startswith("ball reaches the superior border") for one in found)


def test_many_pieces_are_told(seen):
    mask = ball(4)
    mask[1:15:2, 1:17:3, 1] = 5
    assert any("pieces; at most 1 in training" in one for one in check(seen, mask=mask))


def test_low_confidence_is_told(seen):
    assert any("low confidence in ball: mean probability 0.40" in one for one in check(seen, confidence={"ball": 0.4}))
    found = check(seen, mask=None, probabilities={"a": 0.4, "b": 0.35, "c": 0.25})
    assert found == ("low confidence in a: mean probability 0.40; expected 0.6 or more",)


def test_without_a_summary_only_the_case_itself_counts():
    assert check({}) == ()
    assert any("border" in one for one in check({}, mask=ball(4, centre=(0, 9, 10))))


def test_a_case_may_lack_an_optional_channel(seen):
    recipe = SimpleNamespace(labels=LABELS, channels=("image", "other"), seen=seen)
    prediction = SimpleNamespace(mask=BALL, volumes_ml={"ball": 1.0}, probabilities={}, confidence={})
    for volume, told in ((image(77), 0), (image(77, shift=500), 1)):
        finished = Finished(Source("case", {"image": ()}), volume, prediction, recipe, None)
        assert (
            sum("intensities of image" in one or "intensities:" in one for one in check_case(finished).review) == told
        )


def test_regions_are_compared_by_the_classes_they_are_made_of(seen):
    labels = Labels.model_validate({0: "background", 5: "ball", 6: "rim", "regions": {"whole": ["ball", "rim"]}})
    recipe = SimpleNamespace(labels=labels, channels=("image",), seen=seen)

    def doubts(mask):
        volumes = {"whole": float((mask > 0).sum()) * 0.002}
        prediction = SimpleNamespace(mask=mask, volumes_ml=volumes, probabilities={}, confidence={})
        return check_case(Finished(Source("case", {"image": ()}), image(77), prediction, recipe, None)).review

    assert doubts(BALL) == ()
    assert any(one.startswith("no ball; ") for one in doubts(np.where(BALL == 5, 6, 0).astype(np.uint8)))
