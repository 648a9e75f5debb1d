"""Odd cases are named with their figures; equal ones, few ones and ordinary spread are not."""

import numpy as np

from pipeline.doctor.findings import exit_code
from pipeline.doctor.outliers import find_outliers
from pipeline.imaging.examine import Examination, FileFacts, Intensity
from pipeline.imaging.labels import Labels
from pipeline.imaging.volume import Geometry

LABELS = Labels(values={0: "background", 1: "liver"})


def _exams(number, spacing=lambda at: 1.0, mean=lambda at: 50.0, liver=lambda at: 1000):
    return [
        Examination(
            f"c{at}",
            {"image": FileFacts("i", geometry=(grid := Geometry(shape=(9, 9, 9), spacing_mm=(spacing(at), 1, 1))),
                                intensity=Intensity(0, 100, mean(at) * 729, 729, std=20.0))},
            FileFacts("l", geometry=grid, counts={0: 9, 1: liver(at)}),
        )
        for at in range(number)
    ]  # fmt: skip


def test_an_odd_spacing_intensity_and_volume():
    exams = _exams(
        30,
        spacing=lambda at: 6.0 if at == 4 else 1 + at / 100,
        mean=lambda at: 5000.0 if at == 7 else 50.0 + at,
        liver=lambda at: 3 if at == 9 else 1000 + at,
    )
    found = {one.case_id: one.found for one in find_outliers(exams, LABELS)}
    assert set(found) == {"c4", "c7", "c9"}
    assert "spacing along D 6 mm (median 1.15" in found["c4"]
    assert "mean intensity 5000" in found["c7"]
    assert "volume of liver" in found["c9"]
    assert exit_code(find_outliers(exams, LABELS)) == 0


def test_ordinary_spread_rounding_and_few_cases_are_no_outliers():
    spread = np.random.default_rng(0).normal(50, 8, 200)
    assert not list(find_outliers(_exams(200, mean=lambda at: float(spread[at])), LABELS))
    assert not list(find_outliers(_exams(30, spacing=lambda at: 1.001 if at == 3 else 1.0), LABELS))
    assert not list(find_outliers(_exams(7, spacing=lambda at: 9.0 if at == 3 else 1.0), LABELS))
