"""What the doctor says of all images together: sizes, spacings, orientations, types, intensities."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.doctor.findings import Finding, counted, note, some
from pipeline.errors import plural
from pipeline.imaging.block import member_of
from pipeline.imaging.examine import Examination
from pipeline.imaging.geometry import canonical_geometry, is_oblique, orientation, reorientation_of
from pipeline.imaging.volume import Geometry

_FEW_SLICES = 8
_ANISOTROPIC = 3.0


def look_over(exams: Sequence[Examination]) -> Iterator[Finding]:
    """Describe a data set by the cases that can be read."""
    grids = {exam.case_id: exam.geometry for exam in exams if exam.geometry is not None}
    for one in (_sizes(grids), _spacings(grids), _orientations(grids), _oblique(grids), _slices(grids)):
        yield from one
    yield from _types(exams)
    yield from _units(exams)
    yield from _arrays(exams)
    yield from _intensities(exams)


def canonical_of(geometry: Geometry) -> Geometry:
    """Return the grid in canonical orientation, so that D of one case is comparable with D of another."""
    return canonical_geometry(reorientation_of(geometry))


def _sizes(grids: Mapping[str, Geometry]) -> Iterator[Finding]:
    if grids:
        shapes = np.array([geometry.shape for geometry in grids.values()])
        middle = " x ".join(f"{value:.0f}" for value in np.median(shapes, axis=0))
        several = "" if (shapes == shapes[0]).all() else f", median {middle}"
        yield note("size", f"images of {_ranges(shapes)} voxels (D, H, W){several}.")


def _spacings(grids: Mapping[str, Geometry]) -> Iterator[Finding]:
    if not grids:
        return
    spacings = np.array([geometry.spacing_mm for geometry in grids.values()])
    yield note("spacing", f"voxels of {_ranges(spacings)} mm (D, H, W).")
    thick = int((spacings.max(axis=1) >= _ANISOTROPIC * spacings.min(axis=1)).sum())
    if thick:
        yield note(
            "anisotropic",
            f"in {thick} of {plural(len(grids), 'case')} the longest side of a voxel is at least "
            f"{_ANISOTROPIC:g} times its shortest.",
            "Use kernels and strides of 1 along the thick slices at first, and a patch that is flat there.",
        )


def _orientations(grids: Mapping[str, Geometry]) -> Iterator[Finding]:
    cases: dict[str, list[str]] = {}
    for case_id, geometry in grids.items():
        cases.setdefault(orientation(geometry), []).append(case_id)
    ranked = sorted(cases.items(), key=lambda item: -len(item[1]))
    if not ranked:
        return
    usual, members = ranked[0]
    signs = "" if is_oblique(grids[members[0]]) else f", direction {_direction(grids[members[0]])}"
    said = f"{_axes(usual)}{signs}"
    if len(ranked) == 1:
        yield note("orientation", f"all cases run to {said}.")
        return
    others = "; ".join(f"to {_axes(name)} in {len(ids)} ({some(ids)})" for name, ids in ranked[1:])
    yield note(
        "orientation",
        f"{len(members)} of {len(grids)} cases run to {said}; {others}.",
        "Nothing: every case is brought to one orientation.",
    )


def _oblique(grids: Mapping[str, Geometry]) -> Iterator[Finding]:
    slanted = [case_id for case_id, geometry in grids.items() if is_oblique(geometry)]
    if slanted:
        yield note(
            "oblique",
            f"{len(slanted)} of {plural(len(grids), 'case')} oblique to the axes of the patient, "
            f"by up to {max(_degrees(grids[case]) for case in slanted):.1f} degrees: {some(slanted)}.",
            "Nothing: no voxel is interpolated for that.",
        )


def _slices(grids: Mapping[str, Geometry]) -> Iterator[Finding]:
    depths = [canonical_of(geometry).shape[0] for geometry in set(grids.values())]
    if not depths or min(depths) >= _FEW_SLICES:
        return
    every = np.array([canonical_of(geometry).shape[0] for geometry in grids.values()])
    few = int((every < _FEW_SLICES).sum())
    yield note(
        "few slices",
        f"{few} of {plural(len(every), 'case')} {'has' if few == 1 else 'have'} fewer than "
        f"{_FEW_SLICES} slices (median of all: {np.median(every):g}).",
        "Patches are padded there; keep their depth and the strides along D small.",
    )


def _types(exams: Sequence[Examination]) -> Iterator[Finding]:
    for name, dtypes in (
        ("images", [image.dtype for exam in exams for image in exam.images.values() if image.dtype]),
        ("labels", [exam.label.dtype for exam in exams if exam.label and exam.label.dtype]),
    ):
        counts = Counter(dtypes).most_common()
        if len(counts) > 1:
            yield note("mixed types", f"{name} are stored as {counted(counts)}.", "Nothing: each is read as it is.")
        elif counts:
            yield note("type", f"{name} are stored as {counts[0][0]}.")


def _units(exams: Sequence[Examination]) -> Iterator[Finding]:
    """Tell headers that name no unit of length."""
    forms = [image.forms for exam in exams for image in exam.images.values() if image.forms is not None]
    without = sum(not one.unit for one in forms)
    if without:
        yield note("no unit", f"{without} of {plural(len(forms), 'header')} of images name no unit of length.",
                   "Nothing, where the sizes above are right: mm are assumed.")  # fmt: skip


def _arrays(exams: Sequence[Examination]) -> Iterator[Finding]:
    """Tell files that hold many volumes."""
    members = [member for exam in exams for image in exam.images.values() if (member := member_of(image.path))]
    for file in dict.fromkeys(member.file for member in members):
        arrays = Counter(member.array for member in members if member.file == file)
        yield note("volumes in one file", f"{file.name} holds {sum(arrays.values())} volumes: "
                   f"{counted(arrays.most_common(), 'volumes')}.")  # fmt: skip


def _intensities(exams: Sequence[Examination]) -> Iterator[Finding]:
    for channel in dict.fromkeys(channel for exam in exams for channel in exam.images):
        found = [exam.images[channel].intensity for exam in exams if channel in exam.images]
        values = [one for one in found if one is not None and one.minimum < one.maximum]
        if values:
            lowest, highest = min(one.minimum for one in values), max(one.maximum for one in values)
            name = "intensities" if channel == "image" else f"intensities of {channel}"
            yield note("intensities", f"{name} from {lowest:.7g} to {highest:.7g}.")


def _ranges(values: NDArray[Any]) -> str:
    """Return `24-47 x 40-59 x 31-43`: the range of each column."""
    pairs = [(float(column.min()), float(column.max())) for column in np.asarray(values).T]
    return " x ".join(
        _short(low) if _short(low) == _short(high) else f"{_short(low)}-{_short(high)}" for low, high in pairs
    )


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _axes(name: str) -> str:
    """Say `LPS` (x, y, z) in the order of the arrays: `S, P, L along D, H, W`."""
    return f"{', '.join(name[::-1])} along D, H, W"


def _direction(geometry: Geometry) -> str:
    """Return the diagonal of a direction that has no other entries, else all of it."""
    matrix = np.reshape(np.asarray(geometry.direction, float), (3, 3))
    if np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-3:
        return "(" + ", ".join(f"{value:.0f}" for value in np.diag(matrix)) + ")"
    return "(" + ", ".join(f"{value:.3g}" for value in matrix.ravel()) + ")"


def _degrees(geometry: Geometry) -> float:
    largest = np.abs(np.reshape(np.asarray(geometry.direction, float), (3, 3))).max(axis=0).min()
    return float(np.degrees(np.arccos(np.clip(largest, 0, 1))))
