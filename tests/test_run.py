"""The main job end to end on small phantoms: made once, reused, resumed after a kill, refused on bad input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from safetensors.numpy import load_file

from pipeline.__main__ import main
from pipeline.config import load_config
from pipeline.run import run

ROOT = Path(__file__).parents[1]
TINY = {
    "dataset": {"name": "phantom", "cases": 4, "spacing_mm": [6.0, 7.0], "slice_mm": [6.0, 8.0]},
    "folds": {"k": 2},
    "ingest": {"spacing_mm": [9.0, 9.0, 9.0]},
    "sample": {"patch_size": [16, 16, 24]},
    "network": {"name": "unet", "block": "convmake", "features": [4, 8]},
    "train": {"epochs": 2, "steps_per_epoch": 4, "validate_every": 1},
}


def _config(folder: Path, **changes: object) -> Path:
    tree = {**TINY, "machine": {"runs": str(folder / "runs"), "cache": str(folder / "cache")}, **changes}
    if tree["dataset"]["name"] == "phantom":
        tree["dataset"] = {**tree["dataset"], "folder": str(folder / "phantom")}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run, its cache and its phantoms; copied where a test changes it."""
    folder = tmp_path_factory.mktemp("finished")
    assert main(["run", str(_config(folder))]) == 0
    return folder


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "runs" / "tiny").iterdir() if path.is_dir())


def _stages(folder: Path) -> list[str]:
    return [name.rsplit("-", 1)[0] for name in _names(folder)]


def _weights(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Weights by stage; the key behind its name holds where the phantoms lie, which differs here."""
    found = (folder / "runs" / "tiny").glob("train-*/model.safetensors")
    return {path.parent.name.rsplit("-", 1)[0]: load_file(path) for path in found}


def _scores(folder: Path) -> str:
    return next((folder / "runs" / "tiny").glob("evaluate-*/per_case.csv")).read_text()


def test_every_stage_left_its_result(finished: Path) -> None:
    stages = _stages(finished)
    per_fold = [f"{stage}-fold{fold}" for stage in ("predict", "sample", "train") for fold in (0, 1)]
    assert stages == sorted(["survey", "ingest", *per_fold, "evaluate", "report"])
    page = (finished / "runs" / "tiny" / "report.html").read_text()
    assert "<script src" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_masks_lie_on_the_grids_of_their_inputs(finished: Path) -> None:
    config = load_config(finished / "tiny.yaml")
    masks = {path.name: path for path in (finished / "runs" / "tiny").glob("predict-*/masks/*.nii.gz")}
    for case in config.dataset.cases().cases:
        image, mask = sitk.ReadImage(str(case.images["image"])), sitk.ReadImage(str(masks[f"{case.case_id}.nii.gz"]))
        assert mask.GetSize() == image.GetSize()
        for one, other in ((image.GetOrigin(), mask.GetOrigin()), (image.GetDirection(), mask.GetDirection())):
            np.testing.assert_allclose(one, other, atol=1e-4)


def test_no_patient_is_in_two_folds(finished: Path) -> None:
    folds = pd.read_csv(finished / "runs" / "tiny" / "folds.csv")
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    assert sorted(folds["fold"].unique()) == [0, 1]


def test_scores_agree_with_an_independent_dice(finished: Path) -> None:
    config = load_config(finished / "tiny.yaml")
    table = pd.read_csv(next((finished / "runs" / "tiny").glob("evaluate-*/per_case.csv")))
    masks = {path.name: path for path in (finished / "runs" / "tiny").glob("predict-*/masks/*.nii.gz")}
    names = {name: value for value, name in config.dataset.cases().labels.values.items()}
    for case in config.dataset.cases().cases:
        overlap = sitk.LabelOverlapMeasuresImageFilter()
        guess = sitk.Cast(sitk.ReadImage(str(masks[f"{case.case_id}.nii.gz"])), sitk.sitkUInt8)
        truth = sitk.Cast(sitk.ReadImage(str(case.label)), sitk.sitkUInt8)
        guess.CopyInformation(truth)
        overlap.Execute(truth, guess)
        for name in ("lung", "liver"):
            ours = table[(table.case_id == case.case_id) & (table["class"] == name)]["dice"].item()
            assert ours == pytest.approx(overlap.GetDiceCoefficient(names[name]), abs=1e-5)


def test_a_second_run_reuses_everything(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _names(finished)
    assert main(["run", str(finished / "tiny.yaml")]) == 0
    assert "10 stages, 10 reused" in capsys.readouterr().out
    assert _names(finished) == before


def test_a_changed_option_makes_only_what_depends_on_it(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(finished / "tiny.yaml"), "--set", "predict.overlap=0.25", "--dry-run"]) == 0
    text = capsys.readouterr().out
    reused = {line.split()[1].split("-")[0] for line in text.splitlines() if line.startswith("  reuse")}
    made = {line.split()[1].split("-")[0] for line in text.splitlines() if line.startswith("  make")}
    assert reused == {"survey", "ingest", "sample", "train"}
    assert made == {"predict", "evaluate", "report"}


def test_machine_settings_change_no_key(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(finished / "tiny.yaml"), "--max-memory", "3", "--set", "machine.workers=1"]) == 0
    assert "10 reused" in capsys.readouterr().out


def test_a_dry_run_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = _config(tmp_path)
    assert main(["run", str(config), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "phantom_003" in text
    assert "fold 1" in text
    assert "make   survey" in text
    assert os.listdir(tmp_path) == ["tiny.yaml"]


@pytest.mark.slow
def test_one_model_on_all_cases(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "copy"))
    config = _config(folder)
    outcome = run(load_config(config), name="tiny", folds=[])
    assert any(made.name.startswith("train-all-") for made in outcome.made)
    assert outcome.exit_code == 0


def test_a_dry_run_tells_the_folds_that_the_run_makes(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(finished / "tiny.yaml"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    for row in pd.read_csv(finished / "runs" / "tiny" / "folds.csv").itertuples():
        assert f"  {row.case_id}  group {row.group}  fold {row.fold}\n" in text


@pytest.mark.slow
def test_a_finished_training_is_made_longer_as_a_new_result(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parents = {path.name.split("-")[1]: path for path in (finished / "runs" / "tiny").glob("train-fold*")}
    longer = ["run", str(finished / "tiny.yaml"), "--until", "train", "--set", f"machine.runs={tmp_path}"]
    longer += ["--set", "train.epochs=1", "--set", f"train.init_from={finished / 'runs' / 'tiny'}"]
    assert main(longer) == 0
    for fold in ("fold0", "fold1"):
        (made,) = (tmp_path / "tiny").glob(f"train-{fold}-*")
        record = json.loads((made / "result.json").read_text())["record"]
        parent = json.loads((parents[fold] / "result.json").read_text())["record"]
        assert record["parent"] == f"{parents[fold].name} {parent['weights_sha256']}"
        assert record["cases"] == parent["cases"]

    wrong = [word if "init_from" not in word else f"train.init_from={parents['fold1']}" for word in longer]
    assert main([*wrong, "--folds", "0"]) == 2
    assert "that fold 0 validates with" in capsys.readouterr().err


def test_an_unknown_fold_is_refused(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(finished / "tiny.yaml"), "--folds", "0,7"]) == 2
    assert "no fold 7" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_gives_the_same_result(finished: Path, tmp_path: Path) -> None:
    config = _config(tmp_path)
    command = [sys.executable, "-m", "pipeline", "run", str(config)]
    random = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(float(random.uniform(3, 12)))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert _stages(tmp_path) == _stages(finished)
    assert not list(tmp_path.rglob(".tmp-*"))
    expected, found = _weights(finished), _weights(tmp_path)
    for name, tensors in expected.items():
        for key, value in tensors.items():
            np.testing.assert_array_equal(found[name][key], value)
    assert _scores(tmp_path) == _scores(finished)


def _broken_manifest(finished: Path, folder: Path) -> Path:
    """Write a manifest of phantoms, six of them broken, each in its own way."""
    cases = load_config(finished / "tiny.yaml").dataset.cases()
    image, label = cases.cases[0].images["image"], cases.cases[0].label
    whole, mask = sitk.ReadImage(str(image)), sitk.ReadImage(str(label))
    rows = [("good_1", image, label), ("good_2", cases.cases[1].images["image"], cases.cases[1].label)]

    def add(name: str, volume: object = None, truth: object = None) -> Path:
        rows.append((name, folder / f"{name}.nii.gz", folder / f"{name}_label.nii.gz"))
        sitk.WriteImage(volume if volume is not None else whole, str(rows[-1][1]))
        sitk.WriteImage(truth if truth is not None else mask, str(rows[-1][2]))
        return Path(rows[-1][1])

    cut = add("truncated")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    voxels = sitk.GetArrayFromImage(whole).astype(np.float32)
    voxels[0, 0, 0] = np.nan
    not_a_number = sitk.GetImageFromArray(voxels)
    not_a_number.CopyInformation(whole)
    add("nan", not_a_number)
    moved = sitk.Image(mask)
    moved.SetOrigin([12.5 + value for value in mask.GetOrigin()])
    add("moved", truth=moved)
    unknown = sitk.GetImageFromArray(np.where(sitk.GetArrayFromImage(mask) == 1, 77, sitk.GetArrayFromImage(mask)))
    unknown.CopyInformation(mask)
    add("unknown", truth=sitk.Cast(unknown, sitk.sitkUInt8))
    path = folder / "broken.csv"
    pd.DataFrame(rows, columns=["case_id", "image", "label"]).to_csv(path, index=False)
    path.with_suffix(".yaml").write_text(yaml.safe_dump({"labels": cases.labels.model_dump(mode="json")}))
    return path


@pytest.mark.slow
def test_every_bad_case_is_named_at_once_and_nothing_is_made(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = _broken_manifest(finished, tmp_path)
    config = _config(tmp_path, dataset={"name": "manifest", "path": str(manifest)})
    assert main(["run", str(config)]) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert "4 cases cannot be used" in message
    for name, what in (("truncated", "cut short"), ("nan", "NaN"), ("moved", "mm"), ("unknown", "77")):
        line = next(line for line in message.splitlines() if f"case {name}:" in line)
        assert what in line
    assert not any(name.startswith(("ingest", "train")) and (tmp_path / "runs/tiny" / name / "result.json").exists()
                   for name in _names(tmp_path))  # fmt: skip
    assert main(["run", str(config), "--set", "ingest.on_bad_case=drop", "--until", "ingest"]) == 1
    table = json.loads(next((tmp_path / "runs/tiny").glob("ingest-*/result.json")).read_text())["record"]
    assert [row["case"]["case_id"] for row in table["cases"]] == ["good_1", "good_2"]


def test_a_missing_file_and_a_group_in_two_folds_are_refused(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = load_config(finished / "tiny.yaml").dataset.cases()
    first = enumerate(cases.cases[:2])
    rows = [(case.case_id, case.images["image"], case.label, "anna", number) for number, case in first]
    manifest = tmp_path / "x.csv"
    manifest.with_suffix(".yaml").write_text(yaml.safe_dump({"labels": cases.labels.model_dump(mode="json")}))
    pd.DataFrame(rows, columns=["case_id", "image", "label", "group", "fold"]).to_csv(manifest, index=False)
    config = _config(tmp_path, dataset={"name": "manifest", "path": str(manifest)})
    assert main(["run", str(config)]) == 2
    assert "anna" in capsys.readouterr().err
    table = pd.read_csv(manifest)
    table.loc[0, "image"] = "nowhere.nii.gz"
    table.to_csv(manifest, index=False)
    assert main(["run", str(config)]) == 2
    assert "nowhere.nii.gz" in capsys.readouterr().err


@pytest.mark.slow
def test_masks_made_elsewhere_are_scored_with_the_same_tables(finished: Path, tmp_path: Path) -> None:
    manifest = next((finished / "phantom").rglob("*.csv"))
    labels = {path.name: path for path in (finished / "phantom").rglob("*.nii.gz") if "label" in str(path)}
    for case in load_config(finished / "tiny.yaml").dataset.cases().cases:
        assert case.label is not None
        shutil.copyfile(case.label, tmp_path / f"{case.case_id}.nii.gz")
    assert labels
    assert main(["evaluate", str(tmp_path), str(manifest), "--output", str(tmp_path / "scores")]) == 0
    table = pd.read_csv(tmp_path / "scores" / "per_case.csv")
    assert (table["dice"].dropna() == 1).all()
    (tmp_path / f"{table.case_id[0]}.nii.gz").unlink()
    assert main(["evaluate", str(tmp_path), str(manifest), "--output", str(tmp_path / "scores")]) == 1


@pytest.mark.slow
def test_real_hippocampus_from_folder_to_scores(real_data: Path, tmp_path: Path) -> None:
    words = ["run", str(ROOT / "configs" / "hippocampus.yaml"), "--folds", "0"]
    settings = {
        "dataset.folder": real_data / "Task04_Hippocampus", "train.max_minutes": "null", "train.epochs": 3,
        "train.steps_per_epoch": 40, "train.validate_every": 3, "machine.runs": tmp_path / "runs",
        "machine.cache": tmp_path / "cache",
    }  # fmt: skip
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    assert main(words) == 0
    summary = json.loads(next((tmp_path / "runs").glob("*/evaluate-*/summary.json")).read_text())
    # Far above what a mask of anything gives; 15 minutes of training reach 0.85.
    assert summary["out_of_fold"]["classes_mean"]["dice"]["mean"] > 0.5


@pytest.mark.parametrize("words", [["--dry-run"], []])
@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ({"name": "monai", "class": "DiceLos"}, "did you mean 'DiceLoss'"),
        ({"name": "monai", "class": "DiceLoss", "arguments": {"sigmoidd": True}}, "did you mean 'sigmoid'"),
    ],
)
def test_options_that_a_loss_refuses_are_told_before_any_work(tmp_path, capsys, words, loss, said):
    config = _config(tmp_path, train={**TINY["train"], "loss": loss})
    assert main(["run", str(config), *words]) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "cache").glob("cases/*"))
