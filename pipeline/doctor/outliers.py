"""Cases that differ much from the others in size, spacing, intensity or label volume. All `info`: odd is not wrong."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.doctor.findings import Finding
from pipeline.doctor.intensities import is_usable
from pipeline.doctor.labels import classes_found
from pipeline.imaging.examine import Examination
from pipeline.imaging.geometry import canonical_geometry, reorientation_of
from pipeline.imaging.labels import Labels

_SCORE = 5.0
"""Robust z-score from which a value is odd."""
_LEAST_CASES = 8
_FLOOR = 0.05
"""Of logarithms: spreads below 5 % count as 5 %, so that among nearly equal cases rounding makes no outliers."""
_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution by its median absolute deviation."""


def find_outliers(exams: Sequence[Examination], labels: Labels) -> Iterator[Finding]:
    """Name each case with an odd value, with all of them and the median of the data set.

    The robust z-score of x is (x - median) / (1.4826 MAD) (Iglewicz and Hoaglin 1993), taken of the logarithm of
    lengths, volumes and spreads.
    """
    odd: dict[str, list[str]] = {}
    for name, (values, unit) in _features(exams, labels).items():
        for case_id, value, middle, score in _odd(values):
            odd.setdefault(case_id, []).append(
                f"{name} {value:.4g}{unit} (median {middle:.4g}, {abs(score):.0f} robust deviations)"
            )
    for exam in exams:
        if exam.case_id in odd:
            yield Finding("info", exam.case_id, "outlier", f"{'; '.join(odd[exam.case_id])}.", "Look at it once.")


def _features(exams: Sequence[Examination], labels: Labels) -> dict[str, tuple[dict[str, float], str]]:
    """Return name -> (case id -> value, unit)."""
    found: dict[str, tuple[dict[str, float], str]] = {}
    for exam in exams:
        for name, value, unit in _of_case(exam, labels):
            found.setdefault(name, ({}, unit))[0][exam.case_id] = value
    return found


def _of_case(exam: Examination, labels: Labels) -> Iterator[tuple[str, float, str]]:
    if exam.geometry is not None:
        grid = canonical_geometry(reorientation_of(exam.geometry))
        for axis, extent, spacing in zip("DHW", grid.extent_mm, grid.spacing_mm, strict=True):
            yield f"extent along {axis}", extent, " mm"
            yield f"spacing along {axis}", spacing, " mm"
    for channel, facts in exam.images.items():
        if is_usable(facts) and facts.intensity is not None:
            of = "" if len(exam.images) == 1 else f" of {channel}"
            yield f"mean intensity{of}", facts.intensity.mean, ""
            yield f"spread of intensities{of}", facts.intensity.std, ""
    if exam.label is not None and exam.label.geometry is not None and labels:
        for name, voxels in classes_found(exam.label, labels).items():
            yield f"volume of {name}", voxels * exam.label.geometry.voxel_ml, " ml"


def _odd(values: Mapping[str, float]) -> Iterator[tuple[str, float, float, float]]:
    """Yield case, value, median and robust z-score of odd values."""
    numbers = np.array(list(values.values()))
    if len(numbers) < _LEAST_CASES:
        return
    in_logs = bool(numbers.min() > 0)
    scaled = np.log(numbers) if in_logs else numbers
    away = scaled - np.median(scaled)
    spread = _TO_SIGMA * float(np.median(np.abs(away)))
    spread = max(spread, _FLOOR) if in_logs else max(spread, _FLOOR * float(np.abs(numbers).max()))
    if not spread > 0:
        return
    middle = float(np.median(numbers))
    for (case_id, value), score in zip(values.items(), away / spread, strict=True):
        if abs(score) >= _SCORE:
            yield case_id, value, middle, float(score)
