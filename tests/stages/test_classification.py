"""A classification from start to finish: volumes of one file, and cases of a manifest in files of their own."""

import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from pipeline.config import check
from pipeline.errors import ConfigError
from pipeline.run import run


def config(tmp_path, **sections):
    tree = {
        "machine": {"runs": str(tmp_path / "runs"), "cache": str(tmp_path / "cache"), "workers": 1, "device": "cpu"},
        "task": {"name": "classification"},
        "folds": {"k": 2, "stratify": ["class"]},
        "normalise": {"name": "hu_window", "range_hu": [0, 1]},
        "report": {"pictures": 1},
    }
    return check(tree | sections, "test")


def short(epochs=3, steps=6, **options):
    common = {"batch_size": 12, "precision": "fp32", "validate_every": 1, "augment": [], "steps_per_epoch": steps}
    return common | {"epochs": epochs, "optimizer": {"name": "adamw", "rate": 5e-3}} | options


@pytest.fixture
def grids(tmp_path):
    """Digits 0, 1 and 2 as slabs along different axes."""
    random = np.random.default_rng(0)

    def some(count):
        values, labels = random.random((count, 8, 8, 8)) * 0.5, np.arange(count) % 3
        for volume, label in zip(values, labels, strict=True):
            volume[(slice(None),) * label + (slice(2, 5),)] += 0.5
        return values.astype(np.float32).reshape(count, -1), labels.astype(np.int64)

    (x, y), (z, w) = some(60), some(18)
    np.savez(tmp_path / "grids.npz", X_train=x, y_train=y, X_test=z, y_test=w)
    return tmp_path / "grids.npz"


def block_config(tmp_path, grids, **sections):
    common = {
        "dataset": {"name": "mnist3d", "file": str(grids)},
        "ingest": {"spacing_mm": None, "crop": "none"},
        "sample": {"patch_size": [8, 8, 8], "foreground": 0.0},
        "network": {"name": "mnist3d", "features": [4, 8], "padding": True, "norm": "batch"},
        "train": short(),
        "evaluate": {"logistic_baseline": True, "calibrate": True},
    }
    return config(tmp_path, **(common | sections))


@pytest.mark.slow
def test_volumes_of_one_file_from_start_to_report(tmp_path, grids):
    outcome = run(block_config(tmp_path, grids), name="blocks")
    assert outcome.exit_code == 0
    assert outcome.headline["test accuracy"] > 0.8
    (evaluate,) = outcome.folder.glob("evaluate-*")
    table = pd.read_csv(evaluate / "predictions.csv", dtype={"truth": str, "predicted": str})
    assert table.groupby("set").size().to_dict() == {"out_of_fold": 60, "test": 18}
    probabilities = [column for column in table if column.startswith("p_")]
    assert len(probabilities) == 10
    assert np.allclose(table[probabilities].sum(axis=1), 1, atol=1e-4)
    summary = json.loads((evaluate / "summary.json").read_text())
    accuracy = summary["test"]["figures"]["accuracy"]
    test = table[table["set"] == "test"]
    assert accuracy["value"] == pytest.approx((test["truth"] == test["predicted"]).mean())
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert summary["test"]["baselines"]["logistic regression"]["figures"]["accuracy"]["value"] > 0.5
    assert set(summary["out_of_fold"]["temperature"]) == {"0", "1"}
    page = (outcome.folder / "report.html").read_text()
    assert "Confusion" in page
    assert "logistic regression" in page.lower()
    assert len(list((tmp_path / "cache" / "cases").iterdir())) == 2, "one entry a source array, not one a volume"

    again = run(block_config(tmp_path, grids), name="blocks")
    assert all(made.reused for made in again.made)


@pytest.mark.slow
def test_one_network_on_all_cases_predicts_the_test_cases(tmp_path, grids):
    outcome = run(block_config(tmp_path, grids, evaluate={}), name="blocks", folds=[])
    assert "test accuracy" in outcome.headline
    assert "accuracy" not in outcome.headline


def test_options_that_would_change_volumes_are_refused_before_work(tmp_path, grids):
    with pytest.raises(ConfigError, match="crop: none"):
        run(block_config(tmp_path, grids, ingest={"spacing_mm": None, "crop": "body"}), name="blocks", until="ingest")


@pytest.fixture
def manifest(tmp_path):
    """Images with a bright or a dark middle, several a patient, of differing size."""
    random, lines = np.random.default_rng(1), ["case_id,image,class,group,width_mm"]
    for number in range(16):
        is_bright = number // 2 % 2
        shape = (6 + number % 3, 10, 12)
        values = random.random(shape).astype(np.float32) * 0.3
        values[2:5, 3:7, 4:8] = 0.9 if is_bright else 0.0
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((1.0, 1.0, 2.0))
        sitk.WriteImage(image, str(tmp_path / f"c{number}.nii.gz"))
        lines.append(f"c{number},c{number}.nii.gz,{'bright' if is_bright else 'dark'},p{number // 2},{number}")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "cases.yaml").write_text("class_names: [dark, bright]\n")
    return tmp_path / "cases.csv"


def manifest_config(tmp_path, manifest, **sections):
    common = {
        "dataset": {"name": "manifest", "path": str(manifest)},
        "ingest": {"spacing_mm": [2.0, 1.0, 1.0], "crop": "none"},
        "sample": {"patch_size": [8, 12, 12], "foreground": 1.0},
        "network": {"name": "resnet3d", "features": [4, 8], "norm": "instance", "dropout": 0.0},
        "train": short(steps=12, epochs=4, score="auroc", class_weights="auto"),
        "evaluate": {"compare_column": "width_mm"},
    }
    return config(tmp_path, **(common | sections))


@pytest.mark.slow
@pytest.mark.parametrize(
    "ingest",
    [
        {"spacing_mm": [2.0, 1.0, 1.0], "crop": "none"},
        {"spacing_mm": None, "crop": "none", "resize": [8, 12, 12]},
        {"spacing_mm": [2.0, 1.0, 1.0], "crop": "none", "middle_mm": [12, 8, 8]},
    ],
    ids=["windows", "resized", "middle"],
)
def test_cases_of_a_manifest_in_files_of_their_own(tmp_path, manifest, ingest):
    outcome = run(manifest_config(tmp_path, manifest, ingest=ingest), name="cases")
    assert outcome.exit_code == 0
    assert outcome.headline["auroc"] > 0.8
    (evaluate,) = outcome.folder.glob("evaluate-*")
    summary = json.loads((evaluate / "summary.json").read_text())["out_of_fold"]
    assert summary["groups"] == 8
    assert list(summary["confusion"]) == ["dark", "bright"]
    assert 0 <= summary["baselines"]["width_mm"]["figures"]["auroc"]["value"] <= 1
    assert "width_mm alone" in (outcome.folder / "report.html").read_text()


@pytest.mark.slow
def test_several_labels_a_case(tmp_path, manifest):
    text = manifest.read_text().replace(",bright,", ",bright|large,").replace(",dark,", ",,")
    manifest.write_text(text)
    manifest.with_suffix(".yaml").write_text("class_names: [bright, large]\n")
    chosen = manifest_config(
        tmp_path, manifest, task={"name": "classification", "multi_label": True}, evaluate={},
        train=short(steps=16, epochs=3, class_weights=None),
    )  # fmt: skip
    outcome = run(chosen, name="labels")
    (evaluate,) = outcome.folder.glob("evaluate-*")
    table = pd.read_csv(evaluate / "predictions.csv", keep_default_na=False)
    assert table["truth"].value_counts().to_dict() == {"": 8, "bright|large": 8}, "no class is a truth as well"
    assert outcome.headline["auroc"] > 0.7


@pytest.mark.slow
def test_a_case_without_a_class_is_not_learned_as_the_first_one(tmp_path, manifest):
    manifest.write_text(manifest.read_text().replace("c3.nii.gz,bright", "c3.nii.gz,"))
    outcome = run(manifest_config(tmp_path, manifest, evaluate={}), name="cases")
    plans = [json.loads((f / "result.json").read_text())["record"] for f in outcome.folder.glob("sample-*")]
    assert sum(len(plan["train"]) for plan in plans) == 15
    assert all("c3" not in plan["train"] for plan in plans)
    (evaluate,) = outcome.folder.glob("evaluate-*")
    assert "c3" not in set(pd.read_csv(evaluate / "predictions.csv")["case_id"])


def test_a_column_that_is_not_there_is_named(tmp_path, manifest):
    chosen = manifest_config(
        tmp_path, manifest, evaluate={"compare_column": "diameter"}, train=short(epochs=1, steps=1)
    )
    with pytest.raises(ConfigError, match="no column 'diameter'; it has width_mm"):
        run(chosen, name="cases")
