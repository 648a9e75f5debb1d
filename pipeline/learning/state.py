"""What a training remembers beside its tensors, and what it leaves when it is done."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

from pipeline.learning.tracking import Row, finite


@dataclass
class TrainState:
    """The JSON-able part of a checkpoint."""

    step: int = 0
    """Steps done."""
    epoch: int = 0
    """Epochs closed: validated where that was due, with a row in the history."""
    losses: list[float] = field(default_factory=list)
    """Of the steps of the epoch in hand."""
    norms: list[float] = field(default_factory=list)
    """Of their gradients."""
    rate: float | None = None
    """Of the optimiser in the last step; None before the first."""
    first_loss: float = 0.0
    halvings: int = 0
    """How often the rate was halved after a divergence."""
    best: dict[str, Any] = field(default_factory=dict)
    """epoch, score and sha256 of the best weights; empty before the first score."""
    history: list[Row] = field(default_factory=list)
    speed: list[Row] = field(default_factory=list)
    environments: list[str] = field(default_factory=list)
    """Each under which a part of the training ran."""
    ended: str = ""
    """Why it is over; empty while it is not."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Make it from what `to_json` gave."""
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        """Return plain values that change no more when the state does."""
        return asdict(self)

    def count_step(self, loss: float, norm: float, rate: float) -> None:
        """Note a step that was done."""
        self.rate = rate
        self.first_loss = self.first_loss if self.step else loss
        self.losses.append(loss)
        self.norms.append(norm)
        self.step += 1

    def epoch_row(self) -> Row:
        """Return the row of the epoch in hand, with the rate of its last step.

        Overflowed fp16 gradients count in no mean.
        """
        norms = [norm for norm in self.norms if math.isfinite(norm)]
        return {
            "epoch": self.epoch + 1,
            "step": self.step,
            "rate": self.rate,
            "loss": finite(_mean(self.losses)),
            "gradient_norm": _mean(norms) if norms else None,
        }

    def close_epoch(self, row: Row, speed: Row) -> None:
        """Note the epoch that is over."""
        self.history.append(row)
        self.speed.append(speed)
        self.epoch, self.losses, self.norms = self.epoch + 1, [], []


@dataclass(frozen=True)
class TrainOutcome:
    """What a finished training leaves."""

    best_weights: Path
    """Of the best validation; equal to `last_weights` where none was made."""
    last_weights: Path
    best_epoch: int
    best_score: float | None
    epochs: int
    steps: int
    seconds: float
    """Of all starts together, without what kills threw away."""
    ended: str
    """`steps`, `plateau` or `stop file`."""
    precision: str
    halvings: int
    """How often the rate was halved after a divergence."""
    environments: tuple[str, ...]
    """Library, device and threads of each start that differed: with more than one, bit-equality is not promised."""
    history: tuple[Row, ...]


def environment(device: torch.device, precision: str) -> str:
    """Return what the bits of a training depend on beside its options."""
    if device.type == "cuda":
        return f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}, {precision}"
    return f"torch {torch.__version__}, {device.type} with {torch.get_num_threads()} threads, {precision}"


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
