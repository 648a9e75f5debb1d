"""A small data set on disk."""

import numpy as np
import pytest
import SimpleITK as sitk


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """A manifest of six tiny cases of six patients, the last a copy of the first; the work is done beside it."""
    monkeypatch.chdir(tmp_path)
    rows = ["case_id,image,label,group"]
    for number in range(6):
        values = np.random.default_rng(number % 5).normal(100, 20, (10, 16, 14)).astype(np.int16)
        mask = np.zeros(values.shape, np.uint8)
        mask[3:7, 4:10, 4 : 8 + number % 5] = 1
        for what, voxels in (("image", values), ("label", mask)):
            sitk.WriteImage(sitk.GetImageFromArray(voxels), f"c{number}_{what}.nii.gz")
        rows.append(f"c{number},c{number}_image.nii.gz,c{number}_label.nii.gz,p{number}")
    (tmp_path / "x.csv").write_text("\n".join(rows[:6]) + "\n")
    (tmp_path / "copies.csv").write_text("\n".join(rows) + "\n")
    for name in ("x", "copies"):
        (tmp_path / f"{name}.yaml").write_text("labels: {0: background, 1: liver}\n")
    return tmp_path
