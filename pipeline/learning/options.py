"""Options of training: how long, how exact, with which optimiser, and what to do when it goes wrong."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from pipeline.learning.precision import Precision
from pipeline.learning.schedule import AdamW, OptimizerField, Polynomial, ScheduleField
from pipeline.plugin import Settings


class TrainOptions(Settings):
    """What the loop needs to know; the train stage adds batch, loss and augmentation."""

    WITHOUT_EFFECT: ClassVar[tuple[str, ...]] = ("save_every", "keep_every")
    """Options that change no number of the result."""

    epochs: PositiveInt | None = 30
    """Length of the training; none to go on until `max_minutes`."""
    steps_per_epoch: PositiveInt = 50
    """Updates of the weights in an epoch."""
    max_minutes: PositiveFloat | None = None
    """Time to fit into: fixes the number of steps after the first 20, at most that of `epochs`."""
    precision: Precision = "auto"
    """Number format of convolutions: `auto` takes the fastest that the device computes natively."""
    channels_last: bool | Literal["auto"] = "auto"
    """Whether the channels of a voxel lie side by side in memory; `auto`: where convolutions gain by it."""
    compile: bool = False
    """Whether torch.compile fuses the network's operations: worth its minutes on long trainings."""
    deterministic: bool = False
    """Whether a GPU must give equal bits in each run; a CPU with a fixed number of threads does anyway."""

    optimizer: OptimizerField = AdamW()
    schedule: ScheduleField = Polynomial()
    accumulate: PositiveInt = 1
    """Batches whose gradients are averaged into one update."""
    gradient_clip: PositiveFloat | None = 12.0
    """Largest norm of the gradient; none for no limit."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of a running mean of the weights, e.g. 0.999, which is then validated and used; none for no mean."""
    freeze: tuple[str, ...] = ()
    """Weights that stay as they are, as patterns of their names, e.g. `encoder.*`."""

    validate_every: PositiveInt = 5
    """Epochs between two validations."""
    score: str = "dice"
    """The figure of the validation that chooses the best weights; higher is better."""
    patience: PositiveInt | None = None
    """Epochs without a better score after which training ends; none to go on."""
    save_every: PositiveInt = 1
    """Epochs between two checkpoints."""
    keep_every: PositiveInt | None = None
    """Epochs between two sets of weights that are kept for good; none for only the best and the last."""

    on_divergence: Literal["stop", "lower_rate"] = "stop"
    """When the loss is no finite number or explodes: stop, or go back to the last checkpoint and halve the rate."""
    explosion: PositiveFloat = 100.0
    """How many times the first loss counts as an explosion."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.epochs is None and self.max_minutes is None:
            raise ValueError("epochs and max_minutes are both none; expected at least one of them, or it never ends")
        return self

    @property
    def most_steps(self) -> int | None:
        """Steps of all epochs; None where only the time limits them."""
        return None if self.epochs is None else self.epochs * self.steps_per_epoch
