"""The check-up: every case looked at once in parallel, then every check on what was seen. Read this first."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.datasets.base import Case, Dataset, Manifest, write_files_of
from pipeline.doctor.cohort import look_at_list
from pipeline.doctor.duplicates import Twin, check_channels, check_twins, find_twins
from pipeline.doctor.files import check_files
from pipeline.doctor.findings import Finding, in_order
from pipeline.doctor.grids import check_grids, check_units
from pipeline.doctor.intensities import check_intensities, names_ct
from pipeline.doctor.labels import check_label
from pipeline.doctor.outliers import find_outliers
from pipeline.doctor.overview import look_over
from pipeline.doctor.series import audit_folders, check_series, modality_of
from pipeline.errors import PipelineError
from pipeline.imaging.block import member_of, source_file
from pipeline.imaging.examine import Examination, examine_block, examine_case
from pipeline.machine import Machine
from pipeline.parallel import Failure, Job, failures, map_cases
from pipeline.progress import Progress

_BYTES_PER_FILE_BYTE = 40
"""Peak memory while a case is looked at, against the size of its compressed files."""
_BASE_BYTES = 300_000_000


@dataclass(frozen=True)
class Expectation:
    """What a configuration asks of a data set; nothing where there is none."""

    ct_because: str = ""
    """Why every image must be CT, in words; empty where nothing says so."""
    needs_labels: bool = False
    """Whether the task reads label volumes, so that their values must have a meaning."""


@dataclass(frozen=True)
class CheckUp:
    """What was seen, and what is to be said about it."""

    manifest: Manifest
    exams: Mapping[str, Examination]
    """By case id; without the cases whose process failed."""
    findings: tuple[Finding, ...]
    label_twins: tuple[Twin, ...] = field(default=())
    twins: tuple[Twin, ...] = field(default=())


def check_up(
    manifest: Manifest, machine: Machine, progress: Progress, expectation: Expectation = Expectation()
) -> CheckUp:
    """Look at every case of a data set once, and say what is wrong or odd.

    Args:
        manifest: The cases, and what their label values mean.
        machine: Processes and memory to use.
        progress: Shows bars.
        expectation: What a configuration asks of the data.

    Returns:
        Findings by severity; no fault of a file raises.
    """
    exams, failed = _examine(manifest.cases, machine, progress)
    series = audit_folders(manifest.cases, machine, progress)
    known = [exams[case.case_id] for case in manifest.cases if case.case_id in exams]
    twins, label_twins = find_twins(known, machine, progress)
    by_id = {case.case_id: case for case in manifest.cases}
    modalities = {case.case_id: modality_of(case, series) for case in manifest.cases}

    found = [_failed(case_id, reason) for case_id, reason in failed.items()]
    for exam in known:
        found += check_files(exam)
        found += check_grids(exam)
        found += check_label(by_id[exam.case_id], exam, manifest.labels)
    found += check_series(manifest.cases, series)
    found += check_channels(known)
    found += check_units(known)
    found += check_intensities(known, *_ct(manifest, modalities, expectation))
    found += check_twins(by_id, twins, label_twins)
    found += look_over(known)
    found += look_at_list(manifest, known)
    found += find_outliers(known, manifest.labels)
    found += _unmet(manifest, expectation)
    return CheckUp(manifest, exams, tuple(in_order(found)), tuple(label_twins), tuple(twins))


def make_files(dataset: Dataset, manifest: Manifest, machine: Machine, progress: Progress) -> None:
    """Make the volumes of a data set that creates its own, where they are not there yet.

    Raises:
        PipelineError: a volume could not be made.
    """
    if not dataset.makes_files:
        return
    first = {source_file(path): case for case in manifest.cases for path in case.images.values()}
    jobs = [Job(case.case_id, (dataset, case)) for file, case in first.items() if not file.exists()]
    made = map_cases(
        write_files_of,
        jobs,
        workers=machine.worker_count(),
        memory_bytes=machine.memory_bytes(),
        what="make volumes",
        progress=progress,
    )
    for message in failures(made).values():
        raise PipelineError(message)


def _examine(
    cases: Sequence[Case], machine: Machine, progress: Progress
) -> tuple[dict[str, Examination], dict[str, str]]:
    """Return case id -> what was seen, and case id (or array of a file) -> why nothing could be."""
    blocks: dict[tuple[Path, str], dict[str, int]] = {}
    single = []
    for case in cases:
        member = member_of(next(iter(case.images.values()))) if len(case.images) == 1 else None
        if member is None:
            single.append(case)
        else:
            blocks.setdefault((member.file, member.array), {})[case.case_id] = member.index
    found: dict[str, Any] = {}
    if single:
        jobs = [Job(case.case_id, (case.images, case.label, case.case_id), _memory(case)) for case in single]
        found |= map_cases(examine_case, jobs, workers=machine.worker_count(), memory_bytes=machine.memory_bytes(),
                           what="look at cases", progress=progress)  # fmt: skip
    if blocks:
        found |= _examine_blocks(blocks, machine, progress)
    return {name: one for name, one in found.items() if isinstance(one, Examination)}, failures(found)


def _examine_blocks(
    blocks: Mapping[tuple[Path, str], Mapping[str, int]], machine: Machine, progress: Progress
) -> dict[str, Any]:
    """Return case id -> what was seen of the volumes in arrays, and array -> failure."""
    jobs = [
        Job(f"{file}, array {array}", (file, array, members), _size(file) * _BYTES_PER_FILE_BYTE)
        for (file, array), members in blocks.items()
    ]
    whole = map_cases(examine_block, jobs, workers=machine.worker_count(), memory_bytes=machine.memory_bytes(),
                      what="look at arrays of volumes", progress=progress)  # fmt: skip
    found: dict[str, Any] = {}
    for name, exams in whole.items():
        found |= {name: exams} if isinstance(exams, Failure) else exams
    return found


def _failed(case_id: str, reason: str) -> Finding:
    found, separator, remedy = reason.removeprefix(f"case {case_id}: ").rpartition(". ")
    is_case = ", array " not in case_id
    return Finding(
        "error",
        case_id if is_case else "",
        "unreadable file",
        f"{found}." if separator else reason,
        remedy if separator else "Check the file.",
    )


def _ct(manifest: Manifest, modalities: Mapping[str, str], expectation: Expectation) -> tuple[tuple[str, ...], str]:
    """Return the channels that must be CT, and why."""
    named = tuple(channel for channel in manifest.channels if names_ct(channel))
    if named:
        return named, "its channel is called CT"
    if expectation.ct_because and len(manifest.channels) == 1:
        return manifest.channels, expectation.ct_because
    told = {modality for modality in modalities.values() if modality}
    is_ct = told == {"CT"} and all(modalities.values())
    return (manifest.channels, "its series is CT") if is_ct else ((), "")


def _unmet(manifest: Manifest, expectation: Expectation) -> Iterator[Finding]:
    if expectation.needs_labels and not manifest.labels:
        yield Finding(
            "error",
            "",
            "no labels",
            "neither the config nor the data set says what the label values mean.",
            "Add for example 'labels: {0: background, 1: liver}' to the config.",
        )
    classed = [case for case in manifest.cases if case.classes]
    without = [case.case_id for case in manifest.cases if not case.classes and case.split != "test"]
    if classed and without:
        for case_id in without:
            yield Finding(
                "warning",
                case_id,
                "case without class",
                "no class is given, where other cases have one.",
                "Fill in the column 'class', or leave the case out.",
            )


def _memory(case: Case) -> int:
    files = [*case.images.values(), *([case.label] if case.label else [])]
    return _BASE_BYTES + _BYTES_PER_FILE_BYTE * sum(map(_size, files))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
