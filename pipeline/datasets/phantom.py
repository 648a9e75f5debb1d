"""Made-up CT scans of the trunk with labels: the data set of the demo and of the smoke test."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pipeline.datasets.base import Case, Dataset, Manifest, datasets
from pipeline.datasets.phantom_parts.body import LABELS
from pipeline.datasets.phantom_parts.scan import Scanner, make_scan
from pipeline.datasets.write_manifest import write_manifest
from pipeline.imaging.labels import Labels
from pipeline.imaging.volume import Volume
from pipeline.provenance import digest

_VERSION = 2  # raise it with every change of what is drawn: it is part of the folder's name
_SITES = ("north", "south")


@datasets.register
class Phantom(Dataset):
    """Labelled CT volumes of made-up patients, in HU, drawn from a seed and written as `.nii.gz`.

    Every case follows from the options and its number alone: ids, groups and labels are known before any
    file exists, and a longer list begins with the cases of a shorter one.
    """

    # The method cases() has taken the name under which YAML knows `count`.
    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    makes_files: ClassVar[bool] = True

    name: Literal["phantom"] = "phantom"
    count: PositiveInt = Field(default=12, alias="cases")
    """Number of scans."""
    seed: NonNegativeInt = 0
    """Draws the patients and the scans."""
    spacing_mm: tuple[PositiveFloat, PositiveFloat] = (2.6, 3.6)
    """Smallest and largest voxel size within a slice, in mm."""
    slice_mm: tuple[PositiveFloat, PositiveFloat] = (2.6, 6.0)
    """Smallest and largest distance between slices, in mm; one case in four is near the largest."""
    field_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (360.0, 310.0, 400.0)
    """Field of view from feet to head, front to back and right to left, in mm."""
    repeat_every: NonNegativeInt = 4
    """One patient in so many is scanned twice, which makes a group of two cases; 0 for none."""
    folder: Path = Path("cache/phantom")
    """Where the files are written."""

    @model_validator(mode="after")
    def _ranges_ascend(self) -> "Phantom":
        for name in ("spacing_mm", "slice_mm"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is [{low}, {high}]; expected the smaller one first")
        return self

    def cases(self) -> Manifest:
        """List the cases; no file is needed or written."""
        return Manifest(
            cases=tuple(self._case(number) for number in range(self.count)),
            labels=Labels(values=LABELS),
            metadata={"source": "made by the phantom data set; no real patient"},
        )

    def write_files(self, case: Case) -> None:
        """Write image and label of `case`, and the manifest of all cases, where they are not there yet.

        The folder's name stands for all options and for the version of the drawing code, so what lies in
        it under the right name has the right content.
        """
        from pipeline.imaging.write import write_image, write_mask

        image, label = case.images["image"], case.label
        listed = image.parents[1] / f"{self.count}_cases.csv"
        if not listed.exists():
            write_manifest(self.cases(), listed)
        if label is None or (image.exists() and label.exists()):
            return
        numbers = [number for number in range(self.count) if self._case(number).case_id == case.case_id]
        scanner = Scanner(spacing_mm=self.spacing_mm, slice_mm=self.slice_mm, field_mm=self.field_mm)
        scan = make_scan(self.seed, numbers[0], self._patient(numbers[0]), scanner, site=_SITES.index(case.site))
        write_mask(scan.label, scan.geometry, label)
        write_image(Volume(scan.image[None], scan.geometry), image)

    def _case(self, number: int) -> Case:
        options = self.model_dump(mode="json", exclude={"count", "folder", "name"})
        home = Path.cwd() / self.folder.expanduser() / digest({**options, "version": _VERSION})[:8]
        name = f"phantom_{number:03d}"
        patient = self._patient(number)
        return Case(
            case_id=name,
            images={"image": home / "images" / f"{name}.nii.gz"},
            label=home / "labels" / f"{name}.nii.gz",
            group=f"patient_{patient:03d}",
            site=_SITES[patient // 2 % 2],
        )

    def _patient(self, number: int) -> int:
        """Return the patient of a case: of every `repeat_every` patients, the first has two cases."""
        if not self.repeat_every:
            return number
        block, place = divmod(number, self.repeat_every + 1)
        return block * self.repeat_every + max(place - 1, 0)
