"""What can be done with a series: usable, usable with a note, or refused, and why, with the numbers."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.dicom.geometry import DRIFT, EVEN, GAP, NEARLY_EVEN, Stack, grid_of, height_of, lies_right, stack_of
from pipeline.dicom.pixel_data import BIG_ENDIAN
from pipeline.dicom.plane import Plane
from pipeline.dicom.series import Series
from pipeline.errors import DataError, plural
from pipeline.imaging.geometry import is_oblique
from pipeline.plugin import Settings

Kind = Literal[
    "", "no image", "two patients", "localizer", "projection", "colour", "transfer syntax", "truncated",
    "lying lengths", "pixel format", "no orientation", "single slice", "duplicates", "not aligned", "missing slices",
    "mixed spacing", "uneven steps",
]  # fmt: skip
"""Why a series is refused; empty where it is not."""

_LOCALIZERS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVEY"}
_PROJECTIONS = {"MIP", "MINIP", "MAXIP", "PROJECTION IMAGE", "VOLUME RENDERED", "VRT", "SSD", "SCREEN SAVE",
                "DOSE_INFO", "DOSE INFO", "MAX_IP", "MIN_IP"}  # fmt: skip
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NO_IMAGES = {"SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "SR", "PR", "KO", "REG", "ECG", "DOC", "PLAN", "AU"}
_LARGEST_MM = 1000.0
"""No scanner makes voxels of a metre: a number is damaged."""
_SHOWN = 6
_RUN = 3


class Verdict(Settings):
    """Whether a series can be one volume."""

    kind: Kind = ""
    """Why it is refused; empty where it is usable."""
    reason: str = ""
    """The refusal in words, with its numbers: positions are mm along the normal of the slices."""
    notes: tuple[str, ...] = ()
    """What a user should know of a usable series."""
    is_uneven: bool = False
    """Whether its steps are uneven, so that reading it resamples them."""

    @property
    def is_usable(self) -> bool:
        """Whether the series can be read."""
        return not self.kind

    @property
    def status(self) -> str:
        """`usable`, `usable with note` or `refused`."""
        return "refused" if self.kind else "usable with note" if self.notes else "usable"


def judge(series: Series, *, allow_uneven: bool = False) -> Verdict:
    """Judge a series by its headers alone.

    Args:
        series: As `audit` gives it: grouped, ordered, its duplicates settled.
        allow_uneven: Accept uneven steps, which `read_series` then resamples to even ones.
    """
    try:
        with np.errstate(all="ignore"):
            return _judge(series, allow_uneven=allow_uneven)
    except (DataError, ValueError, ArithmeticError):
        # Numbers that no arithmetic holds, such as positions beyond 1e300 mm: no reason to end the audit of others.
        return Verdict(kind="no orientation", reason="its positions, orientation and spacing make no grid")


def _judge(series: Series, *, allow_uneven: bool) -> Verdict:
    for check in (_is_image, _has_readable_pixels, _has_places, _lies_straight):
        for kind, reason in check(series):
            return Verdict(kind=kind, reason=reason)
    stack = stack_of(series.planes)
    kind, reason = _steps(stack)
    if kind and not (kind == "uneven steps" and allow_uneven):
        return Verdict(kind=kind, reason=reason)
    return Verdict(notes=tuple(_notes(series, stack, uneven=reason)), is_uneven=bool(kind))


_Refusals = Iterator[tuple[Kind, str]]


def _is_image(series: Series) -> _Refusals:
    header, words = series.header, {word.upper() for word in series.planes[0].image_type}
    if series.patients > 1:
        yield "two patients", f"{series.patients} patients share this series UID"
    if header.modality in _NO_IMAGES:
        yield "no image", f"{header.modality} holds no image to segment"
    if header.pixels.fault == "no image":
        yield "no image", f"{plural(len(series.planes), 'file')} of {header.modality or 'no modality'} without pixels"
    if found := sorted(words & _LOCALIZERS):
        yield "localizer", f"its image type says {found[0]}"
    if found := sorted(words & _PROJECTIONS):
        yield "projection", f"its image type says {found[0]}: a picture made from slices"
    if header.samples != 1 or header.photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        yield "colour", f"{header.photometric or header.samples} pixels: a picture, not measurements"
    if header.sop_class.startswith(_SECONDARY_CAPTURE) and not series.planes[0].orientation:
        yield "no orientation", "a secondary capture, which lies nowhere in the patient"


def _has_readable_pixels(series: Series) -> _Refusals:
    kinds: tuple[Kind, ...] = ("transfer syntax", "truncated", "lying lengths")
    for kind in kinds:
        bad = [plane for plane in series.planes if plane.header.pixels.fault == kind]
        if bad:
            yield kind, f"{len(bad)} of {plural(len(series.planes), 'slice')}: {_worst(bad)}{_places(bad)}"
    for plane in series.planes:
        header = plane.header
        odd_bits = header.bits_allocated not in (8, 16, 32) or not (
            0 < header.bits_stored <= header.high_bit + 1 <= header.bits_allocated
        )
        if odd_bits or (header.bits_allocated == 8 and header.transfer_syntax == BIG_ENDIAN):
            bits = f"{header.bits_stored} of {header.bits_allocated} bits with high bit {header.high_bit}"
            yield "pixel format", f"{bits} cannot be read"
        if not (math.isfinite(plane.slope) and math.isfinite(plane.intercept)):
            yield "pixel format", "a rescale slope or intercept that is no number"
        if plane.slope == 0 or header.modality_lut:
            yield "pixel format", "a rescale slope of 0" if plane.slope == 0 else "a modality look-up table"
    if len({(plane.header.signed, plane.header.photometric) for plane in series.planes}) > 1:
        yield "pixel format", "slices differ in sign or photometric interpretation"
    if len({plane.header.units for plane in series.planes}) > 1:
        yield "pixel format", "slices differ in their units"


def _has_places(series: Series) -> _Refusals:
    planes, header = series.planes, series.header
    if header.frames > 1 and len(planes) < header.frames and planes[0].position is None:
        yield "no orientation", f"a file of {header.frames} frames without a position for each"
    lacking = [plane for plane in planes if plane.position is None or not plane.orientation]
    if lacking:
        yield "no orientation", f"{len(lacking)} of {plural(len(planes), 'slice')} without position or orientation"
    wrong = [plane for plane in planes if not lies_right(plane.orientation)]
    if wrong:
        cosines = " ".join(f"{value:g}" for value in wrong[0].orientation)
        yield "no orientation", f"the cosines {cosines} are not two unit vectors at a right angle"
    spacing = planes[0].pixel_spacing
    if len(spacing) != 2 or min(spacing) <= 0:
        yield "no orientation", "no pixel spacing"
    elif max(spacing) > _LARGEST_MM:
        yield "no orientation", f"pixels of {max(spacing):g} mm; expected at most {_LARGEST_MM:g} mm"
    if series.conflicts:
        at = ", ".join(f"{place:.1f}" for place in series.conflicts[:_SHOWN])
        more = f" and {len(series.conflicts) - _SHOWN} more" if len(series.conflicts) > _SHOWN else ""
        yield "duplicates", f"different pixels at one place: {plural(len(series.conflicts), 'place')}, at {at}{more} mm"
    if len(planes) == 1:
        yield "single slice", "one slice only"


def _lies_straight(series: Series) -> _Refusals:
    stack = stack_of(series.planes)
    if not stack.usual_step_mm <= _LARGEST_MM:
        yield "no orientation", f"slices {stack.usual_step_mm:g} mm apart; expected at most {_LARGEST_MM:g} mm"
    limit = min(stack.spacing_mm) / 2
    if stack.stray_mm > limit:
        yield "not aligned", f"slices are shifted sideways by up to {stack.stray_mm:.2f} mm; expected < {limit:.2f} mm"
    if stack.tilt_degrees > 60:
        yield "not aligned", f"slices drift sideways at {stack.tilt_degrees:.0f} degrees"


def _steps(stack: Stack) -> tuple[Kind, str]:
    """Tell even steps from missing slices, from two kinds of steps, and from steps that are uneven throughout."""
    steps, usual = stack.steps, stack.usual_step_mm
    if stack.unevenness_mm <= NEARLY_EVEN * usual and np.abs(steps - usual).max() <= 2 * NEARLY_EVEN * usual:
        return "", ""
    gaps = np.flatnonzero(steps > GAP * usual)
    if len(gaps) and _longest_run(gaps) < _RUN:
        return "missing slices", _missing(stack, [int(gap) for gap in gaps])
    listed = Counter(np.round(steps, 1).tolist()).most_common(_SHOWN)
    found = ", ".join(f"{count} of {step:g} mm" for step, count in sorted(listed))
    changes = int((np.abs(np.diff(steps)) > NEARLY_EVEN * usual).sum())
    extremes = steps.max() > GAP * usual or steps.min() < usual / GAP
    if extremes or changes <= 2:
        return "mixed spacing", f"steps of several sizes: {found}"
    return "uneven steps", f"uneven steps from {steps.min():.2f} to {steps.max():.2f} mm"


def _longest_run(places: NDArray[np.intp]) -> int:
    """Return the most neighbours among ascending indices: large steps in a row are a second spacing, not gaps."""
    breaks = np.flatnonzero(np.diff(places) > 1) + 1
    return max(len(run) for run in np.split(places, breaks))


def _missing(stack: Stack, gaps: list[int]) -> str:
    step, places = stack.usual_step_mm, list[float]()
    for gap in gaps:
        below = float(stack.heights[gap])
        places += [below + step * (1 + number) for number in range(max(1, round(float(stack.steps[gap]) / step) - 1))]
    at = ", ".join(f"{place:.1f}" for place in places[:_SHOWN])
    more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
    slices = plural(len(places), "slice")
    return f"{slices} missing at {at}{more} mm: {len(stack.heights)} slices with steps of {step:g} mm otherwise"


def _notes(series: Series, stack: Stack, uneven: str) -> Iterator[str]:
    yield from (*_lie_notes(series, stack, uneven), *_value_notes(series))
    if series.equal_duplicates:
        yield f"{plural(series.equal_duplicates, 'equal duplicate')} left out"
    if series.part:
        yield f"part {series.part} of a series that was split by {', '.join(series.split_by)}"
    if series.damaged_beside:
        yield f"{plural(series.damaged_beside, 'damaged file')} beside it: slices may be missing at its ends"
    promised = series.header.images_in_acquisition
    if promised > len(series.planes) + series.equal_duplicates and not series.part:
        yield f"{len(series.planes)} slices where the header speaks of {promised}"


def _lie_notes(series: Series, stack: Stack, uneven: str) -> Iterator[str]:
    if uneven:
        yield f"{uneven}, resampled to {stack.usual_step_mm:g} mm"
    elif stack.unevenness_mm > EVEN * stack.usual_step_mm:
        off = f"up to {stack.unevenness_mm:.2f} mm off steps of {stack.step_mm:.2f} mm"
        yield f"irregular within tolerance: slices {off}"
    if stack.is_sheared:
        yield f"gantry tilt of {stack.tilt_degrees:.2g} degrees, corrected by shearing"
    elif stack.stray_mm > DRIFT * min(stack.spacing_mm):
        yield f"irregular within tolerance: slices shifted sideways by up to {stack.stray_mm:.2f} mm"
    if is_oblique(grid_of(stack)):
        yield f"oblique by {_off_axis_degrees(stack):.1f} degrees"
    thickness = series.planes[0].thickness
    if thickness and stack.usual_step_mm > 1.9 * thickness:
        yield f"steps of {stack.usual_step_mm:g} mm with slices {thickness:g} mm thick: wide gaps"
    if _alternates([plane.acquisition for plane in series.planes]):
        yield "slices of several acquisitions alternate: two scans may lie in one series"
    if not series.header.series_uid:
        yield "no series UID: its folder is taken for one series"


def _alternates(values: list[str]) -> bool:
    """Say whether values come again after others, most of the time, rather than one after the other."""
    changes = sum(a != b for a, b in pairwise(values))
    return changes > max(len(set(values)) - 1, len(values) // 2)


def _value_notes(series: Series) -> Iterator[str]:
    header = series.header
    if header.modality == "PT":
        yield f"PET in {header.units or 'units not given'}" + (", not SUV" if header.units != "GML" else "")
    if header.photometric == "MONOCHROME1":
        yield "MONOCHROME1: " + ("values are kept" if header.modality in ("CT", "PT") else "values are inverted")
    if header.overlay_bits:
        yield "an overlay in its high bits, masked off"
    if len({(plane.slope, plane.intercept) for plane in series.planes}) > 1:
        yield "a rescale of its own for each slice"


def _off_axis_degrees(stack: Stack) -> float:
    return float(np.degrees(np.arccos(np.clip(np.abs(stack.axes).max(axis=1).min(), 0, 1))))


def _worst(planes: list[Plane]) -> str:
    return planes[0].header.pixels.detail


def _places(planes: list[Plane]) -> str:
    """Say where planes lie, so that a slice can be found without its file's name, which may be a patient's."""
    heights = [height for plane in planes if (height := height_of(plane)) is not None]
    if not heights:
        return ""
    at = ", ".join(f"{height:.1f}" for height in heights[:_SHOWN])
    return f" (at {at}{' ...' if len(heights) > _SHOWN else ''} mm)"
