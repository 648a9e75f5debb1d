"""Planes at one place: equal ones count once, different ones are told, and acquisitions that hide in a series part."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from pipeline.dicom.codec import hash_inflated
from pipeline.dicom.geometry import height_of
from pipeline.dicom.pixel_data import DEFLATED
from pipeline.dicom.plane import Plane
from pipeline.dicom.series import Series, in_order

_SAME_PLACE_MM = 0.01
_TELLING: dict[str, Callable[[Plane], str]] = {
    "acquisition": lambda plane: plane.acquisition,
    "trigger time": lambda plane: plane.trigger,
}


def settle(series: Series) -> list[Series]:
    """Take out equal duplicates, and split a series that holds several whole acquisitions of the same places.

    Only the pixels of planes that share a place are read, as they stand in the file.

    Returns:
        The series, or its parts where the acquisition number or the trigger time tells them apart completely.
    """
    places = _places(series.planes)
    if all(len(place) == 1 for place in places):
        return [series]
    hashes: dict[str, bytes] = {}
    kept = [_distinct(place, hashes) for place in places]
    left_out = len(series.planes) - sum(map(len, kept))
    planes = in_order(plane for place in kept for plane in place)
    lean = replace(series, planes=planes, equal_duplicates=left_out)
    crowded = [place for place in kept if len(place) > 1]
    if not crowded:
        return [lean]
    for name, of in _TELLING.items():
        if (parts := _told_apart(kept, of)) is not None:
            return [replace(lean, planes=in_order(part), split_by=(*series.split_by, name)) for part in parts]
    heights = [height for place in crowded if (height := height_of(place[0])) is not None]
    return [replace(lean, conflicts=tuple(heights))]


def _places(planes: Sequence[Plane]) -> list[list[Plane]]:
    """Gather planes that lie at one place, in order; without positions, copies of one instance."""
    heights = [height for plane in planes if (height := height_of(plane)) is not None]
    if len(heights) < len(planes):
        copies: dict[tuple[str, int], list[Plane]] = {}
        for number, plane in enumerate(planes):
            copies.setdefault((plane.header.instance_uid or str(number), plane.frame), []).append(plane)
        return list(copies.values())
    places = [[planes[0]]]
    for (below, above), plane in zip(pairwise(heights), planes[1:], strict=True):
        if above - below <= _SAME_PLACE_MM:
            places[-1].append(plane)
        else:
            places.append([plane])
    return places


def _distinct(place: list[Plane], hashes: dict[str, bytes]) -> list[Plane]:
    if len(place) == 1:
        return place
    first: dict[str, Plane] = {}
    for plane in place:
        first.setdefault(_digest(plane, hashes), plane)
    return list(first.values())


def _digest(plane: Plane, hashes: dict[str, bytes]) -> str:
    """Hash what makes the voxels and their place: two planes with one digest are interchangeable.

    Args:
        plane: A plane.
        hashes: Path -> hash of its pixels, filled here: a file of many frames is read once, not once a frame.
    """
    header = plane.header
    facts = (
        plane.position, plane.slope, plane.intercept, header.transfer_syntax, header.rows, header.columns,
        header.bits_allocated, header.bits_stored, header.high_bit, header.signed, header.photometric, plane.frame,
    )  # fmt: skip
    if header.path not in hashes:
        hashes[header.path] = pixel_hash(plane)
    return hashlib.sha256(repr(facts).encode() + hashes[header.path]).hexdigest()


def pixel_hash(plane: Plane) -> bytes:
    """Hash the pixels of a plane's file as they stand there; its path where it can no longer be read."""
    header = plane.header
    try:
        if header.transfer_syntax == DEFLATED:
            return hash_inflated(header)
        with open(header.path, "rb") as stream:
            stream.seek(min(header.pixels.offset, header.size))
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return os.fsencode(header.path)


def _told_apart(kept: list[list[Plane]], of: Callable[[Plane], str]) -> list[list[Plane]] | None:
    """Part the planes by a property, if every value of it then has each place exactly once."""
    values = {of(plane) for place in kept for plane in place}
    if len(values) < 2 or any(sorted(map(of, place)) != sorted(values) for place in kept):
        return None
    return [[plane for place in kept for plane in place if of(plane) == value] for value in sorted(values)]
