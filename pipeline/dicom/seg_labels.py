"""DICOM segmentation objects read as labels on the grid of an image."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from pipeline.dicom import elements
from pipeline.dicom.codes import Code, SegmentCode
from pipeline.dicom.decode import stored_values
from pipeline.dicom.frames import PER_FRAME, SHARED
from pipeline.dicom.header import read_elements, read_planes
from pipeline.dicom.plane import Plane, Unread
from pipeline.errors import DataError, plural
from pipeline.imaging.geometry import to_physical
from pipeline.imaging.volume import Geometry, Volume

_SEGMENTS, _TYPE, _MOST, _IDENTIFICATION, _NUMBER = 0x00620002, 0x00620001, 0x0062000E, 0x0062000A, 0x0062000B
_REFERENCED = 0x00081115
_PARALLEL = 1e-3
"""How far the normal of the frames may be off that of the grid's slices (1 - cosine, about 2.5 degrees)."""
_GAP_STEPS = 1.9
"""Frames that are further apart than so many slices have empty ones, left out, between them."""


@dataclass(frozen=True, eq=False)
class SegLabels:
    """What a segmentation object says of an image.

    volume: (1, D, H, W) segment numbers on the grid of the image; 0 where there is no segment.
    names:  Segment number -> its label.
    codes:  Segment number -> what it shows, where the object says so in a known form.
    """

    volume: Volume
    names: Mapping[int, str]
    codes: Mapping[int, SegmentCode] = field(default_factory=dict)


def read_seg(path: Path, geometry: Geometry, *, frame_of_reference: str = "") -> SegLabels:
    """Read a segmentation object onto the grid of an image: each voxel takes the nearest pixel of the nearest frame.

    BINARY, FRACTIONAL (from half of the largest value on) and LABELMAP objects are read.

    Args:
        path: A segmentation object.
        geometry: Grid of the image that was segmented, its slices parallel to the frames of the object.
        frame_of_reference: UID of the image's; the object must have the same. Not compared where empty.

    Raises:
        DataError: it is no segmentation object or damaged, lies in another frame of reference or across the grid,
            or two segments claim one voxel.
    """
    planes = _planes(path)
    header = planes[0].header
    if frame_of_reference and header.frame_of_reference != frame_of_reference:
        raise DataError("the segmentation lies in another frame of reference than its image. Is it of this series?")
    described = read_elements(str(path), [_SEGMENTS, _TYPE, _MOST, PER_FRAME, SHARED])
    kind, most = elements.text(described, _TYPE), elements.whole(described, _MOST, 255)
    listed = elements.items(described, _SEGMENTS)
    names = {elements.whole(one, 0x00620004): elements.text(one, 0x00620005) for one in listed}
    codes = {elements.whole(one, 0x00620004): code for one in listed if (code := _code_of_segment(one))}
    pixels = _pixels(planes)
    out = np.zeros(geometry.shape, np.uint8 if max(names, default=0) < 256 else np.uint16)
    if kind == "LABELMAP":
        _place(out, geometry, planes, pixels)
        return SegLabels(Volume(out[None], geometry), names, codes)
    segments = _segment_of_frames(described, len(planes))
    for number in sorted(set(segments)):
        chosen = [at for at, segment in enumerate(segments) if segment == number]
        shown = pixels[chosen] >= (max(1, most / 2) if kind == "FRACTIONAL" else 1)
        one = np.zeros(geometry.shape, np.uint8)
        _place(one, geometry, [planes[at] for at in chosen], shown.astype(np.uint8))
        if twice := int(np.count_nonzero(one.astype(bool) & (out > 0))):
            raise DataError(
                f"segment {number} ({names.get(number, 'no label')}) overlaps others in {plural(twice, 'voxel')}; "
                "expected segments that exclude each other. Part them in the source, or convert them one by one."
            )
        out[one > 0] = number
    return SegLabels(Volume(out[None], geometry), names, codes)


def referenced_series(path: Path) -> str:
    """Return the UID of the series that a segmentation object refers to; empty where it does not say."""
    try:
        found = read_elements(str(path), [_REFERENCED])
    except (OSError, ValueError):
        return ""
    items = elements.items(found, _REFERENCED)
    return elements.text(items[0], 0x0020000E) if len(items) == 1 else ""


def _code_of_segment(described: Any) -> SegmentCode | None:
    """Return the codes of an item of the segment sequence; None where they are not whole."""
    kinds, categories = elements.items(described, 0x0062000F), elements.items(described, 0x00620003)
    if not kinds or not categories:
        return None
    sides = elements.items(kinds[0], 0x00620011)
    try:
        side = _code(sides[0]) if sides else None
        return SegmentCode(type=_code(kinds[0]), category=_code(categories[0]), side=side)
    except ValidationError:
        return None


def _code(item: Any) -> Code:
    value, scheme, meaning = (elements.text(item, tag) for tag in (0x00080100, 0x00080102, 0x00080104))
    return Code(value=value, scheme=scheme, meaning=meaning)


def _planes(path: Path) -> tuple[Plane, ...]:
    found = read_planes(str(path), secrets.token_bytes(16))
    if isinstance(found, Unread) or found[0].header.modality != "SEG":
        what = "no DICOM file" if isinstance(found, Unread) else found[0].header.modality or "no modality"
        raise DataError(f"found {what}; expected a DICOM segmentation (modality SEG).")
    fault = found[0].header.pixels
    if fault.fault:
        raise DataError(f"its pixels cannot be read: {fault.detail}. Export it again.")
    unplaced = any(plane.position is None or len(plane.orientation) != 6 for plane in found)
    if unplaced or len(found) != found[0].header.frames:
        raise DataError("it does not say where each of its frames lies. Export it again.")
    return found


def _pixels(planes: Sequence[Plane]) -> NDArray[Any]:
    """Return the pixels (N, H, W); single bits are packed across the borders of frames, lowest bit first."""
    header = planes[0].header
    if header.bits_allocated != 1:
        return stored_values(planes)
    count = header.frames * header.rows * header.columns
    with open(header.path, "rb") as stream:
        stream.seek(header.pixels.offset)
        packed = np.frombuffer(stream.read((count + 7) // 8), np.uint8)
    return np.unpackbits(packed, count=count, bitorder="little").reshape(header.frames, header.rows, header.columns)


def _segment_of_frames(described: Any, frames: int) -> list[int]:
    shared = _referenced(elements.items(described, SHARED))
    per_frame = elements.items(described, PER_FRAME)
    numbers = [_referenced([one]) or shared for one in per_frame]
    if len(numbers) != frames or not all(numbers):
        raise DataError("it does not say which segment each of its frames shows. Export it again.")
    return numbers


def _referenced(groups: Sequence[Any]) -> int:
    for group in groups:
        for item in elements.items(group, _IDENTIFICATION):
            return elements.whole(item, _NUMBER)
    return 0


def _place(out: NDArray[Any], geometry: Geometry, planes: Sequence[Plane], pixels: NDArray[Any]) -> None:
    """Write for each slice of a grid the nearest frame, where one is near enough not to be of another slice."""
    along, down = np.array(planes[0].orientation[:3]), np.array(planes[0].orientation[3:])
    normal = np.cross(along, down)
    ends = to_physical(geometry, [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
    slice_normal = np.cross(ends[3] - ends[0], ends[2] - ends[0])
    if 1 - abs(float(slice_normal @ normal)) / float(np.linalg.norm(slice_normal)) > _PARALLEL:
        raise DataError("its frames are not parallel to the slices of the image; expected the same orientation.")
    heights = np.array([np.dot(plane.position, normal) for plane in planes])  # type: ignore[arg-type]
    near = _reach(heights, geometry.spacing_mm[0])
    for depth in range(geometry.shape[0]):
        height = float(to_physical(geometry, (depth, 0, 0)) @ normal)
        best = int(np.abs(heights - height).argmin())
        if abs(heights[best] - height) <= near:
            _sample(out[depth], geometry, depth, planes[best], pixels[best])


def _reach(heights: NDArray[np.float64], step_mm: float) -> float:
    """Return how far a slice may be from a frame that shows it: half a step, or half an uneven one."""
    gaps = np.diff(np.unique(np.round(heights, 3)))
    usual = gaps[gaps < _GAP_STEPS * step_mm]
    return 0.5 * max(step_mm, float(usual.max()) if usual.size else 0.0) + 1e-3


def _sample(into: NDArray[Any], geometry: Geometry, depth: int, plane: Plane, pixels: NDArray[Any]) -> None:
    corner = to_physical(geometry, [(depth, 0, 0), (depth, 1, 0), (depth, 0, 1)])
    rows, columns = np.arange(into.shape[0])[:, None], np.arange(into.shape[1])[None, :]
    down_mm, along_mm = plane.pixel_spacing
    whole = []
    for axis, size_mm in ((np.array(plane.orientation[3:]), down_mm), (np.array(plane.orientation[:3]), along_mm)):
        start, down, along = (corner - np.array([plane.position, corner[0], corner[0]])) @ axis / size_mm
        # A half goes down, as it goes up where masks are sampled at frames: there and back is the same voxel.
        whole.append(np.ceil(np.round(start + rows * down + columns * along, 4) - 0.5).astype(np.intp))
    sides = zip(whole, pixels.shape, strict=True)
    inside = np.logical_and.reduce([(part >= 0) & (part < side) for part, side in sides])
    into[inside] = pixels[tuple(part[inside] for part in whole)]
