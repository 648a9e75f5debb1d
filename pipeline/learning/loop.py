"""The training loop: steps, epochs, validation, checkpoints; stopped anywhere, it goes on as if it had not been."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.errors import ConfigError, ModelError, StoppedError, plural
from pipeline.learning.budget import TIMED_STEPS, Costs, planned_steps, read_budget, write_budget
from pipeline.learning.checkpoint import Checkpoint, load_checkpoint, remove_checkpoints, save_checkpoint
from pipeline.learning.interrupts import Interrupts, interrupted
from pipeline.learning.learner import Forward, Learner, Update
from pipeline.learning.options import TrainOptions
from pipeline.learning.precision import seed_torch
from pipeline.learning.state import TrainOutcome, TrainState, environment
from pipeline.learning.tracking import Row, Stopwatch, Tracker, finite, live_note
from pipeline.learning.weights import read_tensors, save_weights
from pipeline.progress import Bar, Progress
from pipeline.workspace import remove_leftovers

log = logging.getLogger(__name__)

SECONDS_BETWEEN_SAVES = 600.0
"""Within a long epoch a checkpoint is made this often."""
SECONDS_BETWEEN_NOTES = 0.5
MOST_HALVINGS = 5


class Batch(Protocol):
    """What the loop itself reads of a batch: to count its patches, and to name them."""

    @property
    def draws(self) -> Sequence[object]:
        """One a patch; its text says which case and place it is."""


B = TypeVar("B", bound=Batch)

Validate = Callable[[nn.Module], Mapping[str, float]]
"""Network in evaluation mode -> figures by name."""
Pictures = Callable[[nn.Module], Mapping[str, NDArray[np.uint8]]]
"""Network in evaluation mode -> pictures (height, width, 3) by name."""


def fit(
    module: nn.Module,
    batches: Callable[[int], B],
    loss_of: Callable[[Forward, B], Tensor],
    options: TrainOptions,
    *,
    seed: int,
    folder: Path,
    device: torch.device,
    validate: Validate | None = None,
    pictures: Pictures | None = None,
    progress: Progress | None = None,
    tensorboard: bool = False,
) -> TrainOutcome:
    """Train a network, going on from the checkpoint in `folder` where there is one.

    Args:
        module: Network with its first weights (see `seed_torch`); trained in place.
        batches: Batch by number, from 0; a pure function of it, or a resume is not exact. Asked in order, except
            after a divergence with `lower_rate`, when it goes back.
        loss_of: (forward, batch) -> scalar loss on the device, where `forward(images)` applies the network.
        options: Of the training.
        seed: Of the run; with the step it fixes dropout.
        folder: Owned by this training. Holds checkpoints/, history.csv, history.jsonl, speed.csv, best.safetensors,
            last.safetensors, and budget.json where minutes were given. A file `stop` put there ends the
            training in good order after the step in hand.
        device: Where to compute.
        validate: Without gradients; the figure that `options.score` names chooses the best weights, higher is
            better. None where no case is left for validation.
        pictures: For TensorBoard, after each validation.
        progress: Shows the live line.
        tensorboard: Write event files too.

    Returns:
        Where the weights lie, and how it went.

    Raises:
        StoppedError: the loss diverged, or memory ran out; the last checkpoint stays.
        Interrupted: SIGINT or SIGTERM came; the step in hand was finished and saved.
        ModelError: every checkpoint is damaged, or the network cannot be trained as asked.
        ConfigError: an option does not suit the network or the validation.
    """
    learner = Learner(module, loss_of, options, device)
    training = _Training(learner, batches, seed, folder)
    training.validate, training.pictures, training.progress = validate, pictures, progress or Progress()
    training.resume()
    training.tracker = Tracker(folder, tensorboard=tensorboard, step=training.state.step)
    try:
        with training.interrupts:
            outcome = training.run()
        if training.interrupts.noted:  # it came while the last files were written: all is saved
            raise interrupted(training.interrupts.noted)
        return outcome
    finally:
        training.tracker.close()


class _Training(Generic[B]):
    validate: Validate | None
    pictures: Pictures | None
    progress: Progress
    tracker: Tracker

    def __init__(self, learner: Learner[B], batches: Callable[[int], B], seed: int, folder: Path) -> None:
        self.learner, self.batches, self.seed, options = learner, batches, seed, learner.options
        self.options, self.folder, self.checkpoints = options, folder, folder / "checkpoints"
        self.state, self.watch, self.interrupts = TrainState(), Stopwatch(), Interrupts()
        self.started = self.saved_at = self.noted_at = time.monotonic()
        self.step_seconds: list[float] = []
        most = options.most_steps
        self.is_timed = options.max_minutes is not None and (most is None or most > TIMED_STEPS)
        self.total = None if self.is_timed else most
        """Steps of the whole training; None until the first ones have been timed."""

    def run(self) -> TrainOutcome:
        """Train to the end."""
        if self.state.step == 0 and self.options.on_divergence == "lower_rate":
            self._save()
        if self.total is None:
            self._advance(TIMED_STEPS, "train, first steps")
            self.total = self._plan()
        self._advance(self.total, "train")
        return self._finish()

    def _advance(self, limit: int, what: str) -> None:
        """Take steps until `limit` are done, closing each epoch as it is over."""
        with self.progress.bar(limit, what, done=self.state.step) as bar:
            while True:
                if self._epoch_is_over():
                    self._close_epoch()
                if self.state.step >= limit or self.state.ended:
                    return
                self._step(bar)

    def _step(self, bar: Bar) -> None:
        """Take one step, note what it was like, heed what came meanwhile."""
        state, count, began = self.state, self.options.accumulate, time.monotonic()
        with self.watch.timing("data"):
            found = [self.batches(state.step * count + number) for number in range(count)]
        seed_torch(self.seed, state.step)
        factor = self._rate_factor(state.step)
        with self.watch.timing("update"):
            update = self.learner.update(found, factor, state.step)
        if self._has_diverged(update):
            self._go_back(update, found)
            bar.advance(self.state.step - state.step)
            return
        state.count_step(update.loss, update.gradient_norm, self.options.optimizer.rate * factor)
        self.watch.patches += sum(len(batch.draws) for batch in found)
        self.step_seconds = [*self.step_seconds[1 - TIMED_STEPS :], time.monotonic() - began]
        bar.advance(1, self._live_note())
        self._heed_requests()

    def _close_epoch(self) -> None:
        """Save, validate, keep the best weights, write the tables."""
        state, number = self.state, self.state.epoch + 1
        if self._is_planned_save(number):
            self._save()
        row = state.epoch_row()
        if self.validate and self._is_validated(number):
            row |= self._validate(self.validate, number)
        state.close_epoch(row, self.watch.row(number, self.learner.device))
        self.watch.reset()
        self.tracker.write(state.history, state.speed)
        if self.options.keep_every and number % self.options.keep_every == 0:
            save_weights(self.learner.best_module, self.folder / "kept" / f"epoch-{number:05d}.safetensors")

    def _finish(self) -> TrainOutcome:
        """Write the last weights and one last checkpoint, so that calling again does nothing more."""
        state, last, best = self.state, self.folder / "last.safetensors", self.folder / "best.safetensors"
        state.ended = state.ended or "steps"
        save_weights(self.learner.best_module, last)
        self._save()
        remove_checkpoints(self.checkpoints, lambda step: step != state.step)
        if state.best:
            read_tensors(best, sha256=state.best["sha256"])  # found damaged now rather than when it is needed
        return TrainOutcome(
            best_weights=best if state.best else last,
            last_weights=last,
            best_epoch=state.best.get("epoch", state.epoch),
            best_score=state.best.get("score"),
            epochs=state.epoch,
            steps=state.step,
            seconds=math.fsum(row["seconds"] or 0.0 for row in state.speed),
            ended=state.ended,
            precision=self.learner.precision,
            halvings=state.halvings,
            environments=tuple(state.environments),
            history=tuple(state.history),
        )

    def _rate_factor(self, step: int) -> float:
        """Return the share of the optimiser's rate at a step."""
        # In the timed steps the length counts as unknown, also where a resume knows it by now.
        total = None if self.is_timed and step < TIMED_STEPS else self.total
        return self.options.schedule.factor(step, total) * 0.5**self.state.halvings

    def _epoch_is_over(self) -> bool:
        steps = len(self.state.losses)
        return steps == self.options.steps_per_epoch or (steps > 0 and self._is_last_step())

    def _is_last_step(self) -> bool:
        return bool(self.state.ended) or (self.total is not None and self.state.step >= self.total)

    def _is_validated(self, epoch: int) -> bool:
        return epoch % self.options.validate_every == 0 or self._is_last_step()

    def _is_planned_save(self, epoch: int) -> bool:
        return epoch % self.options.save_every == 0 or (self.validate is not None and self._is_validated(epoch))

    def _validate(self, validate: Validate, epoch: int) -> Row:
        """Validate, and keep the weights where they are the best so far."""
        network, score = self.learner.best_module.eval(), self.options.score
        # The epoch is saved, so a signal need not wait. No inference_mode: a network that caches tensors would
        # keep some that cannot be trained with.
        with self.watch.timing("validation"), self.interrupts.at_once(), torch.no_grad():
            figures = {name: finite(value) for name, value in validate(network).items()}
            if self.pictures and self.tracker.shows_pictures:
                self.tracker.write_pictures(self.state.step, self.pictures(network))
        if score not in figures:
            known = ", ".join(figures) or "nothing"
            raise ConfigError(f"train.score: the validation gave no {score!r}; it gave {known}. Name one of these.")
        self._keep_best(epoch, network, figures[score])
        return dict(figures)

    def _keep_best(self, epoch: int, network: nn.Module, score: float | None) -> None:
        state, patience = self.state, self.options.patience
        if score is not None and (not state.best or score > state.best["score"]):
            digest = save_weights(network, self.folder / "best.safetensors")
            state.best = {"epoch": epoch, "score": score, "sha256": digest}
        elif patience and state.best and epoch - state.best["epoch"] >= patience:
            state.ended = state.ended or ("steps" if self._is_last_step() else "plateau")

    def _live_note(self) -> str:
        """Return the live figures now and then, else nothing: they cost more than a small step."""
        if time.monotonic() - self.noted_at < SECONDS_BETWEEN_NOTES:
            return ""
        self.noted_at = time.monotonic()
        loss, score = statistics.fmean(self.state.losses[-20:]), self.options.score
        scores = [row[score] for row in self.state.history if score in row]
        return live_note(self.watch, self.learner.device, loss, score, scores[-1] if scores else None)

    def _heed_requests(self) -> None:
        """Save and end on a signal; end in good order on a stop file; save after a long while."""
        if self.interrupts.noted:
            self._save()
            raise interrupted(self.interrupts.noted)
        if (self.folder / "stop").exists():
            self.state.ended = "stop file"
        elif time.monotonic() - self.saved_at > SECONDS_BETWEEN_SAVES:
            self._save()

    def _plan(self) -> int:
        """Turn the minutes into a number of steps, once: it is written down before the next step."""
        options, most = self.options, self.options.most_steps
        if self.state.ended or options.max_minutes is None:
            return self.state.step
        validation = checkpoint = time.monotonic()
        if self.validate:
            with self.interrupts.at_once(), torch.no_grad():
                self.validate(self.learner.best_module.eval())
            checkpoint = time.monotonic()
        self._save()
        now = time.monotonic()
        costs = Costs(self.step_seconds, now - self.started, checkpoint - validation, now - checkpoint)
        total = planned_steps(
            costs,
            minutes=options.max_minutes,
            validation_period=options.validate_every * options.steps_per_epoch,
            checkpoint_period=options.save_every * options.steps_per_epoch,
        )
        total = total if most is None else min(total, most)
        write_budget(self.folder / "budget.json", total, costs, options.max_minutes)
        self.progress.say(f"train: {total} steps, to fit into {options.max_minutes:g} minutes")
        return total

    def resume(self) -> None:
        """Go to the newest checkpoint, where there is one."""
        remove_leftovers(self.folder)
        remove_leftovers(self.checkpoints)
        if self.is_timed:
            self.total = read_budget(self.folder / "budget.json")
            if self.total is None:  # ended within the timed steps: they are done again
                remove_checkpoints(self.checkpoints)
        found = load_checkpoint(self.checkpoints)
        if found is not None:
            self._restore(found)
            self.progress.say(f"train: going on after step {self.state.step}")
        here, before = environment(self.learner.device, self.learner.precision), self.state.environments
        if before and here not in before:
            log.warning("train: begun under %s, resumed under %s: the last bits may differ", "; ".join(before), here)
        self.state.environments = [*before, *({here} - set(before))]

    def _save(self) -> None:
        with self.watch.timing("checkpoint"):
            state, epoch = self.state, self.state.epoch + 1
            planned = state.step == 0 or (self._epoch_is_over() and self._is_planned_save(epoch))
            save_checkpoint(self.checkpoints, Checkpoint(state.step, planned, state.to_json(), self.learner.tensors()))
        self.saved_at = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.learner.load(checkpoint.tensors)
        self.state = TrainState.from_json(checkpoint.state)
        self.watch.reset()
        if self.state.best:
            try:
                read_tensors(self.folder / "best.safetensors", sha256=self.state.best["sha256"])
            except ModelError:
                self.state.best = {}  # written anew after this checkpoint: the next validation decides again

    def _has_diverged(self, update: Update) -> bool:
        limit = self.options.explosion * max(1.0, abs(self.state.first_loss)) if self.state.step else math.inf
        bad_norm = not math.isfinite(update.gradient_norm) and not update.overflowed
        return not math.isfinite(update.loss) or bad_norm or abs(update.loss) > limit

    def _go_back(self, update: Update, found: Sequence[B]) -> None:
        """Return to the last planned checkpoint with half the rate where that is wanted, else stop."""
        draws = [str(draw) for batch in found for draw in batch.draws]
        message = (
            f"train: diverged at step {self.state.step + 1} (loss {update.loss:g}, gradient {update.gradient_norm:g}), "
            f"trained on {plural(len(draws), 'patch')}:"
        ) + "".join(f"\n  {number}. {draw}" for number, draw in enumerate(draws, 1))
        halvings, environments = self.state.halvings + 1, self.state.environments
        back = load_checkpoint(self.checkpoints, only_planned=True)
        if self.options.on_divergence == "stop" or halvings > MOST_HALVINGS or back is None:
            raise StoppedError(
                f"{message}\nThe last checkpoint is kept. Look at these patches; then lower train.optimizer.rate, or "
                "set train.on_divergence to lower_rate."
            )
        log.warning("%s\nGoing back to step %d with half the rate.", message, back.step)
        remove_checkpoints(self.checkpoints, lambda step: step > back.step)
        self._restore(back)
        self.state.halvings, self.state.environments = halvings, environments
        self._save()
