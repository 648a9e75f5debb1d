"""Repairs that are safe: planned from the findings, made into new files beside a new manifest, each written down."""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.manifest import absolute
from pipeline.datasets.write_manifest import refuse_foreign, write_manifest
from pipeline.doctor.checkup import CheckUp
from pipeline.doctor.findings import Finding
from pipeline.doctor.grids import how_to_mend
from pipeline.errors import ConfigError, DataError, plural
from pipeline.imaging.block import source_file
from pipeline.imaging.examine import Examination
from pipeline.imaging.geometry import difference
from pipeline.imaging.mend import mend_label
from pipeline.machine import Machine
from pipeline.parallel import Failure, Job, map_cases
from pipeline.progress import Progress
from pipeline.workspace import write_text

Action = Literal["turn label", "copy grid", "cast label", "drop case"]

_GRID_KINDS = ("label stored turned", "label grid differs", "mirrored label")
_COPY_KINDS = ("one patient in two groups", "duplicate in test and train")
_COPIES_DIFFER = ("duplicate of another class",)
"""Errors that only a person can settle; the cases stay, and so does the error."""
_LOG = ("case", "action", "why", "source", "sha256_before", "result", "sha256_after")


@dataclass(frozen=True)
class Repair:
    """One thing to do about one case."""

    case_id: str
    action: Action
    why: str


def plan_repairs(checkup: CheckUp) -> tuple[Repair, ...]:
    """Decide what to do: mend labels that can be mended, leave out cases with any other error.

    A copy of an earlier case is left out where both have the same label and class; where they contradict each
    other, both stay, and the error too.
    """
    errors: dict[str, list[Finding]] = {}
    for finding in checkup.findings:
        if finding.severity == "error" and finding.case_id:
            errors.setdefault(finding.case_id, []).append(finding)
    broken = {case.case_id for case in checkup.manifest.cases if _is_broken(case, checkup, errors)}
    plan = [
        repair
        for case in checkup.manifest.cases
        if (repair := _plan(case, checkup, errors.get(case.case_id, []), broken)) is not None
    ]
    return tuple(plan)


def remaining(checkup: CheckUp, repairs: Sequence[Repair]) -> list[Finding]:
    """Return the findings that repairs leave: of a dropped case none, of a mended one all but its grid and type."""
    dropped = {repair.case_id for repair in repairs if repair.action == "drop case"}
    mended = {repair.case_id for repair in repairs} - dropped
    return [
        finding
        for finding in checkup.findings
        if finding.case_id not in dropped
        and not (finding.case_id in mended and finding.kind in (*_GRID_KINDS, "label stored as float"))
    ]


def to_text(repairs: Sequence[Repair]) -> str:
    """Return one line a repair."""
    return "\n".join(f"  {repair.action}  {repair.case_id}: {repair.why}" for repair in repairs)


def refuse_output(manifest: Manifest, sources: Iterable[Path], output: Path) -> None:
    """Make sure that nothing of the source, and no file of another kind, would be written over.

    Args:
        manifest: What was checked.
        sources: Its own file, and the configuration that names it.
        output: The manifest to write.

    Raises:
        ConfigError: the output is the manifest that was checked, or would replace one of its files.
    """
    refuse_foreign(output)
    written = [output, output.with_suffix(".yaml"), log_path(output)]
    written += [_target(output, case.case_id) for case in manifest.cases]
    refuse_written(manifest, sources, written, f"--output {output}")


def refuse_written(manifest: Manifest, sources: Iterable[Path], written: Iterable[Path], option: str) -> None:
    """Make sure that files to write are none of the source.

    Raises:
        ConfigError: one is; `option` is named as what said it.
    """
    files = {
        source_file(path).resolve()
        for case in manifest.cases
        for path in (*case.images.values(), case.label)
        if path is not None
    }
    files |= {path.resolve() for source in sources for path in (source, source.with_suffix(".yaml"))}
    for path in written:
        if path.resolve() in files:
            raise ConfigError(f"{option}: {path} is a file of the source, which is never modified. Name a new one.")


def make_repairs(
    checkup: CheckUp, repairs: Sequence[Repair], output: Path, machine: Machine, progress: Progress
) -> Manifest:
    """Write mended labels, the new manifest, and the log of what was done, in this order.

    Labels go to `NAME_labels/` beside the manifest `NAME.csv`, the log to `NAME_repairs.csv`. The same command
    gives the same bytes again.

    Returns:
        The new manifest.

    Raises:
        DataError: no case is left, or a label could not be mended.
    """
    todo = {repair.case_id: repair for repair in repairs}
    left = [case for case in checkup.manifest.cases if not _is_dropped(todo.get(case.case_id))]
    if not left:
        raise DataError(f"{plural(len(checkup.manifest.cases), 'case')}, and none can be kept; nothing was written.")
    jobs = [
        Job(
            case.case_id,
            (
                case.label,
                _target(output, case.case_id),
                _grid(checkup.exams[case.case_id], todo[case.case_id]),
                case.case_id,
            ),
            300 << 20,
        )
        for case in left
        if case.case_id in todo
    ]
    made = map_cases(
        mend_label,
        jobs,
        workers=machine.worker_count(),
        memory_bytes=machine.memory_bytes(),
        what="mend labels",
        progress=progress,
    )
    failed = [result.message for result in made.values() if isinstance(result, Failure)]
    if failed:
        raise DataError(f"{failed[0]} No manifest was written.")
    cases = tuple(
        case.model_copy(update={"label": absolute(_target(output, case.case_id))}) if case.case_id in made else case
        for case in left
    )
    manifest = checkup.manifest.model_copy(update={"cases": cases})
    write_manifest(manifest, output)
    write_text(log_path(output), _log(checkup, repairs, made, output))
    return manifest


def log_path(output: Path) -> Path:
    """Return where the log of the repairs behind a manifest lies."""
    return output.with_name(f"{output.stem}_repairs.csv")


def _is_broken(case: Case, checkup: CheckUp, errors: Mapping[str, Sequence[Finding]]) -> bool:
    """Whether a case is left out for its own faults, so that a copy of it is all that there is."""
    own = _plan(case, checkup, errors.get(case.case_id, []), {one.case_id for one in checkup.manifest.cases})
    return _is_dropped(own)


def _plan(case: Case, checkup: CheckUp, errors: Sequence[Finding], broken: Collection[str]) -> Repair | None:
    kinds = {finding.kind for finding in errors}
    beyond = [finding for finding in errors if finding.kind not in (*_GRID_KINDS, *_COPY_KINDS, *_COPIES_DIFFER)]
    exam = checkup.exams.get(case.case_id)
    if beyond or exam is None:
        return Repair(case.case_id, "drop case", " ".join(finding.found for finding in beyond) or "it was not read.")
    if kinds & set(_COPY_KINDS) and (copy := _superfluous(case, checkup, broken)):
        return Repair(case.case_id, "drop case", f"a copy of {copy}, with the same label and class.")
    grids = [finding for finding in errors if finding.kind in _GRID_KINDS]
    if grids and exam.geometry and exam.label and exam.label.geometry:
        mend = how_to_mend(exam.geometry, exam.label.geometry)
        action: Action = {"turn": "turn label", "copy": "copy grid"}.get(mend, "drop case")  # type: ignore[assignment]
        return Repair(case.case_id, action, grids[0].found)
    if any(one.case_id == case.case_id and one.kind == "label stored as float" for one in checkup.findings):
        return Repair(case.case_id, "cast label", f"whole numbers stored as {exam.label.dtype if exam.label else ''}.")
    return None


def _superfluous(case: Case, checkup: CheckUp, broken: Collection[str]) -> str:
    """Return the earlier case that makes this one superfluous; empty where their channels, labels or classes differ.

    A case that is left out itself (`broken`) makes no other superfluous.
    """
    by_id = {one.case_id: one for one in checkup.manifest.cases}
    for twin in checkup.twins:
        other = by_id[twin.of]
        if twin.case_id != case.case_id or twin.how == "turned" or case.classes != other.classes:
            continue
        if twin.channel or twin.of in broken or case.annotated != other.annotated:
            continue
        has_labels = case.label is not None or other.label is not None
        if not has_labels or _same_label(case, other, checkup):
            return twin.of
    return ""


def _same_label(case: Case, other: Case, checkup: CheckUp) -> bool:
    if case.label == other.label:
        return True
    root = {twin.case_id: twin.of for twin in checkup.label_twins}
    return root.get(case.case_id, case.case_id) == root.get(other.case_id, other.case_id)


def _is_dropped(repair: Repair | None) -> bool:
    return repair is not None and repair.action == "drop case"


def _grid(exam: Examination, repair: Repair) -> object:
    """Return the grid that a mended label gets: its own, where only its type changes."""
    assert exam.label is not None
    if exam.geometry is None or exam.label.geometry is None:
        return exam.label.geometry
    is_one = not difference(exam.geometry, exam.label.geometry)
    return exam.label.geometry if repair.action == "cast label" and is_one else exam.geometry


def _target(output: Path, case_id: str) -> Path:
    return output.with_name(f"{output.stem}_labels") / f"{case_id}.nii.gz"


def _log(checkup: CheckUp, repairs: Sequence[Repair], made: Mapping[str, tuple[str, str]], output: Path) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_LOG)
    by_id = {case.case_id: case for case in checkup.manifest.cases}
    for repair in repairs:
        for row in _log_rows(
            by_id[repair.case_id], checkup.exams.get(repair.case_id), made.get(repair.case_id), output
        ):
            writer.writerow([repair.case_id, repair.action, repair.why, *row])
    return stream.getvalue()


def _log_rows(
    case: Case, exam: Examination | None, hashes: tuple[str, str] | None, output: Path
) -> Iterator[tuple[str, str, str, str]]:
    """Yield source, its sha256, result and its sha256: of the mended label, or of each file of a dropped case."""
    if hashes is not None:
        target = _target(output, case.case_id)
        yield str(case.label), hashes[0], target.relative_to(output.parent).as_posix(), hashes[1]
        return
    files = {} if exam is None else {facts.path: facts.sha256 for facts in exam.images.values()}
    if exam is not None and exam.label is not None:
        files[exam.label.path] = exam.label.sha256
    for path, sha256 in (files or dict.fromkeys(case.images.values(), "")).items():
        yield str(path), sha256, "", ""
