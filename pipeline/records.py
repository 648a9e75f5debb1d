"""What flows between stages: small frozen models of paths and facts, never arrays."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PrivateAttr

from pipeline.datasets.base import Case, Manifest
from pipeline.dicom.codes import SegmentCode
from pipeline.imaging.facts import CaseFacts
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import Normalise
from pipeline.imaging.prepare import PrepareOptions
from pipeline.networks.base import Network, networks
from pipeline.plugin import Settings
from pipeline.tasks.base import Task, tasks

NetworkField = Annotated[Network, networks]
TaskField = Annotated[Task, tasks]


class Record(Settings):
    """The result of a stage; its paths are relative to the stage's folder."""

    _folder: Path = PrivateAttr(default=Path())

    def placed(self, folder: Path) -> Self:
        """Return this record, knowing the folder that it lies in."""
        self._folder = folder
        return self

    @property
    def folder(self) -> Path:
        """The folder of this result."""
        return self._folder

    def path(self, relative: str) -> Path:
        """Return where a file of this result lies."""
        return self._folder / relative


class DatasetFacts(Record):
    """What survey saw: each case's grid, intensities, labels and content."""

    manifest: Manifest
    facts: dict[str, CaseFacts]
    """By case id; only readable cases."""
    bad: dict[str, str] = Field(default_factory=dict)
    """Case id -> why it cannot be used."""


class IngestedCase(Settings):
    """One prepared case."""

    case: Case
    fold: int | None = None
    """Fold in which the case is validated; None for test cases."""
    entry: str
    """Its folder below the cache's `cases/`."""
    shape: tuple[int, int, int]
    """Prepared size (D, H, W)."""
    index: int | None = None
    """Its place in the entry where that holds many volumes; None for an entry of its own."""


class CaseTable(Record):
    """All prepared cases of a run."""

    cases: tuple[IngestedCase, ...]
    labels: Labels
    channels: tuple[str, ...]
    optional_channels: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    prepare: PrepareOptions
    metadata: dict[str, Any] = Field(default_factory=dict)
    dropped: dict[str, str] = Field(default_factory=dict)
    """Case id -> why it was left out."""

    def by_id(self) -> dict[str, IngestedCase]:
        """Return the cases by their ids."""
        return {row.case.case_id: row for row in self.cases}

    @property
    def test_ids(self) -> tuple[str, ...]:
        """Cases that were set aside for testing."""
        return tuple(row.case.case_id for row in self.cases if row.case.split == "test")

    def fold_ids(self, fold: int | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the ids of the training and the validation cases of a fold; None trains on all."""
        rows = [row for row in self.cases if row.case.split != "test"]
        train = tuple(row.case.case_id for row in rows if fold is None or row.fold != fold)
        return train, tuple(row.case.case_id for row in rows if fold is not None and row.fold == fold)


class SamplingPlan(Record):
    """Which patches a training draws, and from where."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    patch_size: tuple[int, int, int]
    """Voxels along (D, H, W)."""
    foreground: float
    """Share of the patches of a batch that are centred on a labelled voxel."""
    class_weights: dict[int, float] = Field(default_factory=dict)
    """Class index -> share of the foreground patches that are centred on it."""
    cases_of_class: dict[int, tuple[str, ...]] = Field(default_factory=dict)
    """Class index -> training cases that have it."""


class InferenceRecipe(Settings):
    """All that inference needs beside the weights; it travels with them."""

    network: NetworkField
    task: TaskField
    labels: Labels
    class_names: tuple[str, ...]
    """What the channels of the logits say."""
    channels: tuple[str, ...]
    optional_channels: tuple[str, ...] = ()
    """Channels that an image may lack."""
    prepare: PrepareOptions
    normalise: tuple[Normalise, ...]
    """One a channel, with the numbers that were fitted on the training cases."""
    patch_size: tuple[int, int, int]
    """Window (D, H, W)."""
    seen: dict[str, Any] = Field(default_factory=dict)
    """Ranges of the training data: spacing, field of view, intensities, volumes."""
    codes: dict[str, SegmentCode] = Field(default_factory=dict)
    """Class name -> SNOMED codes, where the data set gives them (`metadata: {codes: ...}`)."""


class TrainedModel(Record):
    """A network that was trained, ready for inference."""

    recipe: InferenceRecipe
    weights: str = "model.safetensors"
    weights_sha256: str = ""
    history: str = "history.csv"
    best_epoch: int = 0
    best_score: float | None = None
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0
    parameters: int = 0
    ended: str = ""
    """Why training ended, and anything to know about it (precision, device, resumes)."""
    cases: tuple[str, ...] = ()
    """Cases it learned from, those of its parents included."""
    parent: str = ""
    """The training whose weights it began with: its folder's name and the sha256 of the weights."""


class CasePrediction(Settings):
    """One predicted case; `failure` is empty where it worked."""

    case_id: str
    fold: int | None = None
    """Fold whose model made it; None for an ensemble."""
    mask: str = ""
    """File name, relative to the stage's folder."""
    probabilities: tuple[float, ...] = ()
    """Of the whole volume, for classification."""
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    failure: str = ""


class PredictionTable(Record):
    """Predictions of one fold's validation cases, or of the test cases."""

    predictions: tuple[CasePrediction, ...]
    ensemble: bool = False


class Evaluation(Record):
    """Where the tables of figures lie."""

    per_case: str = "per_case.csv"
    summary: str = "summary.json"
    headline: dict[str, float] = Field(default_factory=dict)
    """The few figures to show first, e.g. mean Dice."""


class Report(Record):
    """Where the page lies."""

    page: str = "report.html"
