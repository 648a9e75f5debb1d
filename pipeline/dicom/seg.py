"""Masks as DICOM segmentation objects, at the voxel centres of the source's own frames and filed with its study."""

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dicom import elements
from pipeline.dicom.codes import Code, SegmentCode, code_of
from pipeline.dicom.header import read_elements
from pipeline.dicom.plane import Plane
from pipeline.dicom.series import Series, is_uid
from pipeline.errors import ConfigError, DataError
from pipeline.imaging.geometry import to_index
from pipeline.imaging.labels import Labels
from pipeline.imaging.volume import Geometry
from pipeline.version import __version__
from pipeline.workspace import atomic_path

_CT = "1.2.840.10008.5.1.4.1.1.2"
_AI = ("123110", "DCM", "Artificial Intelligence")
_FILING = {
    "SpecificCharacterSet": 0x00080005, "StudyDate": 0x00080020, "StudyTime": 0x00080030,
    "AccessionNumber": 0x00080050, "PatientName": 0x00100010, "PatientID": 0x00100020,
    "PatientBirthDate": 0x00100030, "PatientSex": 0x00100040, "StudyID": 0x00200010,
    "LossyImageCompression": 0x00282110, "LossyImageCompressionRatio": 0x00282112,
    "LossyImageCompressionMethod": 0x00282114,
}  # fmt: skip
"""What is copied from the source: what PS3.3 asks of the modules Patient and General Study, and no more."""
_FORMS = {
    "StudyDate": r"\d{8}", "PatientBirthDate": r"\d{8}", "StudyTime": r"\d{2,6}(\.\d{1,6})?",
    "PatientSex": "[MFO]", "StudyID": ".{0,16}", "AccessionNumber": ".{0,16}", "PatientID": ".{0,64}",
}  # fmt: skip
_BEYOND_STEPS = 1.0
"""How many slices beyond the mask's grid a frame may lie and still get its last slice: uneven stacks end so."""


@dataclass(frozen=True)
class Algorithm:
    """What made a mask."""

    name: str
    version: str = __version__


def write_seg(
    mask: NDArray[Any],
    geometry: Geometry,
    series: Series,
    labels: Labels,
    path: Path,
    *,
    algorithm: Algorithm,
    codes: Mapping[str, SegmentCode] | None = None,
) -> int:
    """Write a mask as a segmentation object of the type BINARY that refers to the instances it was made from.

    The same mask of the same series by the same algorithm gets the same UIDs, so that storing it twice is no
    second result.

    Args:
        mask: (D, H, W) label values.
        geometry: Grid of the mask; that of the series after it was decoded, straightened or not.
        series: What the mask was made from; its files must still be there.
        labels: What the values mean.
        path: File to write.
        algorithm: Named in every segment.
        codes: Class name -> codes, where they are to differ from those that `code_of` finds.

    Returns:
        Number of segments: one for each class that the mask has, or all, empty, where it has none.

    Raises:
        DataError: the source lacks what a segmentation must refer to; names no case.
        ConfigError: highdicom is not installed.
    """
    try:
        from highdicom.seg import Segmentation
    except ImportError:
        raise ConfigError("DICOM segmentations need highdicom: pip install 'volume-pipeline[dicom]'.") from None
    _check(series)
    numbers, names = _segments(sample_at_planes(mask, geometry, series.planes), labels)
    sources = _stand_ins(series)
    identity = _identity(numbers, series, algorithm)
    with warnings.catch_warnings():
        # They would quote values of the source that are not as the standard has them.
        warnings.simplefilter("ignore")
        made = Segmentation(
            source_images=sources,
            pixel_array=numbers,
            segmentation_type="BINARY",
            segment_descriptions=_descriptions(names, algorithm, codes),
            series_instance_uid=_uid("series", identity),
            series_number=_series_number(series),
            sop_instance_uid=_uid("instance", identity),
            instance_number=1,
            manufacturer="pipeline",
            manufacturer_model_name=algorithm.name[:64],
            software_versions=__version__,
            device_serial_number="0",
            content_label="SEGMENTATION",
            content_description="Made by a neural network, not reviewed",
            series_description=f"Segmentation {algorithm.name}"[:64],
        )
        made.pop("ContributingEquipmentSequence", None)
        _point_at(made, dict(zip([one.SOPInstanceUID for one in sources], series.planes, strict=True)))
        with atomic_path(path) as temporary:
            made.save_as(temporary)
    return len(names)


def sample_at_planes(mask: NDArray[Any], geometry: Geometry, planes: Sequence[Plane]) -> NDArray[Any]:
    """Return the mask (N, H, W) at the voxel centres of planes: the nearest voxel of its grid, 0 outside of it."""
    header = planes[0].header
    out = np.zeros((len(planes), header.rows, header.columns), mask.dtype)
    limits = np.array(geometry.shape)
    for into, plane in zip(out, planes, strict=True):
        at = _indices(geometry, plane)
        depth = at[0]
        near = (depth > -_BEYOND_STEPS - 0.5) & (depth < limits[0] - 0.5 + _BEYOND_STEPS)
        whole = [np.floor(part + 0.5).astype(np.intp) for part in at]
        whole[0] = np.where(near, np.clip(whole[0], 0, limits[0] - 1), -1)
        inside = np.logical_and.reduce([(part >= 0) & (part < side) for part, side in zip(whole, limits, strict=True)])
        into[inside] = mask[tuple(part[inside] for part in whole)]
    return out


def _indices(geometry: Geometry, plane: Plane) -> list[NDArray[np.float64]]:
    """Return where the pixels (H, W) of a plane lie in a grid: three arrays of array indices, not rounded."""
    assert plane.position is not None
    header, origin = plane.header, np.array(plane.position)
    # Of unit length, as for the grid: cosines written with two decimals would be off by pixels at the far corner.
    along, down = (np.array(part) / np.linalg.norm(part) for part in (plane.orientation[:3], plane.orientation[3:]))
    down_mm, along_mm = plane.pixel_spacing
    corners = to_index(geometry, [origin, origin + down * down_mm, origin + along * along_mm])
    rows, columns = np.arange(header.rows)[:, None], np.arange(header.columns)[None, :]
    start, row_step, column_step = corners[0], corners[1] - corners[0], corners[2] - corners[0]
    # Rounded so that a half that is only a rounding error falls to the same side everywhere.
    return [np.round(start[axis] + rows * row_step[axis] + columns * column_step[axis], 4) for axis in range(3)]


def _check(series: Series) -> None:
    header = series.header
    needed = {
        "study UID": header.study_uid, "series UID": header.series_uid, "instance UID": header.instance_uid,
        "frame of reference": header.frame_of_reference,
    }  # fmt: skip
    if len({(plane.header.instance_uid, plane.frame) for plane in series.planes}) < len(series.planes):
        raise DataError(
            "no DICOM segmentation: several slices of its source have one instance UID; expected one each, since a "
            "segmentation refers to them. The mask as NIfTI is complete."
        )
    missing = [name for name, value in needed.items() if not is_uid(value)]
    if missing:
        raise DataError(
            f"no DICOM segmentation: its source has no {', no '.join(missing)}; expected all of them, since "
            "a segmentation refers to them. The mask as NIfTI is complete."
        )


def _segments(values: NDArray[Any], labels: Labels) -> tuple[NDArray[np.uint8], list[str]]:
    """Turn label values into segment numbers from 1 on, without gaps; return them with the names of the segments."""
    indices = np.empty(values.shape, np.uint8)
    counts = np.zeros(256, np.int64)
    for into, plane in zip(indices, values, strict=True):
        into[...] = labels.to_index(plane)
        counts += np.bincount(into.ravel(), minlength=256)
    classes = list(enumerate(labels.classes))[1:]
    shown = [(index, name) for index, name in classes if counts[index]] or classes
    number_of = np.zeros(256, np.uint8)
    for number, (index, _) in enumerate(shown, 1):
        number_of[index] = number
    return number_of[indices], [name for _, name in shown]


def _stand_ins(series: Series) -> list[Any]:
    """Return one single-frame header for each plane, with what filing and geometry need and nothing else."""
    from pydicom.dataset import Dataset
    from pydicom.valuerep import DSfloat

    filing = _filing(series)
    header, made = series.header, []
    for number, plane in enumerate(series.planes):
        one = Dataset()
        for name, value in filing.items():
            setattr(one, name, value)
        one.SOPClassUID, one.SOPInstanceUID = _CT, f"2.25.{number + 1}"
        one.StudyInstanceUID, one.SeriesInstanceUID = header.study_uid, header.series_uid
        one.FrameOfReferenceUID, one.Modality, one.ImageType = header.frame_of_reference, "CT", ["ORIGINAL", "PRIMARY"]
        one.Rows, one.Columns, one.InstanceNumber = header.rows, header.columns, number + 1
        assert plane.position is not None
        one.ImagePositionPatient = [DSfloat(value, auto_format=True) for value in plane.position]
        one.ImageOrientationPatient = [DSfloat(value, auto_format=True) for value in series.planes[0].orientation]
        one.PixelSpacing = [DSfloat(value, auto_format=True) for value in plane.pixel_spacing]
        one.SliceThickness = DSfloat(plane.thickness or _step(series), auto_format=True)
        made.append(one)
    return made


def _filing(series: Series) -> dict[str, Any]:
    """Read what a PACS files by; a value that is not as the standard has it is left empty."""
    try:
        found = read_elements(series.header.path, list(_FILING.values()))
    except (OSError, ValueError):
        raise DataError("no DICOM segmentation: a file of the source can no longer be read.") from None
    # Elements of type 2: there, if empty, in any segmentation.
    filing: dict[str, Any] = dict.fromkeys(["StudyDate", "StudyTime", "AccessionNumber", "PatientName", "PatientID",
                                            "PatientBirthDate", "PatientSex", "StudyID"], "")  # fmt: skip
    for name, tag in _FILING.items():
        text = elements.text(found, tag)
        if text and re.fullmatch(_FORMS.get(name, ".*"), text):
            filing[name] = found[tag].value
    return filing


def _step(series: Series) -> float:
    from pipeline.dicom.geometry import stack_of

    return stack_of(series.planes).usual_step_mm


def _series_number(series: Series) -> int:
    """Return a number far from those that scanners give, which tells the source."""
    text = series.header.series_number
    return 9000 + (int(text) % 1000 if re.fullmatch("[0-9]{1,12}", text) else 0)


def _descriptions(names: Sequence[str], algorithm: Algorithm, codes: Mapping[str, SegmentCode] | None) -> list[Any]:
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.coding import Code as Coded

    identification = AlgorithmIdentificationSequence(
        name=algorithm.name[:64], family=Coded(*_AI), version=algorithm.version[:64]
    )
    made = []
    for number, name in enumerate(names, 1):
        code = code_of(name, codes)
        one = SegmentDescription(
            number, name[:64], _coded(code.category), _coded(code.type), "AUTOMATIC", identification
        )
        if code.side is not None:
            from highdicom.sr import CodedConcept

            side = CodedConcept(code.side.value, code.side.scheme, code.side.meaning)
            one.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
        made.append(one)
    return made


def _coded(code: Code) -> Any:
    from pydicom.sr.coding import Code as Coded

    return Coded(code.value, code.scheme, code.meaning)


def _point_at(made: Any, planes: Mapping[str, Plane]) -> None:
    """Let every reference to a stand-in refer to the instance that it stands for, and to its frame."""
    from pydicom.sequence import Sequence as Items

    series = made.ReferencedSeriesSequence[0]
    for holder, name in ((made, "SourceImageSequence"), (series, "ReferencedInstanceSequence")):
        listed = list(getattr(holder, name))
        for item in listed:
            _mend(item, planes)
        setattr(holder, name, Items({item.ReferencedSOPInstanceUID: item for item in listed}.values()))
    for frame in made.PerFrameFunctionalGroupsSequence:
        for derivation in frame.DerivationImageSequence:
            for item in derivation.SourceImageSequence:
                if (plane := _mend(item, planes)) is not None and plane.header.frames > 1:
                    item.ReferencedFrameNumber = plane.frame + 1


def _mend(item: Any, planes: Mapping[str, Plane]) -> Plane | None:
    """Let an item refer to the true instance; None where it does already, since several places share items."""
    plane = planes.get(item.ReferencedSOPInstanceUID)
    if plane is not None:
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = plane.header.sop_class, plane.header.instance_uid
    return plane


def _identity(numbers: NDArray[Any], series: Series, algorithm: Algorithm) -> str:
    made = hashlib.sha256(repr((series.case_id, algorithm, numbers.shape)).encode())
    made.update(repr([plane.header.instance_uid for plane in series.planes]).encode())
    made.update(np.ascontiguousarray(numbers).data)
    return made.hexdigest()


def _uid(*parts: str) -> str:
    """Return a UID that follows from texts (PS3.5, B.2: 2.25 and a number of 128 bits)."""
    return f"2.25.{int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:16], 'big')}"
