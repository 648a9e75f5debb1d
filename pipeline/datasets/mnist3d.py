"""3D-MNIST: the digits 0 to 9 as small voxel grids, from the published files or made on the spot."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from pipeline.datasets.base import Case, Dataset, Manifest, datasets
from pipeline.datasets.mnist3d_digits import Cloud, digits, make_grids, split_images
from pipeline.errors import DataError
from pipeline.imaging.block import Member, member_of, read_array
from pipeline.provenance import digest
from pipeline.workspace import atomic_path

_VERSION = 1  # raise it with every change of how volumes are made: it is part of the folder's name
DIGITS = tuple("0123456789")
_PARTS = {"train": "", "valid": "", "test": "test"}
"""Array suffix -> split; the author's validation cases are training cases here, since folds are made among these."""


@datasets.register
class Mnist3d(Dataset):
    """Digits as voxel grids: a published file, or volumes made from scikit-learn's handwritten digits.

    The published ones are Kaggle's `full_dataset_vectors.h5` (16 x 16 x 16) and the author's `voxelgrid.npz`
    (8 x 8 x 8). Without a file the volumes are made as those were: each digit image is extruded to a cloud of
    points, turned at random, jittered, and counted in voxels. All volumes made from one image are one group.
    """

    name: Literal["mnist3d"] = "mnist3d"
    file: Path | None = None
    """Published file with X_train, y_train, X_test, y_test (and X_valid, y_valid); none to make volumes."""
    side: PositiveInt = 16
    """Voxels along each axis of volumes that are made."""
    copies: tuple[PositiveInt, PositiveInt] = (3, 3)
    """Volumes made of each digit image for training and for testing, each turned and jittered anew."""
    test_share: float = Field(default=0.2, gt=0, lt=1)
    """Part of the digit images that is set aside for testing."""
    points: PositiveInt = 1000
    """Points of a cloud."""
    rotation_degrees: NonNegativeFloat = 45.0
    """Largest angle about each axis, to both sides."""
    noise: NonNegativeFloat = 0.03
    """Standard deviation of the jitter of a point; the image is 1 wide."""
    seed: NonNegativeInt = 0
    """Draws the split, the angles and the points."""
    folder: Path = Path("cache/mnist3d")
    """Where volumes that are made are written."""

    @property
    def makes_files(self) -> bool:  # type: ignore[override]
        """Whether the volumes are made: they are where no file is named."""
        return self.file is None

    def cases(self) -> Manifest:
        """List the volumes; of a file, only the classes are read."""
        cases = self._made_cases() if self.file is None else _published_cases(_absolute(self.file))
        source = "made from scikit-learn's handwritten digits" if self.file is None else self.file.name
        return Manifest(cases=cases, class_names=DIGITS, metadata={"source": f"3D-MNIST, {source}"})

    def write_files(self, case: Case) -> None:
        """Make all volumes, which share one file, where it is not there yet."""
        member = member_of(case.images["image"])
        if self.file is not None or member is None or member.file.exists():
            return
        images, _ = digits()
        parts = zip(("train", "test"), split_images(len(images), self.test_share, self.seed), self.copies, strict=True)
        cloud = Cloud(self.side, self.points, self.rotation_degrees, self.noise)
        arrays = {
            f"X_{part}": make_grids(images, _repeat(rows, copies), cloud, self.seed) for part, rows, copies in parts
        }
        with atomic_path(member.file) as draft:
            np.savez_compressed(draft, **arrays)  # type: ignore[arg-type]

    def _made_cases(self) -> tuple[Case, ...]:
        images, labels = digits()
        options = self.model_dump(mode="json", exclude={"folder", "name", "file"})
        file = _absolute(self.folder) / digest({**options, "version": _VERSION})[:8] / "digits.npz"
        found: list[Case] = []
        for part, rows, copies in zip(
            ("train", "test"), split_images(len(images), self.test_share, self.seed), self.copies, strict=True
        ):
            for index, (image, copy) in enumerate(_repeat(rows, copies)):
                name, group = f"digit_{image:04d}_{copy}", f"digit_{image:04d}"
                found.append(_case(Member(file, f"X_{part}", index), name, labels[image], part, group))
        return tuple(found)


def _published_cases(file: Path) -> tuple[Case, ...]:
    found: list[Case] = []
    for part in _parts_of(file):
        for index, label in enumerate(_labels_of(file, f"y_{part}")):
            found.append(_case(Member(file, f"X_{part}", index), f"{part}_{index:05d}", label, part, ""))
    return tuple(found)


def _parts_of(file: Path) -> list[str]:
    if not file.exists():
        raise DataError(f"{file}: there is no such file; expected 3D-MNIST as npz or h5. Correct dataset.file.")
    parts = ["train", "test"]
    try:
        read_array(file, "y_valid")
    except DataError:
        return parts
    return ["train", "valid", "test"]


@lru_cache(maxsize=8)
def _labels(file: Path, array: str, changed: int) -> tuple[int, ...]:
    values: NDArray[Any] = read_array(file, array)
    if values.ndim != 1 or values.dtype.kind not in "iu" or not np.isin(values, np.arange(10)).all():
        raise DataError(
            f"{file}: array {array} is {values.dtype} {values.shape}; expected digits 0 to 9, one a volume."
        )
    return tuple(values.tolist())


def _labels_of(file: Path, array: str) -> tuple[int, ...]:
    return _labels(file, array, file.stat().st_mtime_ns)


def _case(member: Member, name: str, label: int, part: str, group: str) -> Case:
    split = _PARTS[part]
    return Case(case_id=name, images={"image": member.path}, classes=(DIGITS[label],), group=group, split=split)


def _repeat(rows: NDArray[np.int64], copies: int) -> list[tuple[int, int]]:
    return [(int(row), copy) for row in rows for copy in range(copies)]


def _absolute(path: Path) -> Path:
    return Path.cwd() / path.expanduser()
