"""Which patches are drawn, and that the same ones come from any number of workers and after a restart."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.datasets.base import Case
from pipeline.errors import DataError
from pipeline.imaging.encoding import Encoding
from pipeline.imaging.geometry import reorientation_of
from pipeline.imaging.labels import IGNORE, Labels
from pipeline.imaging.normalise import HuWindow, measure
from pipeline.imaging.placement import Placement
from pipeline.imaging.store import CaseMeta, StoredCase, open_case, write_case
from pipeline.imaging.volume import Geometry
from pipeline.learning.patches import Batch, PatchSource, patch_cases
from pipeline.learning.prefetch import InOrder
from pipeline.records import IngestedCase, SamplingPlan
from pipeline.transforms.base import Transform, transforms

LABELS = Labels.model_validate({0: "background", 1: "kidney_left", 2: "kidney_right", 3: "lesion"})
SHAPES = {"a": (30, 40, 44), "b": (24, 24, 24), "c": (12, 50, 20)}
SIZE = (16, 24, 24)
ALL = tuple(transforms.parse({"name": name, **more}) for name, more in {
    "flip": {}, "affine": {"probability": 0.7}, "noise": {"probability": 0.5}, "brightness": {"probability": 0.5},
    "contrast": {"probability": 0.5}, "gamma": {}, "blur": {"probability": 0.3}, "low_resolution": {"probability": 0.3},
}.items())  # fmt: skip


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StoredCase]:
    folder = tmp_path_factory.mktemp("cases")
    return {case_id: write(folder / case_id, case_id, shape) for case_id, shape in SHAPES.items()}


def write(folder: Path, case_id: str, shape: tuple[int, int, int]) -> StoredCase:
    random = np.random.default_rng(len(folder.name))
    voxels = random.integers(-500, 500, (1, *shape)).astype(np.int16)
    label = np.zeros(shape, np.uint8)
    label[3:9, 4:12, :6] = 1
    label[3:9, 4:12, -6:] = 2
    if case_id == "b":
        label[-1, -1, -1] = 3
    geometry = Geometry(shape=shape, spacing_mm=(2, 1, 1))
    meta = CaseMeta(
        case_id=case_id, placement=Placement(
            reorientation=reorientation_of(geometry), start=(0, 0, 0), stop=shape, working=geometry
        ), encodings=(Encoding(),), stats=(measure(voxels[0], label),),
    )  # fmt: skip
    write_case(folder, voxels, label, meta)
    return open_case(folder)


def rows(**more: Any) -> list[IngestedCase]:
    return [
        IngestedCase(case=Case(case_id=case_id, images={}, **more), entry=case_id, shape=shape)
        for case_id, shape in SHAPES.items()
    ]


def source(stored: dict[str, StoredCase], chosen: Sequence[Transform] = (), **more: Any) -> PatchSource:
    cases = patch_cases(rows(), stored, [HuWindow(range_hu=(-400, 400))], LABELS, LABELS.classes)
    plan = SamplingPlan(
        train=("a", "b", "c"), validation=(), patch_size=SIZE, foreground=more.pop("foreground", 0.5),
        class_weights=more.pop("class_weights", {1: 0.25, 2: 0.25, 3: 0.5}),
        cases_of_class={1: ("a", "b", "c"), 2: ("a", "b", "c"), 3: ("b",)},
    )  # fmt: skip
    return PatchSource(cases, plan, **{"batch_size": 2, "labels": LABELS, "transforms": chosen, "seed": 5} | more)


def equal(one: Batch, other: Batch) -> bool:
    same_image = torch.equal(one.image_BCDHW, other.image_BCDHW)
    return same_image and torch.equal(one.truth, other.truth) and one.draws == other.draws


def test_batches_are_equal_for_any_workers_and_depth_and_after_a_restart(stored: dict[str, StoredCase]) -> None:
    with InOrder(source(stored, ALL).batch, workers=0) as batches:
        expected = [batches(step) for step in range(12)]
    assert sum(drawn is not None for batch in expected for draw in batch.draws for _, drawn in draw.drawn) > 50
    for workers, depth in ((1, None), (2, None), (2, 6)):
        with InOrder(source(stored, ALL).batch, workers=workers, depth=depth) as batches:
            assert all(equal(batches(step), expected[step]) for step in range(12))
            assert equal(batches(7), expected[7])
    with InOrder(source(stored, ALL).batch, workers=2) as batches:
        assert all(equal(batches(step), expected[step]) for step in range(5, 12))


def test_cases_in_memory_give_the_same_batches(stored: dict[str, StoredCase]) -> None:
    decoded: dict[str, Any] = {case_id: case.decoded() for case_id, case in stored.items()}
    one, other = source(stored, ALL), source(decoded, ALL)
    with InOrder(one.batch, workers=0) as here, InOrder(other.batch, workers=0) as there:
        assert all(equal(here(step), there(step)) for step in range(6))


def test_order_of_the_cases_does_not_matter(stored: dict[str, StoredCase]) -> None:
    one = source(stored)
    other = PatchSource(list(one.cases.values())[::-1], one.plan, batch_size=2, labels=LABELS, seed=5)
    assert [one.draws(step) for step in range(20)] == [other.draws(step) for step in range(20)]


def test_form_of_a_batch(stored: dict[str, StoredCase]) -> None:
    batch = source(stored, batch_size=3).batch(0)
    assert batch.image_BCDHW.shape == (3, 1, *SIZE)
    assert batch.image_BCDHW.dtype == torch.float32
    assert batch.truth.shape == (3, *SIZE)
    assert batch.truth.dtype == torch.uint8
    assert batch.annotated is None
    assert len(batch.case_ids) == 3
    assert batch.image_BCDHW.min() >= -1
    assert batch.image_BCDHW.max() <= 1


def test_patch_is_that_part_of_the_volume(stored: dict[str, StoredCase]) -> None:
    here = source(stored)
    for step in range(10):
        batch = here.batch(step)
        for row, draw in enumerate(batch.draws):
            case = stored[draw.case_id].decoded()
            image = HuWindow(range_hu=(-400, 400)), case.voxels[0].clip(-400, 400) / 400
            wide = np.pad(image[1], 30, constant_values=image[1].min())
            label = np.pad(case.label, 30, constant_values=IGNORE)
            box = tuple(slice(first + 30, first + 30 + n) for first, n in zip(draw.start, SIZE))
            assert np.allclose(batch.image_BCDHW[row, 0], wide[box], atol=1e-6)
            assert np.array_equal(batch.truth[row], label[box])


def test_share_of_foreground_is_kept_in_every_batch(stored: dict[str, StoredCase]) -> None:
    for step in range(50):
        assert sum(draw.class_index is not None for draw in source(stored).draws(step)) == 1
    third = source(stored, foreground=1 / 3, batch_size=2)
    found = [draw.class_index is not None for step in range(30) for draw in third.draws(step)]
    assert sum(found) == 20
    assert all(sum(found[first : first + 3]) == 1 for first in range(0, 60, 3))
    assert not any(draw.class_index for step in range(9) for draw in source(stored, foreground=0.0).draws(step))
    assert all(draw.class_index for step in range(9) for draw in source(stored, foreground=1.0).draws(step))


def test_classes_are_drawn_by_weight_and_cases_alike(stored: dict[str, StoredCase]) -> None:
    draws = [draw for step in range(2000) for draw in source(stored).draws(step)]
    classes = Counter(draw.class_index for draw in draws)
    assert classes[None] == 2000
    assert classes[3] / 2000 == pytest.approx(0.5, abs=0.04)
    assert classes[1] / 2000 == pytest.approx(0.25, abs=0.04)
    assert {draw.case_id for draw in draws if draw.class_index == 3} == {"b"}
    anywhere = Counter(draw.case_id for draw in draws if draw.class_index is None)
    assert all(anywhere[case_id] / 2000 == pytest.approx(1 / 3, abs=0.04) for case_id in SHAPES)


def test_class_without_voxels_or_weight_is_not_drawn(stored: dict[str, StoredCase]) -> None:
    draws = [draw for step in range(100) for draw in source(stored, class_weights={1: 1.0, 2: 0.0, 9: 5.0}).draws(step)]
    assert {draw.class_index for draw in draws} == {None, 1}


def test_patches_lie_inside_and_contain_what_they_are_centred_on(stored: dict[str, StoredCase]) -> None:
    here = source(stored)
    starts: dict[str, set[int]] = {case_id: set() for case_id in SHAPES}
    for step in range(300):
        batch_truth = None
        for row, draw in enumerate(here.draws(step)):
            for first, n, extent in zip(draw.start, SIZE, SHAPES[draw.case_id]):
                assert 0 <= first <= extent - n if extent >= n else first == -((n - extent) // 2)
            if draw.class_index is None:
                starts[draw.case_id].add(draw.start[0])
            elif step < 20:
                batch_truth = here.batch(step).truth if batch_truth is None else batch_truth
                assert (batch_truth[row] == draw.class_index).any()
    assert starts["a"] == set(range(30 - 16 + 1))
    assert starts["c"] == {-2}


def test_seed_step_and_row_each_change_the_draw(stored: dict[str, StoredCase]) -> None:
    here = source(stored, ALL, foreground=0.0)
    drawn = {(draw.case_id, draw.start, draw.drawn) for step in range(200) for draw in here.draws(step)}
    assert len(drawn) > 390
    assert here.draws(3) == source(stored, ALL, foreground=0.0).draws(3)
    assert here.draws(3) != source(stored, ALL, foreground=0.0, seed=6).draws(3)


def test_options_of_one_transform_leave_the_other_draws(stored: dict[str, StoredCase]) -> None:
    other = source(stored, (transforms.parse({"name": "flip", "probability": 0.0}), *ALL[1:]))
    for one, two in zip(source(stored, ALL).draws(4), other.draws(4)):
        assert (one.start, one.drawn[1:]) == (two.start, two.drawn[1:])


def test_left_and_right_change_places_with_w(stored: dict[str, StoredCase]) -> None:
    """The left kidney lies at low W in every case; so it must in every patch."""
    here = source(stored, (transforms.parse("flip"),), class_weights={1: 1.0, 2: 1.0})
    seen = Counter[bool]()
    for step in range(40):
        batch = here.batch(step)
        for row, draw in enumerate(batch.draws):
            flips = draw.drawn[0][1] or (False, False, False)
            place = [np.nonzero((batch.truth[row] == index).numpy())[2] for index in (1, 2)]
            if len(place[0]) and len(place[1]):
                seen[flips[2]] += 1
                assert place[0].mean() < place[1].mean()
    assert min(seen[True], seen[False]) > 5


def test_draw_says_what_it_is(stored: dict[str, StoredCase]) -> None:
    text = str(source(stored, ALL, foreground=1.0).draws(2)[1])
    assert "patch 2 of batch 3: from voxel (" in text
    assert "centred on class" in text
    assert text.startswith("case ")
    assert "not augmented" in str(source(stored).draws(0)[0])


def test_annotated_classes_of_each_row(stored: dict[str, StoredCase]) -> None:
    regions = {"kidneys": ["kidney_left", "kidney_right"], "all": ["kidney_left", "lesion"]}
    labels = Labels.model_validate({1: "kidney_left", 2: "kidney_right", 3: "lesion", "regions": regions})
    given = rows(annotated=("kidney_left", "kidney_right"))
    given[0] = rows()[0]
    names = (*labels.classes, *labels.regions)
    cases = patch_cases(given, stored, [HuWindow()], labels, names)
    plan = SamplingPlan(train=("a", "b", "c"), validation=(), patch_size=SIZE, foreground=0.0)
    batch = PatchSource(cases, plan, batch_size=8, labels=labels).batch(0)
    assert batch.annotated is not None
    for case_id, row in zip(batch.case_ids, batch.annotated.tolist()):
        assert row == ([True] * 6 if case_id == "a" else [True, True, True, False, True, False])


def test_classification_takes_the_class_of_the_case(stored: dict[str, StoredCase]) -> None:
    names = ("benign", "malignant")
    cases = patch_cases(rows(classes=("malignant",)), stored, [HuWindow()], Labels(), names, whole_volume=True)
    plan = SamplingPlan(train=("a", "b", "c"), validation=(), patch_size=SIZE, foreground=0.0)
    batch = PatchSource(cases, plan, batch_size=2, labels=Labels()).batch(0)
    assert batch.truth.tolist() == [[0, 1], [0, 1]]


def test_missing_and_damaged_cases_are_named(stored: dict[str, StoredCase], tmp_path: Path) -> None:
    whole = source(stored)
    with pytest.raises(DataError, match="case a is not prepared"):
        PatchSource([whole.cases["b"]], whole.plan, batch_size=2, labels=LABELS)
    broken = write(tmp_path / "a", "a", SHAPES["a"])
    (broken.folder / "image.b2nd").write_bytes(b"nothing")
    here = source({**stored, "a": broken}, foreground=0.0)
    step = next(step for step in range(99) if here.draws(step)[0].case_id == "a")
    with pytest.raises(DataError, match=r"case a: its prepared voxels cannot be read.*Delete its folder"):
        here.batch(step)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_patches(stored: dict[str, StoredCase]) -> None:
    chosen = [one for one in ALL if one.name != "noise"]
    with InOrder(source(stored, chosen, device="cuda").batch, workers=2) as batches:
        for step in range(8):
            here, there = source(stored, chosen).batch(step), batches(step)
            assert there.image_BCDHW.device.type == "cuda"
            assert torch.allclose(here.image_BCDHW, there.image_BCDHW.cpu(), atol=5e-3)
            assert (here.truth != there.truth.cpu()).float().mean() < 1e-3
            assert equal(there, source(stored, chosen, device="cuda").batch(step))


def test_annotated_classes_change_sides_with_the_labels(stored: dict[str, StoredCase]) -> None:
    labels = Labels.model_validate(
        {**LABELS.model_dump(), "regions": {"left": ["kidney_left"], "right": ["kidney_right"]}}
    )
    for known, names in ((LABELS, LABELS.classes), (labels, tuple(labels.regions))):
        cases = patch_cases(rows(annotated=("kidney_left",)), stored, [HuWindow()], known, names)
        plan = SamplingPlan(train=tuple(SHAPES), validation=(), patch_size=SIZE, foreground=0.0)
        flip = (transforms.parse({"name": "flip", "axes": ["D", "W"]}),)
        here = PatchSource(cases, plan, batch_size=8, labels=known, transforms=flip, seed=1)
        batch, mirrored = here.batch(0), 0
        assert batch.annotated is not None
        for draw, row in zip(batch.draws, batch.annotated.tolist()):
            is_mirrored = draw.drawn[0][1] is not None and draw.drawn[0][1][2]
            mirrored += is_mirrored
            side = "right" if is_mirrored else "left"
            assert {name for name, there in zip(names, row) if there} - {"background"} == {
                side if known is labels else f"kidney_{side}"
            }
        assert 0 < mirrored < 8
