"""What the doctor says of single files: missing, unreadable, damaged, without content, or on a doubtful grid."""

from collections.abc import Iterator

from pipeline.doctor.findings import Finding
from pipeline.errors import listed, plural
from pipeline.imaging.examine import Examination, FileFacts
from pipeline.imaging.geometry import TOLERANCE_MM
from pipeline.imaging.nifti_forms import Forms
from pipeline.imaging.volume import Geometry

_SPACING_MM = (0.02, 25.0)
"""Voxel sizes beyond these belong to no clinical CT or MR."""
_MOST_EXTENT_MM = 2500.0
_MOST_PLANE_MM = 1000.0
_BODY_MM = (20.0, 2500.0)
_SHEAR_DEGREES = 0.1
_REFUSALS = (
    ("header lies", "lying header"),
    ("contradicts itself", "lying header"),
    ("cut short", "damaged file"),
    ("damaged", "damaged file"),
    ("right angle", "sheared grid"),
    ("voxel size", "impossible spacing"),
    ("impossible grid", "impossible spacing"),
    ("NaN or infinite numbers", "lying header"),
)
"""What the reader's words mean, first match first."""


def check_files(exam: Examination) -> Iterator[Finding]:
    """Check each file of a case by itself: whether it can be read, its voxels, its grid, its header."""
    names = {channel: "image" if len(exam.images) == 1 else f"channel {channel}" for channel in exam.images}
    told: set[str] = set()
    for channel, facts in exam.images.items():
        if facts.refused and str(facts.path) not in told:
            yield _refused(exam.case_id, names[channel], facts)
        elif not facts.refused:
            yield from _check_voxels(exam.case_id, names[channel], facts)
            if str(facts.path) not in told:
                yield from _check_grid(exam.case_id, names[channel], facts)
        told.add(str(facts.path))
    if exam.label is None:
        return
    if exam.label.refused:
        yield _refused(exam.case_id, "label", exam.label)
        return
    yield from _check_forms(exam.case_id, "label", exam.label.forms)
    yield from _check_label_file(exam)


def _refused(case_id: str, name: str, facts: FileFacts) -> Finding:
    if not facts.is_there:
        return Finding(
            "error",
            case_id,
            "missing file",
            f"{name}: there is no file {facts.path}.",
            "Correct the path, or restore the file.",
        )
    kind = next((kind for words, kind in _REFUSALS if words in facts.refused), "unreadable file")
    found, separator, remedy = facts.refused.rstrip(".").rpartition(". ")
    if not separator:
        found, remedy = remedy, "Check the file, or leave the case out"
    return Finding("error", case_id, kind, f"{name}: {found}.", f"{remedy}.")


def _check_voxels(case_id: str, name: str, facts: FileFacts) -> Iterator[Finding]:
    values = facts.intensity
    if values is None:
        return
    if values.nan or values.infinite:
        broken = [
            plural(number, noun)
            for number, noun in ((values.nan, "NaN voxel"), (values.infinite, "infinite voxel"))
            if number
        ]
        share = (values.nan + values.infinite) / values.voxels
        yield Finding(
            "error",
            case_id,
            "NaN or infinity",
            f"{name}: {listed(broken)}, {share:.2g} of the image.",
            "Replace them in the source (a background value, where they lie outside the body), or leave the case out.",
        )
    elif values.minimum == values.maximum:
        yield Finding(
            "error",
            case_id,
            "constant image",
            f"{name}: every voxel is {values.minimum:g}.",
            "Export it again, or leave the case out.",
        )


def _check_grid(case_id: str, name: str, facts: FileFacts) -> Iterator[Finding]:
    if facts.geometry is None:
        return
    if problem := _absurd(facts.geometry):
        yield Finding("warning", case_id, "absurd spacing", f"{name}: {problem}", "Mend the spacing in the header.")
    yield from _check_forms(case_id, name, facts.forms)


def _absurd(geometry: Geometry) -> str:
    """Say why a grid is of no patient; an empty text where it can be."""
    smallest, largest = min(geometry.spacing_mm), max(geometry.spacing_mm)
    extents = sorted(geometry.extent_mm)
    is_absurd = (
        smallest < _SPACING_MM[0]
        or largest > _SPACING_MM[1]
        or extents[2] > _MOST_EXTENT_MM
        or extents[1] > _MOST_PLANE_MM
    )
    if not is_absurd:
        return ""
    said = f"voxels of {' x '.join(f'{mm:.4g}' for mm in geometry.spacing_mm)} mm (D, H, W), "
    said += f"an image of {' x '.join(f'{mm:.4g}' for mm in geometry.extent_mm)} mm"
    for factor, unit in ((1000.0, "metres"), (0.001, "micrometres"), (10.0, "centimetres")):
        if all(_SPACING_MM[0] <= mm * factor <= _SPACING_MM[1] for mm in geometry.spacing_mm) and (
            _BODY_MM[0] <= extents[2] * factor <= _BODY_MM[1]
        ):
            return f"{said}: no patient is that {'small' if factor > 1 else 'large'}; the numbers fit {unit}."
    return f"{said}: that fits no patient."


def _check_forms(case_id: str, name: str, forms: Forms | None) -> Iterator[Finding]:
    if forms is None:
        return
    if forms.sform_shear_degrees > _SHEAR_DEGREES and forms.used != "sform":
        yield Finding(
            "warning",
            case_id,
            "sheared grid",
            f"{name}: the axes of its sform are {forms.sform_shear_degrees:.2g} degrees off a right angle; "
            "the qform is used instead.",
            "Resample the image onto a rectangular grid, or remove the wrong one of the two.",
        )
    elif forms.apart_mm > TOLERANCE_MM:
        other = "qform" if forms.used == "sform" else "sform"
        yield Finding(
            "warning",
            case_id,
            "sform and qform differ",
            f"{name}: sform and qform put a corner of the image {forms.apart_mm:.4g} mm from each other; here the "
            f"{forms.used} is used, another program may take the {other}.",
            "Find out which is right, and copy it over the other (or set the code of the wrong one to 0).",
        )
    if forms.unit in ("metre", "micrometre"):
        yield Finding("info", case_id, "unit", f"{name}: its header is in {forms.unit}s; it was turned into mm.")


def _check_label_file(exam: Examination) -> Iterator[Finding]:
    assert exam.label is not None
    for channel, image in exam.images.items():
        is_same_file = image.path == exam.label.path
        if is_same_file or (image.sha256 and image.sha256 == exam.label.sha256):
            named = f"channel {channel}" if len(exam.images) > 1 else "image"
            how = "are one file" if is_same_file else "have the same bytes"
            yield Finding(
                "error", exam.case_id, "label is the image", f"{named} and label {how}.", "Correct the manifest."
            )
