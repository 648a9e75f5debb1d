"""Batches of whole volumes: against single patches, repeatable, balanced, and fast."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.errors import DataError
from pipeline.imaging.labels import Labels
from pipeline.learning.patches import PatchSource
from pipeline.learning.volumes import VolumeSource, as_tensor, source_of
from pipeline.transforms.base import transforms
from tests.learning.blocks import SIDE, block_cases, patch_cases_of, plan_of


@pytest.fixture
def cases(tmp_path):
    return patch_cases_of(block_cases(tmp_path))


def source(cases, size=8, augment=(), seed=1, **plan):
    chosen = [transforms.parse(one) for one in augment]
    return VolumeSource(cases, plan_of(cases, **plan), batch_size=size, labels=Labels(), transforms=chosen, seed=seed)


def test_a_batch_holds_the_volumes_that_it_names(cases):
    batch = source(cases).batch(3)
    by_id = {case.case_id: case for case in cases}
    assert batch.image_BCDHW.shape == (8, 1, SIDE, SIDE, SIDE)
    for image, truth, case_id in zip(batch.image_BCDHW, batch.truth, batch.case_ids, strict=True):
        assert torch.equal(image, as_tensor(by_id[case_id]))
        assert torch.equal(truth, torch.from_numpy(by_id[case_id].classes))


def test_a_batch_is_a_function_of_seed_and_step(cases):
    augment = ["flip", {"name": "affine", "probability": 1.0}, "noise"]
    one, other = source(cases, augment=augment), source(cases, augment=augment)
    later = other.batch(4)
    assert torch.equal(one.batch(7).image_BCDHW, other.batch(7).image_BCDHW)
    assert torch.equal(one.batch(4).image_BCDHW, later.image_BCDHW)
    assert not torch.equal(one.batch(4).image_BCDHW, one.batch(5).image_BCDHW)
    assert source(cases, seed=2).batch(4).case_ids != later.case_ids


def test_all_volumes_come_equally_often(cases):
    drawn = [case_id for step in range(300) for case_id in source(cases).batch(step).case_ids]
    counts = np.unique(drawn, return_counts=True)[1]
    assert len(counts) == 12
    assert abs(counts / counts.mean() - 1).max() < 0.3


def test_classes_come_by_their_weights(cases):
    found = source(cases, foreground=1.0, weights={0: 0.7, 1: 0.3}, size=2000).batch(0)
    share = found.truth.mean(0)
    assert share[0] == pytest.approx(0.7, abs=0.04)
    assert share[2] == 0


def test_turning_is_that_of_scipy(cases):
    made = source(cases, augment=[{"name": "affine", "probability": 1.0, "rotation_degrees": [20, 30, 10]}])
    from pipeline.learning.turns import turns_of

    batch = made.batch(0)
    by_id = {case.case_id: case for case in cases}
    matrices = turns_of(made.transforms, [[change for _, change in draw.drawn] for draw in batch.draws])
    half = (np.array([SIDE] * 3) - 1) / 2
    for image, case_id, matrix in zip(batch.image_BCDHW, batch.case_ids, matrices, strict=True):
        whole = as_tensor(by_id[case_id])[0].numpy()
        background = by_id[case_id].windows[0].background
        expected = ndimage.affine_transform(
            whole, matrix, half - matrix @ half, order=1, mode="grid-constant", cval=background
        )
        assert np.allclose(image[0].numpy(), expected, atol=1e-4)


def test_whole_small_volumes_choose_it_and_patches_do_not(cases):
    common = {"batch_size": 2, "labels": Labels(), "transforms": (), "seed": 0, "device": torch.device("cpu")}
    plan = plan_of(cases)
    assert isinstance(source_of(cases, plan, **common), VolumeSource)
    smaller = plan.model_copy(update={"patch_size": (4, 4, 4)})
    patches = source_of(cases, smaller, **common)
    assert isinstance(patches, PatchSource)
    assert patches.batch(0).image_BCDHW.shape == (2, 1, 4, 4, 4)
    assert patches.batch(0).truth.shape == (2, 3)


def test_patches_balance_classes_too(cases):
    plan = plan_of(cases, foreground=1.0, weights={2: 1.0}).model_copy(update={"patch_size": (4, 4, 4)})
    batch = PatchSource(cases, plan, batch_size=16, labels=Labels()).batch(0)
    assert batch.truth[:, 2].all()
    assert {draw.class_index for draw in batch.draws} == {2}


def test_no_case_is_refused(cases):
    with pytest.raises(DataError, match="no case"):
        VolumeSource([], plan_of(cases), batch_size=1, labels=Labels())
