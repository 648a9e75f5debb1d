"""What a stage is: options, what it needs, and `run`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pipeline.datasets.base import Dataset, datasets
from pipeline.datasets.folds import Folds
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import NormaliseField
from pipeline.machine import Machine
from pipeline.plugin import Plugin, Registry, Settings
from pipeline.progress import Progress
from pipeline.records import NetworkField, Record, TaskField

DatasetField = Annotated[Dataset, datasets]


class Parts(Settings):
    """The sections of a config that several stages read."""

    dataset: DatasetField
    labels: Labels
    task: TaskField
    folds: Folds
    normalise: NormaliseField
    network: NetworkField

    def only(self, names: tuple[str, ...]) -> "Parts":
        """Return the named sections alone: reading another one, which the stage's key would not hold, fails."""
        return Parts.model_construct(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class StageContext:
    """What a stage is given beside its inputs."""

    folder: Path
    """Where it writes; what an interrupted run left there is still there."""
    parts: Parts
    machine: Machine
    seed: int
    fold: int | None
    progress: Progress
    run_name: str = ""
    config_yaml: str = ""
    """The whole configuration, for the report to show."""


class Stage(Plugin):
    """One step of a run. Its options are a section of the config."""

    version: ClassVar[int] = 1
    """Raised when the same options give other numbers than before."""
    uses: ClassVar[tuple[str, ...]] = ()
    """Sections of `Parts` that it reads; they are part of its key."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Stages whose results it is given, as keyword arguments of `run`."""
    per_fold: ClassVar[bool] = False
    uses_seed: ClassVar[bool] = False
    gives: ClassVar[type[Record]] = Record

    run: ClassVar[Callable[..., Record]]
    """`run(self, context: StageContext, **what_it_needs)`: do the work and return the record."""

    def key_options(self) -> dict[str, Any]:
        """Return the options that are part of the key: all of them."""
        return self.model_dump(mode="json")


stages: Registry[Stage] = Registry("stage", Stage, "pipeline.stages")
