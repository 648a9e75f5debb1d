"""Model packages: what goes in comes out, and whatever was tampered with is refused."""

import hashlib
import json
import shutil
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.learning.models import open_source, trainings
from pipeline.learning.pack import pack
from pipeline.learning.prediction import PredictOptions
from pipeline.learning.predictor import load_model, predictor_of
from pipeline.learning.trained import load
from tests.batch.models import make_run, make_training, make_volume

FP32 = PredictOptions(precision="fp32")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "runs" / "tiny")


@pytest.fixture
def package(run: Path, tmp_path: Path) -> Path:
    pack(run, tmp_path / "model.zip")
    return tmp_path / "model.zip"


def members(package: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(package: Path, content: Mapping[str, bytes], **infos: Any) -> None:
    """Write the members as they are given, without mending the list of their hashes."""
    with zipfile.ZipFile(package, "w") as archive:
        for name, data in content.items():
            archive.writestr(infos.get(name, zipfile.ZipInfo(name)), data)


def relisted(
    content: dict[str, bytes], change: Callable[[dict[str, Any]], None] = lambda index: None
) -> dict[str, bytes]:
    """Return the members with a list that fits them, as an attacker would make it."""
    index = json.loads(content["package.json"])
    rest = {name: data for name, data in content.items() if name != "package.json"}
    index["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in rest.items()
    }
    change(index)
    return {"package.json": json.dumps(index).encode(), **rest}


def test_a_package_predicts_what_its_run_predicts(run: Path, package: Path, tmp_path: Path) -> None:
    volume = make_volume(tmp_path / "a.nii.gz")
    one, other = load_model(run, FP32, device="cpu"), load_model(package, FP32, device="cpu")
    assert np.array_equal(one.predict(volume).mask, other.predict(volume).mask)
    assert open_source(package).identity == open_source(run).identity
    assert open_source(package).options == open_source(run).options == {"overlap": 0.25, "window_batch": 1}
    assert len(open_source(package, fold=1).models) == 1
    assert open_source(package, fold=1).identity == open_source(run / "train-fold1-0a1b2c3d").identity
    with pytest.raises(ModelError, match="--fold 7"):
        open_source(package, fold=7)


def test_a_package_tells_what_it_is(run: Path, package: Path) -> None:
    inside = members(package)
    assert set(inside) == {
        "package.json", "labels.json", "metrics.json", "MODEL_CARD.md",
        *(f"fold{fold}/{name}" for fold in (0, 1) for name in ("model.safetensors", "recipe.json", "training.json")),
    }  # fmt: skip
    card = inside["MODEL_CARD.md"].decode()
    assert "| 7 | bone |" in card
    assert "2 x 2 x 2 mm" in card
    assert json.loads(inside["fold0/training.json"])["epochs"] == 3
    again = package.with_name("again.zip")
    pack(run, again)
    assert again.read_bytes() == package.read_bytes()


def test_the_newest_training_of_a_fold_is_taken_and_said(run: Path) -> None:
    make_training(run / "train-fold0-ffffffff", seed=5)
    folders, notes = trainings(run)
    assert [folder.name for folder in folders.values()] == ["train-fold0-ffffffff", "train-fold1-0a1b2c3d"]
    assert "train-fold0-ffffffff" in notes[0]
    (run / "models.json").write_text(json.dumps({"train": ["train-fold0-0a1b2c3d", "train-fold1-0a1b2c3d"]}))
    folders, notes = trainings(run)
    assert folders[0].name == "train-fold0-0a1b2c3d"
    assert notes == ()


def test_the_ensemble_is_the_mean_of_its_members_in_either_way(run: Path, tmp_path: Path) -> None:
    """The logits of two networks whose last layer is linear: the mean of their maps is the map of the ensemble."""
    volume = make_volume(tmp_path / "a.nii.gz")
    source = open_source(run)
    together = predictor_of(source, FP32)
    turned = predictor_of(source, FP32, in_turn=True)
    assert turned.models[0].module is turned.models[1].module
    one, other = (load_model(run, FP32, fold=fold, device="cpu") for fold in (0, 1))
    masks = [model.predict(volume, probabilities=True) for model in (together, turned, one, other)]
    assert np.array_equal(masks[0].mask, masks[1].mask)
    maps = [np.log(np.maximum(made.maps.array[:3], 1) / 255) for made in masks]  # type: ignore[union-attr]
    assert np.array_equal(maps[0], maps[1])
    # The softmax of the mean of logits is the normalised geometric mean of the members' shares.
    mean = np.exp((maps[2] + maps[3]) / 2)
    precise = np.minimum(maps[2], maps[3]).min(0) > np.log(0.1)  # a step of 1/255 is little of these shares
    assert precise.mean() > 0.1
    assert np.abs(mean / mean.sum(0) - np.exp(maps[0])).max(0)[precise].max() < 0.02
    for made in masks:
        made.maps.close()  # type: ignore[union-attr]


def _traversal(content: dict[str, bytes]) -> dict[str, bytes]:
    return relisted({**content, "../evil.json": b"{}"})


def _absolute(content: dict[str, bytes]) -> dict[str, bytes]:
    return relisted({**content, "/etc/evil": b"{}"})


def _backslash(content: dict[str, bytes]) -> dict[str, bytes]:
    return relisted({**content, "..\\evil": b"{}"})


def _unknown(content: dict[str, bytes]) -> dict[str, bytes]:
    return {**content, "extra.pkl": b"x"}


def _missing(content: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in content.items() if name != "labels.json"}


def _changed_text(content: dict[str, bytes]) -> dict[str, bytes]:
    return {**content, "fold0/recipe.json": content["fold0/recipe.json"].replace(b"bone", b"soul")}


def _longer(content: dict[str, bytes]) -> dict[str, bytes]:
    return {**content, "metrics.json": content["metrics.json"] + b" "}


def _other_network(content: dict[str, bytes]) -> dict[str, bytes]:
    recipe = content["fold0/recipe.json"].replace(b'"unet"', b'"os.system"')
    return relisted({**content, "fold0/recipe.json": recipe})


def _weights_as_text(content: dict[str, bytes]) -> dict[str, bytes]:
    def change(index: dict[str, Any]) -> None:
        index["models"][0]["weights"] = "labels.json"

    return relisted(content, change)


def _new_format(content: dict[str, bytes]) -> dict[str, bytes]:
    return relisted(content, lambda index: index.update(format=2))


def _no_list(content: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in content.items() if name != "package.json"}


def _no_number(content: dict[str, bytes]) -> dict[str, bytes]:
    recipe = json.loads(content["fold0/recipe.json"])
    recipe["normalise"] = [{"name": "training_zscore", "fitted": [-1, 1, "nan", 1]}]
    return relisted({**content, "fold0/recipe.json": json.dumps(recipe).encode()})


def _endless(content: dict[str, bytes]) -> dict[str, bytes]:
    recipe = json.loads(content["fold0/recipe.json"])
    recipe["normalise"] = [{"name": "hu_window", "range_hu": [0, "X"]}]
    return relisted({**content, "fold0/recipe.json": json.dumps(recipe).replace('"X"', "1e999").encode()})


def _one_fold_twice(content: dict[str, bytes]) -> dict[str, bytes]:
    return relisted(content, lambda index: index["models"][1].update(fold=index["models"][0]["fold"]))


def _odd_options(content: dict[str, bytes]) -> dict[str, bytes]:
    return relisted(content, lambda index: index.update(options={"overlap": 2}))


def _deep(content: dict[str, bytes]) -> dict[str, bytes]:
    return relisted({**content, "fold0/recipe.json": b"[" * 100_000})


@pytest.mark.parametrize(
    ("tamper", "says"),
    [
        (_traversal, "leads elsewhere"),
        (_absolute, "leads elsewhere"),
        (_backslash, "leads elsewhere"),
        (_unknown, "'extra.pkl' is not in its list"),
        (_missing, "'labels.json' is missing"),
        (_changed_text, "'fold0/recipe.json' was changed"),
        (_longer, "'metrics.json' has"),
        (_other_network, "no network called 'os.system'"),
        (_weights_as_text, "no such member"),
        (_new_format, "its format is 2"),
        (_no_list, "there is no package.json"),
        (_deep, "is no JSON"),
        (_no_number, "a finite number"),
        (_endless, "a finite number"),
        (_one_fold_twice, "of one fold"),
        (_odd_options, "options for prediction"),
    ],
)
def test_what_was_tampered_with_is_refused(
    package: Path, tamper: Callable[[dict[str, bytes]], dict[str, bytes]], says: str
) -> None:
    rewrite(package, tamper(members(package)))
    with pytest.raises(ModelError, match=says):
        open_source(package)


def test_members_that_could_swell_or_lead_elsewhere_are_refused(package: Path, tmp_path: Path) -> None:
    content = members(package)
    packed = zipfile.ZipInfo("labels.json")
    packed.compress_type = zipfile.ZIP_DEFLATED
    rewrite(package, content, **{"labels.json": packed})
    with pytest.raises(ModelError, match="is compressed"):
        open_source(package)
    link = zipfile.ZipInfo("labels.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    rewrite(package, content, **{"labels.json": link})
    with pytest.raises(ModelError, match="no plain file"):
        open_source(package)
    rewrite(package, content)
    with zipfile.ZipFile(package, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(zipfile.ZipInfo("labels.json"), b"{}")
    with pytest.raises(ModelError, match="one name"):
        open_source(package)


def test_a_size_that_lies_is_refused(package: Path) -> None:
    """The list of the zip claims four gigabytes for a member of a few kilobytes."""
    raw = bytearray(package.read_bytes())
    name = b"fold0/model.safetensors"
    at = raw.rindex(name)  # the central directory comes last
    sizes = at - 46 + 20
    raw[sizes : sizes + 8] = (0xF0000000).to_bytes(4, "little") * 2
    package.write_bytes(bytes(raw))
    with pytest.raises(ModelError, match="more bytes than the file has"):
        open_source(package)


def test_changed_weights_are_told_when_they_are_read(package: Path) -> None:
    content = members(package)
    weights = bytearray(content["fold1/model.safetensors"])
    weights[-1] ^= 1
    rewrite(package, {**content, "fold1/model.safetensors": bytes(weights)})
    source = open_source(package)
    load(source.models[0])
    with pytest.raises(ModelError, match=r"'fold1/model\.safetensors' was changed"):
        load(source.models[1])
    raw = package.read_bytes()
    package.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ModelError, match="cannot be read"):
        open_source(package)
    package.write_bytes(b"no zip at all")
    with pytest.raises(ModelError, match="cannot be read"):
        open_source(package)


def test_a_recipe_that_asks_for_more_than_its_weights_have_is_refused_before_memory_is_given(package: Path) -> None:
    content = members(package)
    recipe = json.loads(content["fold0/recipe.json"])
    recipe["network"]["features"] = [1 << 16, 1 << 17]  # 10 TB of weights
    rewrite(package, relisted({**content, "fold0/recipe.json": json.dumps(recipe).encode()}))
    with pytest.raises(ModelError, match=r"larger than its weights|cannot be built"):
        load(open_source(package).models[0])


def test_a_folder_without_model_is_told(tmp_path: Path, run: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(ModelError, match="no trained model is there"):
            open_source(path)
    shutil.rmtree(run / "train-fold1-0a1b2c3d")
    assert len(open_source(run).models) == 1


def test_fields_that_a_later_version_adds_make_no_other_model(run: Path, tmp_path: Path) -> None:
    before = open_source(run).identity
    result = run / "train-fold0-0a1b2c3d" / "result.json"
    tree = json.loads(result.read_text())
    tree["record"]["recipe"].pop("seen")  # as if it had been written before there was such a field
    result.write_text(json.dumps(tree))
    older = open_source(run).identity
    assert older != before
    pack(run, tmp_path / "older.zip")
    assert open_source(tmp_path / "older.zip").identity == older
