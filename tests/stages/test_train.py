"""The train stage on small phantoms: what it leaves, what TensorBoard is shown, and a loss that blows up."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pipeline.__main__ import main
from pipeline.imaging.labels import Labels
from pipeline.stages import train as train_module

TINY: dict[str, Any] = {
    "dataset": {"name": "phantom", "cases": 4, "spacing_mm": [6.0, 7.0], "slice_mm": [6.0, 8.0]},
    "folds": {"k": 2},
    "ingest": {"spacing_mm": [9.0, 9.0, 9.0]},
    "sample": {"patch_size": [16, 16, 24]},
    "network": {"name": "unet", "block": "convmake", "features": [4, 8]},
    "train": {"epochs": 2, "steps_per_epoch": 3, "validate_every": 1, "augment": []},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration whose cases are prepared; each test trains with options of its own, so in a folder of its own."""
    folder = tmp_path_factory.mktemp("trained")
    tree = TINY | {"machine": {"runs": str(folder / "runs"), "cache": str(folder / "cache"), "workers": 1}}
    tree["dataset"] = TINY["dataset"] | {"folder": str(folder / "phantom")}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert main(["run", str(path), "--folds", "0", "--until", "sample"]) == 0
    return path


def train(config: Path, **options: object) -> tuple[int, Path]:
    """Return the exit code and the folder of a training with these options."""
    runs = config.parent / "runs" / "tiny"
    before = set(runs.glob("train-*"))
    settings = [word for key, value in options.items() for word in ("--set", f"train.{key}={json.dumps(value)}")]
    code = main(["run", str(config), "--folds", "0", "--until", "train", *settings])
    made = set(runs.glob("train-*")) - before
    return code, made.pop() if made else runs


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_history_is_always_written_and_both_files_agree(config: Path) -> None:
    code, folder = train(config)
    assert code == 0
    rows = history(folder)
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert [int(row["epoch"]) for row in rows] == [line["epoch"] for line in lines] == [1, 2]
    assert [float(row["loss"]) for row in rows] == [line["loss"] for line in lines]
    assert all(0 <= float(row["dice"]) <= 1 for row in rows)
    assert not (folder / "tensorboard").exists()


class Events:
    """What a SummaryWriter is told."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        self.folder, self.scalars, self.pictures = folder, list[tuple[str, int]](), list[tuple[str, Any, int]]()
        Events.made.append(self)

    made: list["Events"]

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, step))

    def add_image(self, name: str, picture: Any, step: int, dataformats: str) -> None:
        assert dataformats == "HWC"
        self.pictures.append((name, picture, step))

    def close(self) -> None:
        pass


def test_tensorboard_is_shown_a_validation_case_at_each_validation(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Events.made = []
    fake = ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Events  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    code, folder = train(config, tensorboard=True, epochs=3, validate_every=2)
    assert code == 0
    (events,) = Events.made
    assert events.folder == folder / "tensorboard"
    assert {("loss", 3), ("dice", 6), ("loss", 9)} <= set(events.scalars)
    folds = (config.parent / "runs" / "tiny" / "folds.csv").read_text().splitlines()
    (name,) = {name for name, _, _ in events.pictures}
    assert any(line.startswith(f"{name},") and line.endswith(",0") for line in folds), "a case of the validation"
    assert [step for _, _, step in events.pictures] == [6, 9]
    for _, picture, _ in events.pictures:
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        assert (picture == 255).all(axis=2).sum() > 50, "the white line around the reference"


def test_no_picture_is_computed_without_tensorboard(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "predict_mask", lambda *_: pytest.fail("a picture was computed"))
    assert train(config, epochs=1)[0] == 0


def failing(wrong: Callable[[int], float]) -> Callable[[Any], Any]:
    """Return what makes the stage's loss, times `wrong(number of the call)`."""
    true, count = train_module.deep_supervision, SimpleNamespace(calls=0)

    def build(loss: Any) -> Any:
        inner = true(loss)

        def call(logits: Any, target: Any) -> torch.Tensor:
            count.calls += 1
            return inner(logits, target) * wrong(count.calls)

        return call

    return build


@pytest.mark.parametrize("factor", [float("nan"), 1e6], ids=["nan", "exploding"])
def test_a_loss_that_blows_up_names_cases_and_patches_and_the_same_command_goes_on(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], factor: float
) -> None:
    options = {"optimizer": {"name": "adamw", "rate": 0.0011 if factor > 1 else 0.0012}}
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "deep_supervision", failing(lambda call: factor if call == 5 else 1.0))
        code, folder = train(config, **options)
    message = capsys.readouterr().err
    assert code == 3
    assert "diverged at step 5" in message
    cases = {path.name.split(".")[0].removesuffix("_label") for path in (config.parent / "phantom").rglob("*.nii.gz")}
    assert sum(f"case {case}, patch 1 of batch 5: from voxel (" in message for case in cases) == 1
    assert "patch 2 of batch 5: from voxel (" in message
    assert "Traceback" not in message
    assert [path.name for path in (folder / "checkpoints").glob("*.json")] == ["step-00000003.json"]

    assert train(config, **options)[0] == 0
    assert "going on after step 3" in capsys.readouterr().err
    assert [int(row["step"]) for row in history(folder)] == [3, 6]


def test_it_goes_on_by_itself_with_half_the_rate_when_asked(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "deep_supervision", failing(lambda call: float("nan") if call == 5 else 1.0))
    code, folder = train(config, on_divergence="lower_rate", schedule="constant")
    assert code == 0
    assert json.loads((folder / "training.json").read_text())["halvings"] == 1
    rates = [float(row["rate"]) for row in history(folder)]
    assert rates == pytest.approx([1e-3, 0.5e-3]), "the first epoch was over before the rate was halved"


def test_after_a_stop_it_goes_on_with_half_the_rate_when_asked(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"optimizer": {"name": "adamw", "rate": 0.0013}, "schedule": "constant"}
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "deep_supervision", failing(lambda call: float("nan") if call == 5 else 1.0))
        code, folder = train(config, **options)
    assert code == 3
    capsys.readouterr()
    monkeypatch.setattr(train_module, "deep_supervision", failing(lambda call: float("nan") if call == 2 else 1.0))
    code, other = train(config, on_divergence="lower_rate", **options)
    assert (code, other) == (0, config.parent / "runs" / "tiny"), "in the folder that was begun"
    assert "going on after step 3" in capsys.readouterr().err
    rates = [float(row["rate"]) for row in history(folder)]
    assert rates == pytest.approx([1.3e-3, 0.65e-3])


def weights_of(voxels: dict[str, dict[int, int]], labels: Labels, wanted: object = "auto") -> list[float]:
    """Return the class weights of cases with so many voxels of each class."""
    stage = train_module.Train.model_validate({"class_weights": wanted})
    stored = {name: SimpleNamespace(meta=SimpleNamespace(class_voxels=counts)) for name, counts in voxels.items()}
    table = SimpleNamespace(by_id=lambda: {name: SimpleNamespace(case=None) for name in voxels})
    recipe = SimpleNamespace(
        class_names=labels.foreground if labels.regions else labels.classes, labels=labels,
        task=SimpleNamespace(reads_masks=True),
    )  # fmt: skip
    return stage._class_weights(recipe, table, stored).tolist()  # type: ignore[arg-type, union-attr]


def test_class_weights_are_the_root_of_the_inverse_share() -> None:
    labels = Labels.model_validate({0: "background", 1: "organ", 2: "tumour"})
    found = weights_of({"a": {0: 8999, 1: 399}, "b": {0: 1000, 1: 0, 2: 100, 255: 7}}, labels)
    raw = np.array([10000, 400, 101]) ** -0.5
    assert found == pytest.approx(raw / raw.mean(), rel=1e-4)
    without = weights_of({"a": {0: 9999, 1: 399}}, labels)
    assert without[2] == pytest.approx(1.0), "a class that is nowhere weighs as much as the mean, not all"
    assert without[1] / without[0] == pytest.approx(5.0, rel=1e-4)


def test_class_weights_of_regions_count_all_their_members() -> None:
    values = {0: "background", 1: "oedema", 2: "core"}
    labels = Labels.model_validate({**values, "regions": {"whole": ["oedema", "core"], "core": ["core"]}})
    whole, core = weights_of({"a": {0: 10**6, 1: 300, 2: 99}}, labels)
    assert core / whole == pytest.approx((400 / 100) ** 0.5, rel=1e-4)
    assert whole + core == pytest.approx(2.0)


def test_automatic_class_weights_come_from_training_cases_only(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    true = train_module.Train._class_weights

    def noted(self: Any, recipe: Any, ingest: Any, stored: dict[str, Any]) -> Any:
        seen.append(set(stored))
        return true(self, recipe, ingest, stored)

    monkeypatch.setattr(train_module.Train, "_class_weights", noted)
    code, folder = train(config, class_weights="auto", epochs=1)
    assert code == 0
    assert seen == [set(json.loads((folder / "result.json").read_text())["record"]["cases"])]
