"""Names for label values that nobody named."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.base import Case
from pipeline.datasets.label_names import name_values
from pipeline.errors import DataError
from pipeline.imaging.volume import Geometry
from pipeline.imaging.write import write_mask
from pipeline.progress import Progress

GRID = Geometry(shape=(2, 12, 12))


def put(folder: Path, name: str, values: np.ndarray) -> Case:
    write_mask(np.resize(values, (2, 12, 12)).astype(np.int16), GRID, folder / f"{name}.nii.gz")
    return Case(case_id=name, images={"image": folder / "i.nii.gz"}, label=folder / f"{name}.nii.gz")


def test_values_of_all_labels_are_named(tmp_path: Path) -> None:
    cases = [
        put(tmp_path, "a", np.array([0, 3])),
        put(tmp_path, "b", np.array([200, 0])),
        put(tmp_path, "c", np.zeros(1)),
    ]
    cases.append(Case(case_id="d", images={"image": tmp_path / "i.nii.gz"}, split="test"))
    (tmp_path / "e.nii.gz").write_bytes(b"damaged")
    cases.append(Case(case_id="e", images={"image": tmp_path / "i.nii.gz"}, label=tmp_path / "e.nii.gz"))
    assert name_values(cases, 1, Progress()).values == {0: "background", 3: "label_3", 200: "label_200"}


def test_an_image_in_place_of_a_label_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="case a: up to this label there are 288 values"):
        name_values([put(tmp_path, "a", np.arange(288))], 1, Progress())
