"""The loop on a network of a few weights: what it leaves, how it stops, and that it goes on to the bit.

Run as a program it is the training that the test of kills kills.
"""

import csv
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, Interrupted, StoppedError
from pipeline.learning import loop as loop_module
from pipeline.learning.learner import Forward
from pipeline.learning.loop import fit
from pipeline.learning.options import TrainOptions
from pipeline.learning.precision import seed_torch
from pipeline.learning.state import TrainOutcome
from pipeline.learning.weights import load_weights, read_tensors

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Batch:
    image: Tensor
    truth: Tensor
    draws: tuple[str, ...]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads only get into each other's way with so few voxels."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_batch(number: int) -> Batch:
    random_numbers = torch.Generator().manual_seed(number)
    image = torch.randn(2, 1, 4, 6, 6, generator=random_numbers)
    return Batch(image, (image[:, 0] > 0.3).long(), tuple(f"case c{number % 7}, row {row}" for row in range(2)))


def make_network() -> nn.Module:
    seed_torch(3)
    return nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.LeakyReLU(), nn.Dropout3d(0.2), nn.Conv3d(4, 2, 1)
    )


def loss_of(forward: Forward, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(forward(batch.image), batch.truth)


def accuracy(network: nn.Module) -> dict[str, float]:
    assert not network.training
    assert not torch.is_grad_enabled()
    batch = make_batch(10**6)
    return {"dice": float((network(batch.image).argmax(1) == batch.truth).float().mean()), "other": 1.0}


def train(folder: Path, batches: Callable[[int], Batch] = make_batch, **options: Any) -> TrainOutcome:
    arguments = {name: options.pop(name) for name in ("validate", "tensorboard", "loss_of") if name in options}
    chosen = {"epochs": 4, "steps_per_epoch": 5, "validate_every": 2, "precision": "fp32", "ema": 0.9} | options
    arguments = {"validate": accuracy, "loss_of": loss_of} | arguments
    loss = arguments.pop("loss_of")
    return fit(make_network(), batches, loss, TrainOptions(**chosen), seed=5, folder=folder, device=CPU, **arguments)


def fingerprint(folder: Path) -> dict[str, Any]:
    """All that must be equal in each repetition; the name of the last checkpoint's tensors is their hash."""
    checkpoint = next((folder / "checkpoints").glob("*.safetensors")).name
    tables = [(folder / name).read_text() for name in ("history.csv", "history.jsonl")]
    best = (folder / "best.safetensors").read_bytes() if (folder / "best.safetensors").exists() else b""
    return {
        "checkpoint": checkpoint,
        "tables": tables,
        "best": best,
        "last": (folder / "last.safetensors").read_bytes(),
    }


def stopping_at(step: int, act: Callable[[], Any]) -> Callable[[int], Batch]:
    """Return batches that do something just before those of a step."""

    def batches(number: int) -> Batch:
        if number == step:
            act()
        return make_batch(number)

    return batches


def signalled(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_learns_and_leaves_weights_history_and_one_checkpoint(tmp_path: Path) -> None:
    outcome = train(tmp_path, epochs=30, ema=None, optimizer={"name": "adamw", "rate": 0.03})

    rows = list(csv.DictReader((tmp_path / "history.csv").open()))
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [int(row["epoch"]) for row in rows] == [line["epoch"] for line in lines] == list(range(1, 31))
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert [bool(row["dice"]) for row in rows[:4]] == [False, True, False, True]
    assert outcome.best_score == max(float(row["dice"]) for row in rows if row["dice"])
    assert (outcome.epochs, outcome.steps, outcome.ended, outcome.precision) == (30, 150, "steps", "fp32")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2
    speed = list(csv.DictReader((tmp_path / "speed.csv").open()))
    assert len(speed) == 30
    assert all(float(row["patches_per_second"]) > 0 for row in speed)

    network = make_network()
    load_weights(network, outcome.best_weights)
    with torch.no_grad():
        assert accuracy(network.eval())["dice"] == outcome.best_score


def test_repetition_gives_equal_bits_and_another_seed_does_not(tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(tmp_path / name)
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    fit(
        make_network(), make_batch, loss_of, TrainOptions(epochs=4, steps_per_epoch=5, precision="fp32", ema=0.9),
        seed=6, folder=tmp_path / "c", device=CPU,
    )  # fmt: skip
    assert fingerprint(tmp_path / "a")["last"] != fingerprint(tmp_path / "c")["last"], "dropout follows the seed"


def test_calling_again_does_nothing_more(tmp_path: Path) -> None:
    first = train(tmp_path)
    before = fingerprint(tmp_path)
    again = train(tmp_path, stopping_at(0, lambda: pytest.fail("a batch was asked for")))
    assert fingerprint(tmp_path) == before
    assert again == first


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", [0, 7, 9, 19])
def test_signal_finishes_the_step_and_the_resume_is_exact(tmp_path: Path, number: int, code: int, step: int) -> None:
    train(tmp_path / "undisturbed")
    handler = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped:
        train(tmp_path / "stopped", stopping_at(step, signalled(number)))
    assert stopped.value.exit_code == code
    assert signal.getsignal(number) is handler
    assert (
        json.loads((tmp_path / "stopped" / "checkpoints" / f"step-{step + 1:08d}.json").read_text())["step"] == step + 1
    )
    train(tmp_path / "stopped", stopping_at(step, lambda: pytest.fail("a step was done twice")))
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "undisturbed")


def test_signal_ends_a_validation_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    train(tmp_path / "undisturbed")

    def long_validation(network: nn.Module) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        pytest.fail("the validation went on")

    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", validate=long_validation)
    train(tmp_path / "stopped", stopping_at(9, lambda: pytest.fail("a step was done twice")))
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "undisturbed")


def test_signal_after_the_last_step_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "undisturbed")
    true = loop_module.remove_checkpoints

    def disturbed(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        true(*arguments)

    monkeypatch.setattr(loop_module, "remove_checkpoints", disturbed)
    with pytest.raises(Interrupted) as stopped:
        train(tmp_path / "stopped")
    monkeypatch.undo()
    assert stopped.value.exit_code == 143
    train(tmp_path / "stopped", stopping_at(0, lambda: pytest.fail("a batch was asked for")))
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "undisturbed")


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd"},
        {"accumulate": 2, "gradient_clip": 0.1},
        {"precision": "bf16", "ema": None},
        {"precision": "fp16", "explosion": 1e9},
        {"channels_last": False},
        {"schedule": {"name": "cosine", "warmup_steps": 4}, "save_every": 3},
        {"freeze": ("0.*", "1.*")},
    ],
    ids=str,
)
def test_resume_is_exact_with_every_option(tmp_path: Path, options: dict[str, Any]) -> None:
    train(tmp_path / "undisturbed", **options)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", stopping_at(7, signalled(signal.SIGTERM)), **options)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", stopping_at(16, signalled(signal.SIGTERM)), **options)
    train(tmp_path / "stopped", **options)
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "undisturbed")


def test_damaged_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path / "undisturbed")
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", stopping_at(17, signalled(signal.SIGTERM)))
    newest = max((tmp_path / "stopped" / "checkpoints").glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[-3] ^= 1
    newest.write_bytes(content)
    train(tmp_path / "stopped")
    assert "passed over" in caplog.text
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "undisturbed")


def test_stop_file_ends_in_good_order(tmp_path: Path) -> None:
    outcome = train(tmp_path, stopping_at(11, (tmp_path / "stop").touch))
    assert (outcome.ended, outcome.steps, outcome.epochs) == ("stop file", 12, 3)
    assert "dice" in outcome.history[-1], "what it has at the end is validated"
    assert train(tmp_path).steps == 12


def test_early_stopping_keeps_the_best(tmp_path: Path) -> None:
    scores = iter([0.5, 0.7, 0.6, float("nan"), 0.7, 0.9])
    outcome = train(tmp_path, epochs=20, validate_every=1, patience=3, validate=lambda network: {"dice": next(scores)})
    assert (outcome.ended, outcome.epochs, outcome.best_epoch, outcome.best_score) == ("plateau", 5, 2, 0.7)
    assert outcome.history[3]["dice"] is None
    assert json.loads((tmp_path / "history.jsonl").read_text().splitlines()[3])["dice"] is None


def test_without_validation_the_last_weights_are_the_best(tmp_path: Path) -> None:
    outcome = train(tmp_path, validate=None)
    assert outcome.best_weights == outcome.last_weights
    assert (outcome.best_epoch, outcome.best_score) == (4, None)


def test_mean_weights_are_what_is_validated_and_saved(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def validate(network: nn.Module) -> dict[str, float]:
        seen.append(next(network.parameters()).clone())
        return {"dice": 0.0}

    outcome = train(tmp_path, epochs=1, validate=validate)
    checkpoint = read_tensors(next((tmp_path / "checkpoints").glob("*.safetensors")))
    last = read_tensors(outcome.last_weights)["0.weight"]
    assert torch.equal(last, seen[-1])
    assert torch.equal(last, checkpoint["mean.0.weight"])
    assert not torch.equal(last, checkpoint["module.0.weight"])


def test_unknown_score_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gave no 'auroc'; it gave dice, other"):
        train(tmp_path, score="auroc")


def poisoned(step: int, value: float) -> Callable[[int], Batch]:
    def batches(number: int) -> Batch:
        batch = make_batch(number)
        return Batch(torch.full_like(batch.image, value), batch.truth, batch.draws) if number == step else batch

    return batches


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_divergence_names_the_patches_and_keeps_the_last_checkpoint(tmp_path: Path, value: float) -> None:
    with pytest.raises(
        StoppedError, match=r"step 13 \(loss .*\n  1. case c5, row 0\n  2. case c5, row 1\n.*lower"
    ) as found:
        train(tmp_path, poisoned(12, value))
    assert found.value.exit_code == 3
    train(tmp_path / "undisturbed")
    train(tmp_path)  # with the patch mended it goes on
    assert fingerprint(tmp_path) == fingerprint(tmp_path / "undisturbed")


def test_exploding_loss_is_a_divergence(tmp_path: Path) -> None:
    factor = iter([1.0] * 8 + [1e6])
    with pytest.raises(StoppedError, match="step 9 "):
        train(tmp_path, loss_of=lambda forward, batch: loss_of(forward, batch) * next(factor))


def test_an_endless_gradient_is_a_divergence_where_the_loss_is_finite(tmp_path: Path) -> None:
    def loss(forward: Forward, batch: Batch) -> Tensor:
        logits = forward(batch.image)
        return (logits - logits.detach()).sum().abs().sqrt() + logits.square().mean()  # sqrt(0) is endlessly steep

    with pytest.raises(StoppedError, match=r"step 1 \(loss .*, gradient nan\)"):
        train(tmp_path, loss_of=loss)


def test_lower_rate_goes_back_and_on_also_when_interrupted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def diverging(forward: Forward, batch: Batch) -> Tensor:
        # Blows up at one patch until the rate was halved twice; only the loop's own state knows how often.
        bad = batch.draws[0] == "case c5, row 0" and rates[-1] > 0.4e-3
        return loss_of(forward, batch) * (float("nan") if bad else 1.0)

    rates: list[float] = []
    true_factor = loop_module._Training._rate_factor

    def noted(self: Any, step: int) -> float:
        rates.append(1e-3 * true_factor(self, step))
        return rates[-1] / 1e-3

    options: dict[str, Any] = {"on_divergence": "lower_rate", "loss_of": diverging, "schedule": "constant", "epochs": 6}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module._Training, "_rate_factor", noted)
        outcome = train(tmp_path / "undisturbed", **options)
        assert (outcome.steps, outcome.halvings) == (30, 2)
        assert [row["epoch"] for row in outcome.history] == [1, 2, 3, 4, 5, 6]
        assert "Going back to step 5 with half the rate" in caplog.text
        assert "Going back to step 0 with half the rate" not in caplog.text
        with pytest.raises(Interrupted):
            train(tmp_path / "stopped", stopping_at(3, signalled(signal.SIGTERM)), **options)
        with pytest.raises(Interrupted):
            train(tmp_path / "stopped", stopping_at(8, signalled(signal.SIGTERM)), **options)
        train(tmp_path / "stopped", **options)
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "undisturbed")


def test_history_names_the_rate_that_was_used(tmp_path: Path) -> None:
    bad = iter([False] * 12 + [True] + [False] * 30)

    def diverging(forward: Forward, batch: Batch) -> Tensor:
        return loss_of(forward, batch) * (float("nan") if next(bad) else 1.0)

    outcome = train(
        tmp_path, on_divergence="lower_rate", loss_of=diverging, schedule="constant",
        optimizer={"name": "adamw", "rate": 0.01},
    )  # fmt: skip
    assert outcome.halvings == 1
    assert [row["rate"] for row in outcome.history] == [0.01, 0.01, 0.005, 0.005]


def test_a_resume_elsewhere_is_still_known_after_going_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"on_divergence": "lower_rate"}
    with pytest.raises(Interrupted):
        train(tmp_path, stopping_at(7, signalled(signal.SIGTERM)), **options)
    monkeypatch.setattr(loop_module, "environment", lambda *_: "another machine")
    bad = iter([True])
    outcome = train(
        tmp_path, loss_of=lambda forward, batch: loss_of(forward, batch) * (float("nan") if next(bad, False) else 1.0),
        **options,
    )  # fmt: skip
    assert outcome.halvings == 1
    assert outcome.environments[1:] == ("another machine",)


def test_lower_rate_gives_up_at_last(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="step 3 "):
        train(tmp_path, poisoned(2, float("nan")), on_divergence="lower_rate")


def test_minutes_become_steps_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "planned_steps", lambda costs, **kinds: len(costs.steps) + 13)
    minutes = {"max_minutes": 1.0, "epochs": None}
    outcome = train(tmp_path / "undisturbed", **minutes)
    assert (outcome.steps, outcome.epochs) == (33, 7)
    assert json.loads((tmp_path / "undisturbed" / "budget.json").read_text())["steps"] == 33

    monkeypatch.setattr(loop_module, "planned_steps", lambda costs, **kinds: 33)
    with pytest.raises(Interrupted):  # before the length is fixed: begun anew
        train(tmp_path / "stopped", stopping_at(11, signalled(signal.SIGTERM)), **minutes)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", stopping_at(24, signalled(signal.SIGTERM)), **minutes)
    monkeypatch.setattr(loop_module, "planned_steps", lambda costs, **kinds: pytest.fail("measured again"))
    train(tmp_path / "stopped", **minutes)
    assert fingerprint(tmp_path / "stopped") == fingerprint(tmp_path / "undisturbed")


@pytest.mark.slow
def test_minutes_hold(tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = train(
        tmp_path,
        lambda number: (time.sleep(0.01), make_batch(number))[1],
        validate=lambda network: (time.sleep(0.1), {"dice": 0.5})[1],
        max_minutes=0.05, epochs=None, steps_per_epoch=10, validate_every=1,
    )  # fmt: skip
    assert outcome.ended == "steps"
    assert 2.0 < time.monotonic() - began < 60  # 3 s, were nothing else running


def test_minutes_never_lengthen_the_epochs(tmp_path: Path) -> None:
    assert train(tmp_path / "a", max_minutes=0.5, epochs=2).steps == 10
    assert train(tmp_path / "b", max_minutes=0.5, epochs=5).steps == 25


def test_resume_elsewhere_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, stopping_at(3, signalled(signal.SIGTERM)))
    monkeypatch.setattr(loop_module, "environment", lambda *_: "another machine")
    outcome = train(tmp_path)
    assert "resumed under another machine" in caplog.text
    assert len(outcome.environments) == 2


def test_weights_are_kept_every_n_epochs(tmp_path: Path) -> None:
    train(tmp_path, keep_every=2)
    assert sorted(file.name for file in (tmp_path / "kept").iterdir()) == [
        "epoch-00002.safetensors",
        "epoch-00004.safetensors",
    ]


def test_checkpoint_within_a_long_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "SECONDS_BETWEEN_SAVES", 0.0)

    def killed(number: int) -> Batch:
        if number == 3:
            raise KeyError
        return make_batch(number)

    with pytest.raises(KeyError):
        train(tmp_path, killed)
    assert (tmp_path / "checkpoints" / "step-00000003.json").exists()


@pytest.mark.slow
def test_three_kills_leave_no_trace(tmp_path: Path) -> None:
    """SIGKILL at random moments, saves included; see `main`."""
    program = [
        sys.executable,
        __file__,
        str(tmp_path),
        "--kills",
        "3",
        "--seed",
        str(random.SystemRandom().randrange(10**6)),
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        program,
        check=False,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report) == 3, report
    assert fingerprint(tmp_path / "killed") == fingerprint(tmp_path / "undisturbed"), (program, report)


def main(folder: Path, kills: int, seed: int) -> None:
    """Train undisturbed, then again with kills; each training is a fork, so torch is imported once.

    A kill comes up to 30 ms after the first batch from its step on was asked for, so that later steps and the writing
    of checkpoints are hit too. Steps are left behind the last one, so that it cannot come too late.
    """
    torch.set_num_threads(1)
    logging.disable()
    steps = STEPS_A_KILL * kills + 100
    assert os.waitpid(_fork_training(folder / "undisturbed", steps), 0)[1] == 0
    draws, report = random.Random(seed), []
    for number in range(kills):
        step, delay = number * STEPS_A_KILL + draws.randrange(STEPS_A_KILL), draws.uniform(0, 0.03)
        status = os.waitpid(_fork_training(folder / "killed", steps, step, delay), 0)[1]
        saved = sorted(path.stem for path in (folder / "killed" / "checkpoints").glob("*.json"))
        left = len(list((folder / "killed").rglob(".tmp-*")))
        kill = {"step": step, "delay": round(delay, 4), "checkpoint": saved[-1:], "half_written": left}
        report += [kill] if os.WIFSIGNALED(status) else []
    assert os.waitpid(_fork_training(folder / "killed", steps), 0)[1] == 0
    json.dump(report, sys.stdout)


STEPS_A_KILL = 20


def _fork_training(folder: Path, steps: int, kill_step: int = -1, delay: float = 0.0) -> int:
    def kill() -> None:
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    killers: list[threading.Thread] = []

    def batches(number: int) -> Batch:
        if 0 <= kill_step <= number and not killers:
            killers.append(threading.Thread(target=kill))
            killers[0].start()
        return make_batch(number)

    child = os.fork()
    if child == 0:
        try:
            train(folder, batches, epochs=steps // 5, precision="auto")
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    return child


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    main(given.folder, given.kills, given.seed)
