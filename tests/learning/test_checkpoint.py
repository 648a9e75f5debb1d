"""A checkpoint is whole or absent, and a damaged one costs no more than the steps since the one before."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.learning import checkpoint as checkpoint_module
from pipeline.learning.checkpoint import Checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint


def made(step: int, *, is_planned: bool = True, value: float | None = None) -> Checkpoint:
    tensors = {
        "a": torch.full((3, 4), step if value is None else value),
        "b.step": torch.tensor(step),
        "half": torch.ones(2).bfloat16(),
    }
    return Checkpoint(step, is_planned, {"losses": [0.1, 1 / 3, 1e-300], "best": {}, "note": None}, tensors)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("*.json"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def test_comes_back_to_the_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(7))
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert (found.step, found.is_planned, found.state) == (7, True, made(7).state)
    for name, tensor in made(7).tensors.items():
        assert torch.equal(found.tensors[name], tensor)
        assert found.tensors[name].dtype == tensor.dtype


def test_none_before_the_first(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "absent") is None


def test_the_newest_and_two_planned_ones_stay(tmp_path: Path) -> None:
    for step, is_planned in [(5, True), (10, True), (12, False), (15, True), (16, False), (18, False)]:
        save_checkpoint(tmp_path, made(step, is_planned=is_planned))
    assert steps(tmp_path) == [10, 15, 18]
    assert len(list(tmp_path.iterdir())) == 6
    newest, planned = load_checkpoint(tmp_path), load_checkpoint(tmp_path, only_planned=True)
    assert newest is not None
    assert planned is not None
    assert (newest.step, planned.step) == (18, 15)


def test_one_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(5))
    save_checkpoint(tmp_path, made(5, value=9.0))
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert float(found.tensors["a"][0, 0]) == 9.0
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("moment", ["write_tensors", "write_json", "remove_checkpoints"])
def test_a_kill_between_any_two_writes_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    save_checkpoint(tmp_path, made(5))

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_module, moment, killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, made(10))
    monkeypatch.undo()
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == (10 if moment == "remove_checkpoints" else 5)
    save_checkpoint(tmp_path, made(15))
    assert len(list(tmp_path.glob("*.safetensors"))) == len(steps(tmp_path)), "what the kill left is cleared away"


@pytest.mark.parametrize("what", ["*.safetensors", "*.json"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    save_checkpoint(tmp_path, made(5))
    save_checkpoint(tmp_path, made(10))
    newest = max(tmp_path.glob(what))
    newest.write_bytes(newest.read_bytes()[:40])
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 5
    assert "passed over" in caplog.text


def test_one_flipped_bit_is_damage(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(5))
    damage(next(tmp_path.glob("*.safetensors")))
    with pytest.raises(ModelError, match=r"every checkpoint is damaged: .*sha256.*Remove this folder"):
        load_checkpoint(tmp_path)


def test_remove_by_step(tmp_path: Path) -> None:
    for step in (5, 10):
        save_checkpoint(tmp_path, made(step))
    remove_checkpoints(tmp_path, lambda step: step > 5)
    assert steps(tmp_path) == [5]
    remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_changed_number_in_the_state_is_damage(tmp_path: Path) -> None:
    for step in (5, 10):
        save_checkpoint(tmp_path, made(step))
    note = tmp_path / "step-00000010.json"
    note.write_text(note.read_text().replace("0.1,", "0.7,"))
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 5


def test_a_state_without_its_hash_is_taken(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, made(5))
    note = tmp_path / "step-00000005.json"
    content = json.loads(note.read_text())
    del content["state_sha256"]
    note.write_text(json.dumps(content))
    assert load_checkpoint(tmp_path) is not None
