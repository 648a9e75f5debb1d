"""What the audit of `dicom/` says of cases that are folders of a DICOM series."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.datasets.base import Case
from pipeline.doctor.findings import Finding
from pipeline.machine import Machine
from pipeline.progress import Progress

if TYPE_CHECKING:
    from pipeline.dicom.audit import Judged

_SAME_MM = 0.05


def audit_folders(cases: Sequence[Case], machine: Machine, progress: Progress) -> "dict[Path, list[Judged]]":
    """Judge the series in every folder that a case names, from headers alone; folder -> its series."""
    folders = {path.resolve(): path for case in cases for path in _files(case) if path.is_dir()}
    if not folders:
        return {}
    from pipeline.dicom.audit import audit

    found: dict[Path, list[Judged]] = {path: [] for path in folders.values()}
    for judged in audit(sorted(folders), workers=machine.worker_count(), progress=progress).judged:
        file = Path(judged.series.header.path).resolve()
        home = next((parent for parent in file.parents if parent in folders), None)
        if home is not None:
            found[folders[home]].append(judged)
    return found


def check_series(cases: Sequence[Case], found: "Mapping[Path, Sequence[Judged]]") -> Iterator[Finding]:
    """Turn verdicts into findings: a refused series is an error, what a user should know of a usable one a note."""
    for case in cases:
        for path in _files(case):
            series = found.get(path, ())
            if len(series) == 1:
                yield from _of_series(case.case_id, series[0])
            elif len(series) > 1:
                parts = ", ".join(f"{one.series.header.modality} of {len(one.series.planes)} slices" for one in series)
                yield Finding(
                    "error",
                    case.case_id,
                    "several series",
                    f"its folder holds {len(series)} series: {parts}.",
                    "Give each series its own folder.",
                )


def modality_of(case: Case, found: "Mapping[Path, Sequence[Judged]]") -> str:
    """Return the modality that the headers of a case's first series give; empty without one."""
    series = next((found[path] for path in _files(case) if found.get(path)), ())
    return series[0].series.header.modality if series else ""


def _of_series(case_id: str, judged: "Judged") -> Iterator[Finding]:
    verdict = judged.verdict
    if not verdict.is_usable:
        yield Finding(
            "error",
            case_id,
            "refused series",
            f"the audit refuses it: {verdict.kind}: {verdict.reason}.",
            "Get the series again, or leave the case out.",
        )
        return
    for note in verdict.notes:
        is_damage = "damaged" in note
        yield Finding(
            "warning" if is_damage else "info",
            case_id,
            "damaged file" if is_damage else "series",
            f"series: {note}.",
            "Get the series again." if is_damage else "",
        )
    yield from _thickness(case_id, judged)
    yield from _storage(case_id, judged)


def _thickness(case_id: str, judged: "Judged") -> Iterator[Finding]:
    """Tell a thickness that is not the step: who takes the one for the other gets volumes wrong."""
    from pipeline.dicom.geometry import stack_of

    planes = judged.series.planes
    thickness, step = planes[0].thickness, stack_of(planes).usual_step_mm
    if thickness and abs(thickness - step) > _SAME_MM:
        said = "slices overlap" if thickness > step else "there are gaps between slices"
        yield Finding(
            "info",
            case_id,
            "step is not thickness",
            f"series: slices lie {step:.3g} mm apart, where SliceThickness says {thickness:g} mm: {said}.",
            "Nothing: positions decide the spacing here. Mind it where another program wrote the spacing.",
        )


def _storage(case_id: str, judged: "Judged") -> Iterator[Finding]:
    """Say how the series lies on disk, so that nobody wonders whether it was read in full."""
    from pipeline.dicom.pixel_data import ENCAPSULATED

    planes = judged.series.planes
    header = judged.series.header
    files = {plane.header.path for plane in planes}
    kind = ENCAPSULATED.get(header.transfer_syntax, "uncompressed")
    named = "" if all(name.lower().endswith((".dcm", ".ima")) for name in files) else ", file names without an ending"
    modality = header.modality or "no modality"
    yield Finding(
        "info", case_id, "series", f"series: {modality}, {len(planes)} slices in {len(files)} files, {kind}{named}."
    )


def _files(case: Case) -> list[Path]:
    return list(dict.fromkeys([*case.images.values(), *([case.label] if case.label else [])]))
