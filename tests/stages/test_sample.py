"""The sampling plan: who is trained on, and how often which class is looked at."""

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.imaging.prepare import PrepareOptions, prepare
from pipeline.imaging.store import write_case
from pipeline.imaging.volume import Geometry, Volume
from pipeline.records import CaseTable, IngestedCase
from pipeline.stages.sample import Sample
from pipeline.tasks.base import tasks


@pytest.fixture
def table(made_run) -> CaseTable:
    """Three cases: liver in all, kidney in one; the last is validated."""
    context = made_run.context("sample", task=tasks.parse("segmentation"))
    geometry = Geometry(shape=(6, 8, 8), spacing_mm=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    rows = []
    for number, row in enumerate(made_run.ingest.cases[:3]):
        label = np.zeros(geometry.shape, np.uint8)
        label[:2] = 1
        if number == 0:
            label[4:, :2] = 2
        image = np.random.default_rng(number).normal(size=(1, *geometry.shape)).astype(np.float32)
        made = prepare(Volume(image, geometry), label, PrepareOptions(crop="none"), case_id=row.case.case_id)
        entry = f"{row.case.case_id}-x"
        write_case(context.machine.cache / "cases" / entry, made.voxels, made.label, made.meta)
        rows.append(IngestedCase(case=row.case, fold=int(number == 2), entry=entry, shape=geometry.shape))
    return made_run.ingest.model_copy(update={"cases": tuple(rows)})


def _plan(made_run, table: CaseTable, fold: int | None, **options: object):
    context = made_run.context("sample", task=tasks.parse("segmentation"))
    from dataclasses import replace

    return Sample(patch_size=(4, 4, 4), **options).run(replace(context, fold=fold), ingest=table)


def test_classes_get_their_share(made_run, table: CaseTable) -> None:
    ids = [row.case.case_id for row in table.cases]
    plan = _plan(made_run, table, 1)
    assert (plan.train, plan.validation) == (tuple(ids[:2]), (ids[2],))
    assert plan.cases_of_class == {1: tuple(ids[:2]), 2: (ids[0],)}
    assert plan.class_weights == {1: 0.5, 2: 0.5}
    assert _plan(made_run, table, 1, balance="present").class_weights == pytest.approx({1: 2 / 3, 2: 1 / 3})
    liver, kidney = 2 * 2 * 64, 2 * 2 * 8
    expected = {1: liver / (liver + kidney), 2: kidney / (liver + kidney)}
    assert _plan(made_run, table, 1, balance="volume").class_weights == pytest.approx(expected)


def test_no_fold_trains_on_all(made_run, table: CaseTable) -> None:
    plan = _plan(made_run, table, None)
    assert len(plan.train) == 3
    assert plan.validation == ()


def test_nothing_left_to_train_on_is_refused(made_run, table: CaseTable) -> None:
    alone = table.model_copy(update={"cases": table.cases[2:]})
    with pytest.raises(ConfigError, match="left to train on"):
        _plan(made_run, alone, 1)
