"""Planes grouped into series: by their UID, then split by whatever cannot be one volume, and put in order."""

import hashlib
import os
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.dicom.geometry import height_of
from pipeline.dicom.plane import Header, Plane

_COSINE_TOLERANCE = 5e-4
_SPACING_TOLERANCE = 1e-4
"""Relative; planes whose pixels differ by more are of another volume."""


@dataclass(frozen=True)
class Series:
    """Planes that may be one volume, ordered along the normal; its planes are never empty."""

    planes: tuple[Plane, ...]
    part: int = 0
    """Counts from 1 where a series UID was split; 0 where it was not."""
    split_by: tuple[str, ...] = ()
    """What differs between the parts."""
    patients: int = 1
    """Patients that share this series UID."""
    equal_duplicates: int = 0
    """Planes that were left out since an equal one lies at the same place."""
    conflicts: tuple[float, ...] = ()
    """Positions in mm along the normal at which planes with different pixels lie."""
    damaged_beside: int = 0
    """Damaged files in the folders of its planes."""
    content: str = ""
    """Hash of the pixels of its middle plane, where it has no UID: two patients may lie at the same places."""

    @property
    def header(self) -> Header:
        """Header of the first plane."""
        return self.planes[0].header

    @property
    def case_id(self) -> str:
        """Series UID, with the number of the part where it was split; letters, digits, `.` and `-` only."""
        uid = self.header.series_uid
        if not is_uid(uid):
            # Lost, or not a UID and so perhaps a name: what was scanned stands for it.
            uid = "nouid-" + hashlib.sha256(repr((_identity(self.planes), self.content)).encode()).hexdigest()[:16]
        return f"{uid}-{self.part}" if self.part else uid


def is_uid(text: str) -> bool:
    """Say whether a text is digits and dots, as a UID is, and no longer than one: fit for the name of a file."""
    return re.fullmatch(r"[0-9][0-9.]{0,63}", text) is not None


def study_of(series: Series) -> Hashable:
    """Return what series of one study of one patient have in common; a series without study UID stands alone."""
    header = series.header
    return (header.study_uid, header.patient) if header.study_uid else ("", series.case_id)


def hashed_id(case_id: str, key: bytes) -> str:
    """Return a case id that only the owner of the key can map back: 24 hexadecimal digits."""
    return hashlib.blake2b(case_id.encode(), key=hashlib.sha256(key).digest(), digest_size=12).hexdigest()


def group(planes: Iterable[Plane]) -> tuple[Series, ...]:
    """Group planes by series UID, split what cannot be one volume, and order each by position along its normal.

    Duplicates are still in it: `duplicates.settle` takes them out.
    """
    by_uid: dict[Hashable, list[Plane]] = {}
    for plane in planes:
        by_uid.setdefault(_uid(plane), []).append(plane)
    return tuple(series for together in by_uid.values() for series in _split(together))


def number_parts(parts: Sequence[Series]) -> tuple[Series, ...]:
    """Number the parts of one series UID, the largest first."""
    if len(parts) == 1:
        return (replace(parts[0], part=0),)
    ordered = sorted(parts, key=lambda series: (-len(series.planes), repr(_identity(series.planes))))
    return tuple(replace(series, part=number) for number, series in enumerate(ordered, 1))


def same_uid(series: Series) -> Hashable:
    """Return what the parts of one series have in common."""
    return _uid(series.planes[0])


def in_order(planes: Iterable[Plane]) -> tuple[Plane, ...]:
    """Order planes along their common normal; those without a position by file and frame."""
    listed = sorted(planes, key=lambda plane: (plane.header.path, plane.frame))
    heights = [height_of(plane) for plane in listed]
    if None in heights:
        return tuple(listed)
    return tuple(listed[at] for at in np.argsort(np.array(heights, float), kind="stable"))


def _uid(plane: Plane) -> Hashable:
    header = plane.header
    return header.series_uid or ("", os.path.dirname(header.path))


def _identity(planes: Sequence[Plane]) -> Any:
    """Return what was scanned, without what says whom, where or in which file."""
    first = planes[0]
    places = sorted((plane.position or (), plane.header.instance_uid, plane.frame) for plane in planes)
    return first.header.frame_of_reference, first.header.modality, first.image_type, first.kernel, places


_PROPERTIES: dict[str, Callable[[Plane], Hashable]] = {
    "patient": lambda plane: plane.header.patient,
    "study": lambda plane: plane.header.study_uid,
    "frame of reference": lambda plane: plane.header.frame_of_reference,
    "modality": lambda plane: plane.header.modality,
    "kind of object": lambda plane: (plane.header.sop_class, plane.header.pixels.fault == "no image"),
    "image type": lambda plane: plane.image_type,
    "matrix": lambda plane: (plane.header.rows, plane.header.columns, plane.header.samples),
    "kernel": lambda plane: plane.kernel,
    "echo": lambda plane: plane.echo,
    "temporal position": lambda plane: plane.temporal,
    "b-value": lambda plane: (plane.b_value, plane.gradient),
    "stack": lambda plane: plane.stack,
}


def _split(planes: list[Plane]) -> list[Series]:
    """Split the planes of one series UID; what differs is remembered, so that it can be told."""
    values = {name: [of(plane) for plane in planes] for name, of in _PROPERTIES.items()}
    values["orientation"] = _clusters([plane.orientation for plane in planes], _COSINE_TOLERANCE, relative=False)
    values["pixel spacing"] = _clusters([plane.pixel_spacing for plane in planes], _SPACING_TOLERANCE, relative=True)
    groups: dict[Hashable, list[Plane]] = {}
    for number, plane in enumerate(planes):
        groups.setdefault(tuple(column[number] for column in values.values()), []).append(plane)
    differing = tuple(name for name, column in values.items() if len(set(column)) > 1)
    patients = len(set(values["patient"]))
    return [Series(in_order(members), split_by=differing, patients=patients) for members in groups.values()]


def _clusters(values: list[tuple[float, ...]], tolerance: float, *, relative: bool) -> list[Hashable]:
    """Number the values so that those within the tolerance of a cluster's first member share a number."""
    centres: list[tuple[float, ...]] = []
    numbers: dict[tuple[float, ...], int] = {}
    for value in values:
        if value not in numbers:
            near = (at for at, centre in enumerate(centres) if _near(value, centre, tolerance, relative))
            numbers[value] = next(near, len(centres))
            if numbers[value] == len(centres):
                centres.append(value)
    return [numbers[value] for value in values]


def _near(a: tuple[float, ...], b: tuple[float, ...], tolerance: float, relative: bool) -> bool:
    return len(a) == len(b) and all(
        abs(x - y) <= tolerance * (max(abs(x), abs(y)) if relative else 1) for x, y in zip(a, b, strict=True)
    )
