"""Small healthy cases, written by nibabel, that tests damage one by one."""

from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipeline.datasets.base import Case, Manifest
from pipeline.doctor.checkup import CheckUp, Expectation, check_up
from pipeline.imaging.labels import Labels
from pipeline.machine import Machine
from pipeline.progress import Progress

SHAPE = (16, 14, 12)
"""Along x, y, z."""
AFFINE = np.array([[-1.0, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 2.0, -20], [0, 0, 0, 1]])
LABELS = Labels(values={0: "background", 1: "liver", 2: "spleen", 255: "ignore"})


def voxels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image like CT, and the label of two organs in it, (x, y, z)."""
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    label[2:7, 3 : 9 + seed, 2:8] = 1
    label[10:13, 2:6, 5:10] = 2
    image = -1000 + 1050 * (label > 0) + 60 * (label == 2) + rng.normal(0, 10, SHAPE)
    return image.astype(np.int16), label


def save(array: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> Path:
    """Write a NIfTI file with sform and qform."""
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    nibabel.save(image, path)
    return path


@dataclass
class Ward:
    """A folder of healthy cases a, b, c and d; tests make b ill."""

    folder: Path
    labels: Labels = LABELS
    changes: dict[str, dict[str, object]] = field(default_factory=dict)
    ids: tuple[str, ...] = ("a", "b", "c", "d")

    def __post_init__(self) -> None:
        for seed, case_id in enumerate(self.ids):
            image, label = voxels(seed)
            save(image, self.image(case_id))
            save(label, self.label(case_id))

    def image(self, case_id: str = "b") -> Path:
        return self.folder / f"{case_id}.nii.gz"

    def label(self, case_id: str = "b") -> Path:
        return self.folder / f"{case_id}_label.nii.gz"

    def change(self, case_id: str, **fields: object) -> None:
        self.changes[case_id] = self.changes.get(case_id, {}) | fields

    def manifest(self) -> Manifest:
        cases = [
            Case(case_id=one, images={"image": self.image(one)}, label=self.label(one)).model_copy(
                update=self.changes.get(one, {})
            )
            for one in self.ids
        ]
        return Manifest(cases=tuple(cases), labels=self.labels)

    def check(self, expectation: Expectation = Expectation()) -> CheckUp:
        return check_up(self.manifest(), Machine(workers=1), Progress(), expectation)


def told(checkup: CheckUp, case_id: str = "b") -> dict[str, str]:
    """Return kind -> severity of what is said about one case."""
    return {one.kind: one.severity for one in checkup.findings if one.case_id == case_id}


def text(checkup: CheckUp, kind: str) -> str:
    """Return what the one finding of a kind says."""
    (found,) = [one for one in checkup.findings if one.kind == kind]
    return f"{found.found} {found.remedy}"


def healthy(checkup: CheckUp, but: str = "b") -> bool:
    """Whether nothing worse than a note is said of any other case, nor of the whole."""
    return all(one.severity == "info" or one.case_id == but for one in checkup.findings)


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)
