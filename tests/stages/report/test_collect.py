"""What the report stage gathers from a finished run, and the page that it writes."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline.datasets.folds import Folds
from pipeline.metrics.overlap import Dice
from pipeline.stages.evaluate import Evaluate
from pipeline.stages.report import MakeReport
from pipeline.stages.report.collect import Inputs, collect, rank, spread

TASK = SimpleNamespace(reads_masks=True, name="segmentation", default_metrics=lambda: (Dice(),))
PARTS = {"task": TASK, "dataset": SimpleNamespace(name="manifest"), "network": SimpleNamespace(name="unet")}
PARTS |= {"folds": Folds()}


@pytest.fixture
def evaluation(made_run):
    context = made_run.context("evaluate", task=TASK)
    stage = Evaluate(threshold_baseline=True)
    record = stage.run(context, survey=made_run.survey, ingest=made_run.ingest, predict=made_run.predict)
    return record.placed(context.folder)


def inputs(made_run, evaluation):
    return Inputs(
        made_run.survey,
        made_run.ingest,
        tuple(made_run.sample),
        tuple(made_run.train),
        tuple(made_run.predict),
        evaluation,
    )


def test_gathers_everything(made_run, evaluation):
    data = collect(made_run.context("report", **PARTS), inputs(made_run, evaluation), pictures=3)
    assert data.class_names == ("liver", "kidney")
    assert [case.case_id for case in data.cases] == [f"case_{number}" for number in range(7)]
    assert data.cases[5].volumes_ml.keys() == {"liver"}
    assert data.rows["case_id"].nunique() == 6
    assert data.test[1]["cases"] == 1
    assert data.baseline["liver"].n == 6
    assert [training.name for training in data.trainings] == ["fold 0", "fold 1"]
    assert data.trainings[0].score == "dice"
    assert [cost.stage for cost in data.costs][:3] == ["survey", "ingest", "sample-fold0"]
    assert data.dropped == {"case_9": "damaged"}
    assert data.not_run == ()
    assert data.patches is None


@pytest.mark.slow
def test_pictures_are_of_the_best_the_median_and_the_worst(made_run, evaluation):
    data = collect(made_run.context("report", **PARTS), inputs(made_run, evaluation), pictures=3)
    ranking = rank(data.rows, "dice", ["liver", "kidney"])
    assert [overlay.role for overlay in data.overlays] == ["Best", "Median", "Worst"]
    assert data.overlays[0].case_id == ranking.index[0] == "case_0"
    assert data.overlays[-1].case_id == ranking.index[-1] == "case_2"
    assert data.overlays[0].score == pytest.approx(1.0)


def test_folds_without_predictions_are_named(made_run, evaluation):
    some = Inputs(made_run.survey, made_run.ingest, (), (), (made_run.predict[0],), evaluation)
    assert collect(made_run.context("report", **PARTS), some, pictures=0).not_run == (1,)


def test_stage_writes_one_page(made_run, evaluation):
    context = made_run.context("report", **PARTS)
    record = MakeReport().run(
        context, survey=made_run.survey, ingest=made_run.ingest, sample=made_run.sample, train=made_run.train,
        predict=made_run.predict, evaluate=evaluation,
    )  # fmt: skip
    text = (context.folder / record.page).read_text(encoding="utf-8")
    assert "tiny" in text
    assert "case_9: damaged" in text
    assert text.count("data:image/png") == 3
    assert [file.name for file in context.folder.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("count", "wanted", "expected"),
    [
        (0, 3, []),
        (5, 0, []),
        (1, 3, [("Best", 0)]),
        (2, 3, [("Best", 0), ("Worst", 1)]),
        (7, 3, [("Best", 0), ("Median", 3), ("Worst", 6)]),
        (9, 4, [("Best", 0), ("Number 4 of 9", 3), ("Number 6 of 9", 5), ("Worst", 8)]),
    ],
)
def test_spread_over_a_ranking(count, wanted, expected):
    assert spread(count, wanted) == expected


def test_ranking_leaves_out_cases_without_a_figure():
    rows = pd.DataFrame(
        {"case_id": ["a", "a", "b", "c"], "class": ["x", "y", "x", "x"], "dice": [0.5, 0.1, 0.9, np.nan]}
    )
    assert rank(rows, "dice", ["x"]).to_dict() == {"b": 0.9, "a": 0.5}
