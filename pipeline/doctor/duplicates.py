"""The same content under two ids: copies, files saved again, turned images, and one patient in two groups."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets.base import Case
from pipeline.doctor.findings import Finding
from pipeline.doctor.intensities import is_usable
from pipeline.imaging.block import member_of
from pipeline.imaging.examine import Examination, FileFacts, matches
from pipeline.machine import Machine
from pipeline.parallel import Failure, Job, map_cases
from pipeline.progress import Progress

_HOW = {
    "one file": "is the file of",
    "copy": "is a copy, byte for byte, of that of",
    "re-saved": "holds the same voxels as that of",
    "turned": "holds the same voxels, turned or mirrored, as that of",
}
_LEAST_LABEL = 100
"""Foreground voxels from which two equal labels are no coincidence."""
_SAME_SUM = 1e-7
_BYTES_PER_VOXEL = 16


@dataclass(frozen=True)
class Twin:
    """A case with the content of an earlier one."""

    case_id: str
    of: str
    """The earlier case."""
    how: str
    """`one file`, `copy`, `re-saved` or `turned`."""
    channel: str = ""
    """The channel that is shared; empty where all of them are, or of a label."""


def find_twins(exams: Sequence[Examination], machine: Machine, progress: Progress) -> tuple[list[Twin], list[Twin]]:
    """Find images, and labels, that two cases share.

    Equal bytes show in the hash. Other files whose shape, extremes and sum agree are read once more and compared
    voxel by voxel, in every orientation.

    Returns:
        Twins by image (any channel), and by label with a hundred or more labelled voxels.
    """
    images = {
        (exam.case_id, channel): facts
        for exam in exams
        for channel, facts in exam.images.items()
        if is_usable(facts) and [one.path for one in exam.images.values()].index(facts.path) == _place(exam, channel)
    }
    labels = {(exam.case_id, ""): exam.label for exam in exams if exam.label and _is_telling(exam.label)}
    twins, label_twins = _by_bytes(images), _by_bytes(labels)
    sets = [(ids, images, False) for ids in _alike(images, twins, _image_key)]
    sets += [(ids, labels, True) for ids in _alike(labels, label_twins, _label_key)]
    jobs = [
        Job(str(number), ([of[case].path for case in ids], is_label), _memory(of[ids[0]]))
        for number, (ids, of, is_label) in enumerate(sets)
    ]
    if jobs:
        found = map_cases(
            matches,
            jobs,
            workers=machine.worker_count(),
            memory_bytes=machine.memory_bytes(),
            what="compare cases that look alike",
            progress=progress,
        )
        for number, (ids, _, is_label) in enumerate(sets):
            if not isinstance(found[str(number)], Failure):
                pairs = [_Pair(ids[at], ids[earlier], how) for at, earlier, how in found[str(number)]]
                (label_twins if is_label else twins).extend(pairs)
    return _of_cases(twins, images), _of_cases(label_twins, labels)


def check_twins(cases: Mapping[str, Case], twins: Iterable[Twin], label_twins: Iterable[Twin]) -> Iterator[Finding]:
    """Say what twins mean: one patient in two groups, a leak to the test cases, or a case that counts twice."""
    known = set()
    for twin in twins:
        known.add((twin.case_id, twin.of))
        yield _finding(cases[twin.case_id], cases[twin.of], twin)
    for twin in label_twins:
        if (twin.case_id, twin.of) not in known and (twin.of, twin.case_id) not in known:
            yield Finding(
                "warning",
                twin.case_id,
                "same label",
                f"its label {_HOW[twin.how]} {twin.of}, but their images differ.",
                "One of the two labels is of another case: correct the manifest.",
            )


def check_channels(exams: Iterable[Examination]) -> Iterator[Finding]:
    """Tell channels of one case that hold the same bytes in two files."""
    for exam in exams:
        seen: dict[str, tuple[str, Path]] = {}
        for channel, facts in exam.images.items():
            earlier = seen.setdefault(facts.sha256, (channel, facts.path))
            if facts.sha256 and earlier[1] != facts.path:
                yield Finding(
                    "warning",
                    exam.case_id,
                    "same channel twice",
                    f"channels {earlier[0]} and {channel} are copies, byte for byte.",
                    "Correct the manifest.",
                )


def _finding(case: Case, other: Case, twin: Twin) -> Finding:
    said = f"its {f'channel {twin.channel}' if twin.channel else 'image'} {_HOW[twin.how]} {other.case_id}"
    if case.classes != other.classes:
        classes = f"{'|'.join(case.classes) or 'none'} against {'|'.join(other.classes) or 'none'}"
        return Finding(
            "error",
            case.case_id,
            "duplicate of another class",
            f"{said}, but the class differs: {classes}.",
            "Find out which is right, and remove the other case.",
        )
    if (case.split == "test") != (other.split == "test"):
        return Finding(
            "error",
            case.case_id,
            "duplicate in test and train",
            f"{said}; one is a training case, the other a test case.",
            "Remove one of the two.",
        )
    if case.group and other.group and case.group != other.group:
        return Finding(
            "error",
            case.case_id,
            "one patient in two groups",
            f"{said}, but they are in two groups: {case.group} against {other.group}. Folds that keep "
            "groups together would train on what they validate.",
            "Remove one of the two, or give both the same group.",
        )
    if case.patient != other.patient and case.split != "test":
        return Finding(
            "warning",
            case.case_id,
            "duplicate",
            f"{said}, and no group keeps both in one fold: a network could be validated on what it was trained on.",
            "Remove one of the two, or give both the same group.",
        )
    return Finding("warning", case.case_id, "duplicate", f"{said}: it counts twice.", "Remove one of the two.")


_Key = tuple[str, str]
"""Case and channel."""


@dataclass(frozen=True)
class _Pair:
    """A file with the content of an earlier one, of this case or another."""

    key: _Key
    of: _Key
    how: str


def _place(exam: Examination, channel: str) -> int:
    return list(exam.images).index(channel)


def _of_cases(pairs: Sequence[_Pair], files: Mapping[_Key, FileFacts]) -> list[Twin]:
    """Return one twin for each two cases that share a file; what one case shares with itself is left out."""
    channels: dict[str, set[str]] = {}
    for case_id, channel in files:
        channels.setdefault(case_id, set()).add(channel)
    shared: dict[tuple[str, str], list[_Pair]] = {}
    for pair in pairs:
        if pair.key[0] != pair.of[0]:
            shared.setdefault((pair.key[0], pair.of[0]), []).append(pair)
    twins = []
    for (case_id, of), found in shared.items():
        same = {pair.key[1] for pair in found if pair.key[1] == pair.of[1]}
        is_whole = channels[case_id] == channels[of] == same
        how = next((pair.how for pair in found if pair.how == "turned"), found[0].how)
        twins.append(Twin(case_id, of, how, "" if is_whole else found[0].key[1]))
    return twins


def _by_bytes(files: Mapping[_Key, FileFacts]) -> list[_Pair]:
    first: dict[str, _Key] = {}
    twins = []
    for key, facts in files.items():
        earlier = first.setdefault(facts.sha256, key) if facts.sha256 else key
        if earlier != key:
            how = "one file" if files[earlier].path == facts.path else "copy"
            twins.append(_Pair(key, earlier, "re-saved" if member_of(facts.path) else how))
    return twins


def _alike(files: Mapping[_Key, FileFacts], twins: Sequence[_Pair], figures: Any) -> list[list[_Key]]:
    """Return sets of files, no two with equal bytes, that may still hold the same voxels."""
    settled = {twin.key for twin in twins}
    sets: dict[Any, list[_Key]] = {}
    for key, facts in files.items():
        if key not in settled and member_of(facts.path) is None:
            sets.setdefault(figures(facts), []).append(key)
    return [part for ids in sets.values() if len(ids) > 1 for part in _with_equal_sums(ids, files)]


def _with_equal_sums(ids: Sequence[_Key], files: Mapping[_Key, FileFacts]) -> list[list[_Key]]:
    """Split cases where their sums differ by more than rounding in another order can explain."""
    totals = {case: values.total if (values := files[case].intensity) else 0.0 for case in ids}
    parts: list[list[_Key]] = []
    for case in sorted(ids, key=lambda case: totals[case]):
        values = files[case].intensity
        scale = max(abs(values.minimum), abs(values.maximum)) * values.voxels if values else 1.0
        if parts and abs(totals[case] - totals[parts[-1][-1]]) <= _SAME_SUM * scale:
            parts[-1].append(case)
        else:
            parts.append([case])
    order = list(files)
    return [sorted(part, key=order.index) for part in parts if len(part) > 1]


def _image_key(facts: FileFacts) -> tuple[object, ...]:
    assert facts.geometry is not None
    assert facts.intensity is not None
    return (*sorted(facts.geometry.shape), facts.intensity.minimum, facts.intensity.maximum)


def _label_key(facts: FileFacts) -> tuple[object, ...]:
    assert facts.geometry is not None
    return (facts.geometry.shape, tuple(sorted(facts.counts.items())))


def _is_telling(facts: FileFacts) -> bool:
    return not facts.refused and sum(count for value, count in facts.counts.items() if value) >= _LEAST_LABEL


def _memory(facts: FileFacts) -> int:
    shape = facts.geometry.shape if facts.geometry else (0, 0, 0)
    return (300 << 20) + _BYTES_PER_VOXEL * shape[0] * shape[1] * shape[2]
