"""One thing to predict, what is not predicted and why, and what may be done with a finished case beyond its mask."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.imaging.volume import Volume

if TYPE_CHECKING:
    from pipeline.learning.predictor import Prediction
    from pipeline.records import InferenceRecipe


@dataclass(frozen=True)
class Source:
    """One thing to predict."""

    case_id: str
    """Letters, digits, `.`, `_` and `-`; never a patient's name."""
    files: Mapping[str, tuple[Path, ...]]
    """Channel -> its file, or the instances of its series."""
    series: Any = None
    """Its audited series (`dicom.series.Series`), a tuple in the order of the channels; None for files."""
    note: str = ""
    """What the user should know of it though it can be used; goes into the table's column `note`."""


@dataclass(frozen=True)
class Passed:
    """What is not predicted, and why: a row in status.csv."""

    case_id: str
    status: Literal["refused", "not selected", "ambiguous", "unreadable"]
    reason: str


@dataclass(frozen=True)
class Found:
    """What lies in the inputs of a prediction."""

    sources: tuple[Source, ...] = ()
    passed: tuple[Passed, ...] = ()

    def __add__(self, other: "Found") -> "Found":
        """Put two findings one behind the other."""
        return Found(self.sources + other.sources, self.passed + other.passed)


@dataclass(frozen=True, eq=False)
class Finished:
    """A predicted case, as the hooks that follow it see it; its mask is on disk already.

    source:     What was predicted.
    volume:     The image as it was read, on its own grid.
    prediction: What the model says: `mask` (D, H, W) in label values on the grid of `volume`, None without masks.
    recipe:     What the model was trained for: labels, channels, ranges of its training data.
    folder:     Where results go (OUT).
    """

    source: Source
    volume: Volume
    prediction: "Prediction"
    recipe: "InferenceRecipe"
    folder: Path


@dataclass(frozen=True)
class Added:
    """What a hook made of a finished case."""

    files: tuple[str, ...] = ()
    """Paths below OUT; a case counts as done only while these are there, with the bytes that they have now."""
    review: tuple[str, ...] = ()
    """Reasons for which a person should look at this case."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Further cells of its row in status.csv."""


Read = Callable[[Source], Volume]
"""Reads what is to be predicted, with its channels in the order of the recipe; raises DataError."""
After = Callable[[Finished], Added | None]
"""Called in the writing thread once a mask is on disk, one case at a time; what it raises fails this case alone."""
AfterHooks = Sequence[After]
