"""What a report tells, as plain values: collected from a run, or made up by a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.stages.report.page import Card, Section


@dataclass(frozen=True)
class CaseLine:
    """One case of the data."""

    case_id: str
    group: str
    spacing_mm: tuple[float, float, float]
    """Of the source, along canonical (D, H, W)."""
    shape: tuple[int, int, int]
    """Of the source, along canonical (D, H, W)."""
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    """Class -> volume in the reference; classes that were not labelled are left out."""
    fold: int | None = None
    split: str = ""
    site: str = ""
    classes: tuple[str, ...] = ()
    """Of the whole volume, for classification."""


@dataclass(frozen=True, eq=False)
class Training:
    """One trained model."""

    name: str
    """`fold 0`, or `all cases`."""
    history: pd.DataFrame
    """One row an epoch: `epoch`, `loss`, `rate`, and scores where it was validated."""
    epochs: int
    steps: int
    best_epoch: int
    best_score: float | None
    seconds: float
    parameters: int
    ended: str = ""
    score: str = "dice"
    """Column of the history that decided which epoch was kept."""


@dataclass(frozen=True)
class Overlay:
    """Picture of one predicted case."""

    role: str
    """`Best`, `Median` or `Worst`."""
    case_id: str
    score: float
    """Mean of the first metric over the classes of the case."""
    picture: bytes
    """PNG file, as `overlay_figure` draws it."""


@dataclass(frozen=True)
class Baseline:
    """What the best intensity window and the largest component reach for one class."""

    low: float
    high: float
    mean: float | None
    n: int


@dataclass(frozen=True)
class Cost:
    """What a stage took."""

    stage: str
    seconds: float
    peak_memory_mb: float


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything that the page says."""

    run_name: str
    created: str
    task: str
    dataset: str
    network: str
    class_names: tuple[str, ...]
    """What is scored, in order."""
    class_colours: Mapping[str, str]
    cases: tuple[CaseLine, ...] = ()
    rows: pd.DataFrame | None = None
    """The rows of `per_case.csv` of the set that is told of first; None for tasks without masks."""
    summary: Mapping[str, Any] | None = None
    """What `summary.json` says of it."""
    which: str = "out_of_fold"
    """What that set is: `out_of_fold`, `test` or `given`."""
    test: tuple[pd.DataFrame, Mapping[str, Any]] | None = None
    """Rows and summary of the test cases where both sets were predicted."""
    baseline: Mapping[str, Baseline] = field(default_factory=dict)
    postprocess: Mapping[str, Any] = field(default_factory=dict)
    """What `choose_postprocess` found; empty where none was asked for."""
    trainings: tuple[Training, ...] = ()
    overlays: tuple[Overlay, ...] = ()
    patches: bytes | None = None
    costs: tuple[Cost, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    config_yaml: str = ""
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Case id -> why it was left out before training."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Case id -> why it has no prediction."""
    leaks: tuple[str, ...] = ()
    """What lies in several folds, or in training and test, as lines of text."""
    not_run: tuple[int, ...] = ()
    """Folds that the data has and this run left out."""
    verdict: str = ""
    """First sentences of a task without masks; else they follow from the summary."""
    cards: tuple[Card, ...] = ()
    """Its figures to read first."""
    extra: tuple[Section, ...] = ()
    """Sections of other tasks, e.g. ROC and confusion, shown after the results."""
