"""What a data set is: cases with images, labels and groups."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from pipeline.imaging.labels import Labels
from pipeline.plugin import Plugin, Registry, Settings


class Case(Settings):
    """One labelled (or unlabelled) volume of a data set; paths are absolute."""

    case_id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name in every table, log and file name; never a patient's name."""
    images: dict[str, Path]
    """Channel -> file (or a folder of one DICOM series); optional channels may be absent."""
    label: Path | None = None
    """Label volume on the grid of the images."""
    classes: tuple[str, ...] = ()
    """Class names of the whole volume, for classification."""
    group: str = ""
    """Patient (or other unit) that must not straddle folds; the case itself where empty."""
    site: str = ""
    """Hospital or scanner."""
    split: str = ""
    """`train`, `test`, or empty for train."""
    fold: int | None = None
    """Fold in which the case is validated, where the data set fixes it."""
    annotated: tuple[str, ...] | None = None
    """Classes that were labelled in this case; None for all, empty for none."""

    @field_validator("split")
    @classmethod
    def _known_split(cls, split: str) -> str:
        if split not in ("", "train", "test"):
            raise ValueError(f"found {split!r}; expected 'train', 'test' or nothing")
        return split

    @property
    def patient(self) -> str:
        """The group, or the case itself where none is given."""
        return self.group or self.case_id


class Manifest(Settings):
    """What a data set yields: its cases and what its label values mean."""

    cases: tuple[Case, ...]
    labels: Labels = Labels()
    """Empty where the data set does not say; then the config must."""
    channels: tuple[str, ...] = ("image",)
    """Order of the image channels."""
    optional_channels: tuple[str, ...] = ()
    """Channels that a case may lack; it is then prepared with a constant one at the level of the background."""
    class_names: tuple[str, ...] = ()
    """Order of the classes of whole volumes, for classification."""
    metadata: dict[str, Any] = Field(default_factory=dict)
    """Whatever the source said beside, verbatim."""


class Dataset(Plugin):
    """A source of cases. `cases()` looks at lists and folders, never at voxels."""

    makes_files: ClassVar[bool] = False
    """Whether the volumes follow from the options and are written by `write_files` when they are needed."""

    @abstractmethod
    def cases(self) -> Manifest:
        """List the cases.

        Raises:
            DataError: the list is unreadable or contradicts itself; every problem is named at once.
        """

    def write_files(self, case: Case) -> None:
        """Make the files of `case` where the data set creates its own; real data sets have them already.

        May run in a child process; must give equal bytes at each call.
        """


datasets: Registry[Dataset] = Registry("dataset", Dataset, "pipeline.datasets")


def write_files_of(dataset: Dataset, case: Case) -> None:
    """Call `dataset.write_files(case)`: a function that a child process can be given."""
    dataset.write_files(case)
