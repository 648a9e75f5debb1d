"""The evaluate stage on masks in files, and masks that were made elsewhere."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.imaging.volume import Geometry
from pipeline.imaging.write import write_mask
from pipeline.machine import Machine
from pipeline.metrics.overlap import Dice
from pipeline.metrics.surface import Nsd
from pipeline.progress import Progress
from pipeline.stages.evaluate import Evaluate, evaluate_folder

TASK = SimpleNamespace(reads_masks=True, default_metrics=lambda: (Dice(), Nsd()))


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.fixture
def evaluate(made_run):
    """Run the stage with some options; return the evaluation, its rows and its summary."""

    def run(**options):
        context = made_run.context("evaluate", task=TASK)
        stage = Evaluate(**options)
        evaluation = stage.run(context, survey=made_run.survey, ingest=made_run.ingest, predict=made_run.predict)
        rows = pd.read_csv(context.folder / evaluation.per_case)
        return evaluation, rows, json.loads((context.folder / evaluation.summary).read_text())

    return run


def test_rows_are_the_figures_of_the_masks(evaluate, made_run):
    _, rows, _ = evaluate()
    assert len(rows) == 7 * 2
    columns = ["case_id", "group", "site", "set", "fold", "class", "presence", "dice", "nsd_2mm"]
    assert list(rows.columns)[:9] == columns
    table = rows.set_index(["case_id", "class"])
    for number in (0, 1, 3, 6):
        for name, value in (("liver", 3), ("kidney", 7)):
            expected = dice(made_run.prediction(number) == value, made_run.label(number) == value)
            assert table.loc[(f"case_{number}", name), "dice"] == pytest.approx(expected, abs=1e-5)
    voxels = (made_run.label(0) == 3).sum()
    assert table.loc[("case_0", "liver"), "reference_ml"] == pytest.approx(voxels * 3 * 1.5 * 1.5 / 1000, abs=1e-4)


def test_missed_absent_and_unlabelled_classes(evaluate):
    _, rows, summary = evaluate()
    kidney = rows[rows["class"] == "kidney"].set_index("case_id")["presence"]
    assert kidney["case_2"] == "missed"
    assert kidney["case_4"] == "absent"
    assert kidney["case_5"] == "not_annotated"
    assert summary["out_of_fold"]["classes"]["kidney"]["metrics"]["dice"]["n"] == 4


def test_test_cases_are_summed_up_by_themselves(evaluate):
    evaluation, rows, summary = evaluate()
    assert summary["out_of_fold"]["cases"] == 6
    assert summary["out_of_fold"]["groups"] == 4
    assert summary["test"]["cases"] == 1
    assert rows[rows["set"] == "test"]["fold"].isna().all()
    assert evaluation.headline["mean Dice"] == pytest.approx(
        summary["out_of_fold"]["classes_mean"]["dice"]["mean"], abs=1e-4
    )
    assert "test, mean NSD at 2 mm" in evaluation.headline
    assert not any("volume" in name for name in evaluation.headline)


def test_headline_chooses_what_the_mean_is_over(evaluate):
    _, rows, summary = evaluate(headline=["liver"])
    own = rows[(rows["class"] == "liver") & (rows["set"] == "out_of_fold")]
    assert summary["out_of_fold"]["classes_mean"]["dice"]["mean"] == pytest.approx(own["dice"].mean(), abs=1e-5)


def test_headline_of_an_unknown_class_is_refused(evaluate):
    with pytest.raises(ConfigError, match=r"no class called lever; expected some of liver, kidney"):
        evaluate(headline=["lever"])


def test_metrics_by_name(evaluate):
    _, rows, _ = evaluate(metrics=[{"name": "nsd", "tolerance_mm": 1.0}, "assd"])
    assert {"nsd_1mm", "assd_mm", "volume_ml"} <= set(rows.columns)
    assert "dice" not in rows.columns


def test_threshold_baseline(evaluate):
    _, _, summary = evaluate(threshold_baseline=True)
    liver = summary["threshold_baseline"]["liver"]
    assert liver["n"] == 6  # without the case that has only some classes labelled
    assert 0 < liver["mean"] < 1
    assert liver["low"] < 120 < liver["high"]


def test_failed_predictions_and_missing_labels_are_in_no_figure(made_run):
    first = made_run.predict[0]
    broken = first.predictions[0].model_copy(update={"failure": "memory ran out", "mask": ""})
    table = first.model_copy(update={"predictions": (broken, *first.predictions[1:])}).placed(first.path(""))
    context = made_run.context("evaluate", task=TASK)
    Evaluate().run(context, survey=made_run.survey, ingest=made_run.ingest, predict=[table])
    assert pd.read_csv(context.folder / "per_case.csv")["case_id"].nunique() == len(first.predictions) - 1


def test_nothing_to_compare_is_said(made_run):
    with pytest.raises(ConfigError, match="no prediction has a reference"):
        Evaluate().run(
            made_run.context("evaluate", task=TASK), survey=made_run.survey, ingest=made_run.ingest, predict=[]
        )


@pytest.fixture
def given(made_run, tmp_path):
    """Masks of a rater, named after the cases."""
    folder = tmp_path / "rater"
    folder.mkdir()
    for table in made_run.predict:
        for row in table.predictions:
            shutil.copyfile(table.path(row.mask), folder / f"{row.case_id}.nii.gz")
    return folder


def score(folder, made_run, output):
    return evaluate_folder(
        folder, made_run.survey.manifest, output, [Dice()], machine=Machine(workers=1), progress=Progress()
    )


def test_masks_made_elsewhere(given, made_run, tmp_path, evaluate):
    (given / "case_3.nii.gz").unlink()
    evaluation, without = score(given, made_run, tmp_path / "out")
    assert without == ("case_3",)
    rows = pd.read_csv(evaluation.path("per_case.csv")).set_index(["case_id", "class"])["dice"]
    _, own, _ = evaluate()
    own = own.set_index(["case_id", "class"])["dice"]
    assert rows["case_0", "liver"] == own["case_0", "liver"]
    assert len(rows) == len(own) - 2
    assert json.loads(evaluation.path("summary.json").read_text())["given"]["cases"] == 6


def test_no_mask_of_any_case(made_run, tmp_path):
    with pytest.raises(DataError, match=r"expected files such as case_0\.nii\.gz"):
        score(tmp_path, made_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_bad_mask_is_named(given, made_run, tmp_path):
    moved = Geometry(shape=(12, 20, 24), spacing_mm=(3.0, 1.5, 1.5), origin=(5.0, -7.0, 23.5))
    write_mask(np.zeros(moved.shape, np.uint8), moved, given / "case_1.nii.gz")
    (given / "case_2.nii.gz").write_bytes(b"no mask at all")
    with pytest.raises(DataError) as caught:
        score(given, made_run, tmp_path / "out")
    message = str(caught.value)
    assert "case case_1: prediction and reference grids differ" in message
    assert "12.5 mm" in message
    assert "case_2" in message
    assert "case_0" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_same_rows_from_child_processes(given, made_run, tmp_path):
    score(given, made_run, tmp_path / "one")
    machine = Machine(workers=2)
    evaluate_folder(given, made_run.survey.manifest, tmp_path / "two", [Dice()], machine=machine, progress=Progress())
    assert (tmp_path / "one" / "per_case.csv").read_bytes() == (tmp_path / "two" / "per_case.csv").read_bytes()


def test_scoring_imports_no_torch():
    import subprocess
    import sys

    code = "import sys, pipeline.metrics.scoring, pipeline.metrics.surface; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
