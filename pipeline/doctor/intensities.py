"""What the doctor says of intensities: CT that is not in HU, slopes that few headers lack, scales that differ."""

import re
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from pipeline.doctor.findings import Finding, note, some
from pipeline.errors import plural
from pipeline.imaging.examine import Examination, FileFacts, Intensity

_SURELY_HU = -300.0
"""Only CT, and PET or MR never, goes as far below 0 as this: fat is at -100 HU, lung at -800, air at -1000."""
_STORED_WATER = (700.0, 1400.0)
"""Medians of CT whose intercept of -1000 or -1024 was not applied."""
_BELOW_AIR_HU = -1500.0
_MOST_SCALES = 100.0
"""Beyond this ratio between the maxima of cases, intensities are in no common unit."""


def check_intensities(exams: Sequence[Examination], ct_channels: Sequence[str], why: str) -> Iterator[Finding]:
    """Compare the intensities of each channel over all cases with what they should be.

    Args:
        exams: All cases.
        ct_channels: Channels that are known to be CT, or that the config takes for CT.
        why: How that is known, for the text.
    """
    for channel in dict.fromkeys(channel for exam in exams for channel in exam.images):
        found = {
            exam.case_id: exam.images[channel]
            for exam in exams
            if channel in exam.images and is_usable(exam.images[channel])
        }
        name = "image" if channel == "image" else f"channel {channel}"
        yield from _check_slopes(found, name)
        is_named = channel in ct_channels
        if is_named or looks_like_ct(found):
            because = why if is_named else "the other cases of this data set are in Hounsfield units"
            yield from _check_ct(found, name, because)
            yield from _count_air(found, name)
        else:
            yield from _check_scales(found, name)


def is_usable(facts: FileFacts) -> bool:
    """Whether an image has finite intensities that differ."""
    values = facts.intensity
    return values is not None and not (values.nan or values.infinite) and values.minimum < values.maximum


def names_ct(channel: str) -> bool:
    """Whether a channel's name says CT."""
    return "ct" in re.split(r"[^a-z]+", channel.lower())


def looks_like_ct(found: Mapping[str, FileFacts]) -> bool:
    """Whether at least half of several images hold lung or air, so that the others should too."""
    with_air = [facts for facts in found.values() if facts.intensity and _is_hu(facts.intensity)]
    return len(found) > 1 and len(with_air) * 2 >= len(found)


def _is_hu(values: Intensity) -> bool:
    return -4096 <= values.minimum <= _SURELY_HU and values.maximum < 32768


def _check_ct(found: Mapping[str, FileFacts], name: str, why: str) -> Iterator[Finding]:
    for case_id, facts in found.items():
        values = facts.intensity
        assert values is not None
        if values.minimum >= 0:
            yield Finding(
                "warning",
                case_id,
                "CT without negative HU",
                f"{name}: no voxel is below 0 (from {values.minimum:g} to {values.maximum:g}, median "
                f"{values.median:g}), but {why}: air is -1000 HU.{_guess(facts, values)}",
                "Export it in HU (apply the rescale slope and intercept).",
            )
    below = [case_id for case_id, facts in found.items() if facts.intensity and facts.intensity.minimum < _BELOW_AIR_HU]
    if below:
        lowest = min(facts.intensity.minimum for facts in found.values() if facts.intensity)
        yield Finding(
            "info",
            "",
            "CT below air",
            f"{name}: {len(below)} of {len(found)} cases have voxels below "
            f"{_BELOW_AIR_HU:g} HU (down to {lowest:g}), where air is -1000: padding outside the scanner's field of "
            f"view, as a rule. Cases: {some(below)}.",
            "Nothing where a window is used (hu_window clips them).",
        )


def _count_air(found: Mapping[str, FileFacts], name: str) -> Iterator[Finding]:
    air = sum(facts.intensity is not None and _is_hu(facts.intensity) for facts in found.values())
    if air:
        yield note(
            "CT in HU", f"{name}: {air} of {plural(len(found), 'case')} go below {_SURELY_HU:g}, as lung and air do."
        )


def _guess(facts: FileFacts, values: Intensity) -> str:
    if values.maximum <= 255:
        return " It looks like a picture of 8 bits, made with a window."
    if facts.forms is not None and (facts.forms.slope, facts.forms.intercept) == (1.0, 0.0):
        if _STORED_WATER[0] <= values.median <= _STORED_WATER[1]:
            return " They look like stored values whose intercept (-1024 or -1000) was not applied."
        return " Its header has no slope and intercept: they may be stored values."
    return ""


def _check_slopes(found: Mapping[str, FileFacts], name: str) -> Iterator[Finding]:
    """Tell files without a slope among files that have one."""
    known = {case_id: facts.forms for case_id, facts in found.items() if facts.forms is not None}
    without = [case_id for case_id, forms in known.items() if (forms.slope, forms.intercept) == (1.0, 0.0)]
    if len(known) < 3 or len(without) * 2 >= len(known):
        return
    for case_id in without:
        facts = found[case_id]
        if not facts.dtype.startswith("float"):
            yield Finding(
                "warning",
                case_id,
                "no slope",
                f"{name}: its header has no slope, where {len(known) - len(without)} of {len(known)} cases have one: "
                "these may be stored values, not intensities.",
                "Compare it with the source; where the slope was lost, export it again.",
            )


def _check_scales(found: Mapping[str, FileFacts], name: str) -> Iterator[Finding]:
    highest = {
        case_id: facts.intensity.maximum
        for case_id, facts in found.items()
        if facts.intensity and facts.intensity.maximum > 0
    }
    if len(highest) < 2 or max(highest.values()) < _MOST_SCALES * min(highest.values()):
        return
    low, high = (choose(highest, key=lambda case: highest[case]) for choose in (min, max))
    yield Finding(
        "info",
        "",
        "scales differ",
        f"{name}: the largest intensity of a case goes from {highest[low]:,.4g} ({low}) to {highest[high]:,.7g} "
        f"({high}), median {median(highest.values()):,.4g}: the cases share no unit.",
        "Normalise each case by its own values (normalise: {name: zscore} or percentile), not by a fixed window.",
    )
