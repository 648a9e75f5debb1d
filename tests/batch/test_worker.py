"""Batches end to end: tables, records, what is done again and what is not, failures, kills."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.batch.inputs import find_files
from pipeline.batch.record import read_record, record_path
from pipeline.batch.sources import Added, Finished, Found, Passed, Source
from pipeline.batch.status import StatusTable
from pipeline.batch.worker import Batch, predict_batch
from pipeline.errors import ConfigError, DataError
from pipeline.imaging.labels import Labels
from pipeline.imaging.read import read_image
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image
from pipeline.learning.models import open_source
from pipeline.learning.prediction import PredictOptions
from pipeline.learning.predictor import predictor_of
from pipeline.learning.probabilities import read_probabilities
from pipeline.networks.base import networks
from pipeline.workspace import only_owner
from tests.batch.models import make_run, make_volume

ROOT = Path(__file__).parents[2]
FP32 = PredictOptions(precision="fp32", overlap=0.25)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for number in range(3):
        make_volume(tmp_path / "in" / f"case_{number}.nii.gz", number)
    return tmp_path / "in"


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    models = open_source(make_run(tmp_path / "runs" / "tiny"))
    return Batch(models, predictor_of(models, FP32), tmp_path / "out")


def found_in(folder: Path) -> Found:
    return find_files([folder], ["image"])[0]


def rows_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "status.csv").open() as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def made_at(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((folder / "masks").glob("*.nii.gz"))}


def test_masks_tables_and_records(inputs: Path, batch: Batch) -> None:
    (inputs / "bad.nii.gz").write_bytes((inputs / "case_0.nii.gz").read_bytes()[:500])
    found = found_in(inputs) + Found(passed=(Passed("late", "refused", "single slice"),))
    table = predict_batch(found, batch)
    assert table.count("done") == 3
    rows = rows_of(batch.folder)
    assert {name: row["status"] for name, row in rows.items()} == {
        "bad": "failed", "case_0": "done", "case_1": "done", "case_2": "done", "late": "refused",
    }  # fmt: skip
    assert "cut short" in rows["bad"]["reason"]
    assert rows["late"]["reason"] == "single slice"
    image = read_image(inputs / "case_1.nii.gz", case_id="x")
    mask = read_image(batch.folder / "masks" / "case_1.nii.gz", case_id="x")
    assert mask.geometry == image.geometry
    expected = batch.predictor.predict(image, "x")
    assert np.array_equal(mask.voxels[0], expected.mask)
    ml = 2.5 * 1.4 * 1.6 / 1000
    assert float(rows["case_1"]["volume_ml_soft"]) == pytest.approx((mask.voxels == 2).sum() * ml, abs=1e-3)
    assert float(rows["case_1"]["peak_memory_mb"]) > 50
    assert all(float(rows["case_1"][f"seconds_{step}"]) >= 0 for step in ("read", "compute", "write"))
    assert json.loads((batch.folder / "masks" / "labels.json").read_text())["labels"] == {
        "0": "background", "2": "soft", "7": "bone",
    }  # fmt: skip
    assert '"bone"' in (batch.folder / "masks" / "labels.txt").read_text()
    record = read_record(record_path(batch.folder, "case_1"))
    assert record is not None
    assert len(record.model["members"]) == 2
    assert record.options["precision"] == "fp32"
    assert record.environment["libraries"]["torch"] == torch.__version__
    assert not list(batch.folder.rglob(".tmp-*"))


def test_a_second_start_does_only_what_changed(inputs: Path, batch: Batch, tmp_path: Path) -> None:
    predict_batch(found_in(inputs), batch)
    before = made_at(batch.folder)
    predict_batch(found_in(inputs), batch)
    assert made_at(batch.folder) == before
    # Another time and place of the same content is the same input; the same name with other content is not.
    shutil.copy(inputs / "case_0.nii.gz", tmp_path / "copy.nii.gz")
    os.replace(tmp_path / "copy.nii.gz", inputs / "case_0.nii.gz")
    make_volume(inputs / "case_1.nii.gz", 9)
    (batch.folder / "masks" / "case_2.nii.gz").write_bytes(b"changed")
    predict_batch(found_in(inputs), batch)
    after = made_at(batch.folder)
    assert {name for name in after if after[name] != before[name]} == {"case_1.nii.gz", "case_2.nii.gz"}
    moved = tmp_path / "moved"
    os.replace(inputs, moved)
    predict_batch(found_in(moved), batch)
    assert made_at(batch.folder) == after


def test_other_options_or_models_make_all_again(inputs: Path, batch: Batch, tmp_path: Path) -> None:
    predict_batch(found_in(inputs), batch)
    before = made_at(batch.folder)
    other = replace(batch, predictor=predictor_of(batch.models, FP32.model_copy(update={"overlap": 0.5})))
    predict_batch(found_in(inputs), other)
    after = made_at(batch.folder)
    assert all(after[name] != before[name] for name in before)
    models = open_source(make_run(tmp_path / "runs" / "again", folds=1))
    assert models.identity != batch.models.identity
    predict_batch(found_in(inputs), replace(batch, models=models, predictor=predictor_of(models, FP32)))
    last = made_at(batch.folder)
    assert all(last[name] != after[name] for name in before)


def test_a_result_of_older_content_never_stands_for_a_failure(inputs: Path, batch: Batch) -> None:
    predict_batch(found_in(inputs), batch)
    (inputs / "case_1.nii.gz").write_bytes(b"no volume any more")
    predict_batch(found_in(inputs), batch)
    assert rows_of(batch.folder)["case_1"]["status"] == "failed"
    assert sorted(made_at(batch.folder)) == ["case_0.nii.gz", "case_2.nii.gz"]
    assert not record_path(batch.folder, "case_1").exists()


def test_a_bug_costs_its_case_only(inputs: Path, batch: Batch, caplog: pytest.LogCaptureFixture) -> None:
    def read(source: Source) -> Volume:
        if source.case_id == "case_0":
            raise KeyError("surprise")
        if source.case_id == "case_1":
            raise MemoryError
        return read_image(source.files["image"][0], case_id=source.case_id)

    table = predict_batch(found_in(inputs), replace(batch, read=read))
    assert [row.status for row in table.rows.values()] == ["failed", "failed", "done"]
    assert "unexpected KeyError" in table.rows["case_0"].reason
    assert "memory ran out" in table.rows["case_1"].reason
    assert "in read" in caplog.text
    assert "KeyError: 'surprise'" not in caplog.text  # an exception's text may quote the name of a file


def test_a_hook_that_fails_leaves_no_mask_behind(inputs: Path, batch: Batch) -> None:
    def hook(finished: Finished) -> Added | None:
        if finished.source.case_id == "case_0":
            raise KeyError("surprise")
        return None

    predict_batch(found_in(inputs), replace(batch, after=[hook]))
    assert sorted(made_at(batch.folder)) == ["case_1.nii.gz", "case_2.nii.gz"]


def test_what_a_killed_process_left_goes_everywhere(inputs: Path, batch: Batch) -> None:
    left = [batch.folder / name / ".tmp-1-x.dcm" for name in ("seg", "previews", "masks", "probabilities/case")]
    for path in left:
        path.parent.mkdir(parents=True)
        path.touch()
    predict_batch(Found(), batch)
    assert not any(path.exists() for path in left)


def test_a_full_disk_stops_all(inputs: Path, batch: Batch) -> None:
    def full(finished: Finished) -> Added | None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        predict_batch(found_in(inputs), replace(batch, after=[full]))
    assert {row["status"] for row in rows_of(batch.folder).values()} == {"waiting"}
    predict_batch(found_in(inputs), batch)
    assert {row["status"] for row in rows_of(batch.folder).values()} == {"done"}


def test_hooks_add_files_columns_and_reasons_for_review(inputs: Path, batch: Batch) -> None:
    seen: list[Finished] = []

    def note(finished: Finished) -> Added:
        seen.append(finished)
        name = f"notes/{finished.source.case_id}.txt"
        (finished.folder / "notes").mkdir(exist_ok=True)
        (finished.folder / name).write_text("x")
        return Added(files=(name,), review=("small",), columns={"slices": finished.volume.geometry.shape[0]})

    hooked = replace(batch, after=[note])
    predict_batch(found_in(inputs), hooked)
    assert rows_of(batch.folder)["case_0"]["review"] == "small"
    assert rows_of(batch.folder)["case_0"]["slices"] == "14"
    assert (batch.folder / "masks" / "case_0.nii.gz").exists()
    predict_batch(found_in(inputs), hooked)
    assert len(seen) == 3
    (batch.folder / "notes" / "case_2.txt").unlink()
    predict_batch(found_in(inputs), hooked)
    assert len(seen) == 4
    predict_batch(found_in(inputs), replace(batch, after=[note, lambda finished: None]))
    assert len(seen) == 7  # a hook that was not called before makes all anew


def test_at_most_one_volume_waits_on_each_side(inputs: Path, batch: Batch) -> None:
    for number in range(3, 7):
        make_volume(inputs / f"case_{number}.nii.gz", number)
    lock, counts, read_ahead = threading.Lock(), {"read": 0, "written": 0}, []

    def read(source: Source) -> Volume:
        with lock:
            counts["read"] += 1
            read_ahead.append(counts["read"] - counts["written"])
        return read_image(source.files["image"][0], case_id=source.case_id)

    def slow(finished: Finished) -> None:
        time.sleep(0.05)
        with lock:
            counts["written"] += 1

    predict_batch(found_in(inputs), replace(batch, read=read, after=[slow]))
    assert max(read_ahead) <= 4  # in hand: one read, one computed, one being written, and the next begun


def test_one_owner(inputs: Path, batch: Batch) -> None:
    with only_owner(batch.folder), pytest.raises(ConfigError, match="another process predicts"):
        predict_batch(found_in(inputs), batch)


def test_probabilities_agree_with_the_mask(inputs: Path, batch: Batch) -> None:
    predict_batch(found_in(inputs), replace(batch, probabilities=True))
    shares = read_probabilities(batch.folder / "probabilities" / "case_0")
    mask = read_image(batch.folder / "masks" / "case_0.nii.gz", case_id="x").voxels[0]
    classes = np.stack([shares[name] for name in ("background", "soft", "bone")])
    assert np.abs(classes.sum(0) - 1).max() < 2.1 / 255
    best = np.array([0, 2, 7])[classes.argmax(0)]
    clear = np.sort(classes, 0)[-1] - np.sort(classes, 0)[-2] > 2 / 255
    assert clear.mean() > 0.5
    assert np.array_equal(best[clear], mask[clear])
    entropy = -(classes * np.log(np.maximum(classes, 1e-12))).sum(0) / np.log(3)
    assert np.abs(entropy - shares["entropy"]).max() < 0.03
    # Asked for later, they are made though the mask is there.
    shutil.rmtree(batch.folder / "probabilities")
    predict_batch(found_in(inputs), replace(batch, probabilities=True))
    assert (batch.folder / "probabilities" / "case_0" / "entropy.nii.gz").exists()


def test_a_region_of_interest_spares_windows(inputs: Path, batch: Batch, tmp_path: Path) -> None:
    shape = (14, 16, 15)
    for number in range(2):
        inside = np.zeros((1, *shape), np.uint8)
        inside[:, :3, :3, :3] = 1
        write_image(Volume(inside, Geometry(shape=shape)), tmp_path / "roi" / f"case_{number}.nii.gz")
    table = predict_batch(found_in(inputs), replace(batch, roi=tmp_path / "roi"))
    assert table.rows["case_0"].status == "done"
    assert "has no case_2.nii.gz" in table.rows["case_2"].reason
    mask = read_image(batch.folder / "masks" / "case_0.nii.gz", case_id="x").voxels[0]
    assert not mask[-2:, -2:, -2:].any()


def test_whole_volumes_get_a_table_of_probabilities(inputs: Path, tmp_path: Path) -> None:
    network = networks.parse({"name": "resnet3d"})
    run = make_run(tmp_path / "runs" / "c", folds=1, task="classification", classes=("no", "yes"), network=network,
                   labels=Labels(), patch_size=(16, 16, 16))  # fmt: skip
    models = open_source(run)
    batch = Batch(models, predictor_of(models, PredictOptions(precision="fp32")), tmp_path / "out")
    predict_batch(found_in(inputs), batch)
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == ["case_0", "case_1", "case_2"]
    assert all(float(row["no"]) + float(row["yes"]) == pytest.approx(1, abs=1e-5) for row in rows)
    assert all(row["class"] == max(("no", "yes"), key=lambda name: float(row[name])) for row in rows)


def test_the_table_is_written_now_and_then(tmp_path: Path, batch: Batch, inputs: Path) -> None:
    table = StatusTable(tmp_path)
    table.write()
    assert (tmp_path / "status.csv").read_text().startswith("case,status,reason,review,note,seconds_read")


@pytest.mark.slow
def test_killed_anywhere_it_goes_on(inputs: Path, batch: Batch, tmp_path: Path) -> None:
    """The same command after each SIGKILL ends with the masks of an undisturbed run, and nothing half-written."""
    for number in range(3, 8):
        make_volume(inputs / f"case_{number}.nii.gz", number)
    predict_batch(found_in(inputs), replace(batch, folder=tmp_path / "whole"))
    command = [
        sys.executable, "-m", "pipeline", "predict", str(tmp_path / "runs" / "tiny"), str(inputs), "--output",
        str(tmp_path / "out"), "--set", "predict.precision=fp32", "--set", "machine.device=cpu",
    ]  # fmt: skip
    kills = 0
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    for wait in (0.0, 0.1):
        process = subprocess.Popen(
            command, cwd=ROOT, env=one_thread, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = len(list((tmp_path / "out").glob("provenance/*.json")))
        while process.poll() is None and len(list((tmp_path / "out").glob("provenance/*.json"))) < before + 2:
            time.sleep(0.005)
        time.sleep(wait / 10)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path in (tmp_path / "out" / "masks").glob("case_*.nii.gz"):
            read_image(path, case_id=path.name)
    assert subprocess.run(command, cwd=ROOT, env=one_thread, capture_output=True, check=False).returncode == 0
    assert kills >= 1
    for path in sorted((tmp_path / "whole" / "masks").glob("*.nii.gz")):
        assert (tmp_path / "out" / "masks" / path.name).read_bytes() == path.read_bytes()
    assert not list((tmp_path / "out").rglob(".tmp-*"))
    assert {row["status"] for row in rows_of(tmp_path / "out").values()} == {"done"}


def test_errors_name_the_case(batch: Batch) -> None:
    def read(source: Source) -> Volume:
        raise DataError(f"case {source.case_id}: refused")

    table = predict_batch(Found((Source("x", {"image": (Path("gone"),)}),)), replace(batch, read=read))
    assert table.rows["x"].reason == "case x: refused"
