"""The border: image and label files of any format become checked volumes, or one `DataError` a case."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError, plural
from pipeline.imaging import streams
from pipeline.imaging.geometry import difference, from_xyz, shear_degrees
from pipeline.imaging.labels import Labels
from pipeline.imaging.nifti import read_nifti
from pipeline.imaging.volume import Geometry, Volume

logger = logging.getLogger(__name__)

_SAME_GRID = (
    "expected one grid, to 0.1 mm. If the label was drawn on this image, run 'python -m pipeline check CONFIG --fix'."
)
WHOLE = 1e-4
"""How far a floating-point label value may be from a whole number: what a stored slope costs in rounding."""
_MAX_SHEAR_DEGREES = 0.1
_SHOWN = 8


def read_image(path: Path, *, case_id: str, channels: int = 1) -> Volume:
    """Read an image file, or a folder that holds one DICOM series, and check it.

    Args:
        path: `.nii`, `.nii.gz`, `.mha`, `.mhd`, `.nrrd`, `.nhdr`, or a folder.
        case_id: Named in errors.
        channels: Number of channels that the file must have: a fourth axis, or several numbers a voxel.

    Returns:
        Volume (channels, D, H, W) on the file's own grid and in its own type.

    Raises:
        DataError: missing, unreadable, cut short or damaged, not 3-D, without voxels, with NaN or infinite
            voxels, or constant.
    """
    problems: list[str] = []
    volume = _checked_image(path, ["image"] * channels, problems)
    _refuse(case_id, problems)
    assert volume is not None
    return volume


def read_case_images(images: Mapping[str, Path], *, case_id: str) -> Volume:
    """Read the channels of a case and stack them in the given order.

    A file that several channels name holds them all, in that order (a 4-D NIfTI).

    Raises:
        DataError: as `read_image`, or channels lie on different grids; all problems are named at once.
    """
    volumes, _ = read_case(images, None, Labels(), case_id=case_id)
    first = next(iter(volumes.values()))
    if len(volumes) == 1:
        return first
    return first.with_voxels(np.concatenate([volume.voxels for volume in volumes.values()]))


def read_geometry(path: Path) -> Geometry:
    """Return the grid of an image file, from its header alone.

    Raises:
        DataError: there is no header that ITK can read.
    """
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        axes, direction = reader.GetDimension(), reader.GetDirection()
        upright = [direction[row * axes + column] for row in range(3) for column in range(3)]
        return from_xyz(reader.GetSize()[:3], reader.GetSpacing()[:3], reader.GetOrigin()[:3], upright)
    except (RuntimeError, ValueError, IndexError, ArithmeticError) as error:
        raise DataError(f"{path}: found no header of an image that can be read; expected one.") from error


def read_label(path: Path, labels: Labels, *, case_id: str, like: Geometry | None = None) -> Volume:
    """Read a label file as class indices.

    Args:
        path: As for `read_image`.
        labels: What the values mean.
        case_id: Named in errors.
        like: Grid of the image, which the label must share; None where there is none.

    Returns:
        Volume (1, D, H, W) of uint8 class indices, `IGNORE` where a voxel counts nowhere. A label without any
        foreground is fine.

    Raises:
        DataError: unreadable, on another grid, with values that are not whole or not in `labels`.
    """
    problems: list[str] = []
    label = _checked_label(path, labels, like, problems)
    _refuse(case_id, problems)
    assert label is not None
    return label


def read_case(
    images: Mapping[str, Path], label: Path | None, labels: Labels, *, case_id: str
) -> tuple[dict[str, Volume], Volume | None]:
    """Read and check all files of a case; every problem is named in one error.

    Returns:
        Channel -> volume of one channel, and the class indices as `read_label` gives them, or None.

    Raises:
        DataError: as `read_image` and `read_label`.
    """
    problems: list[str] = []
    volumes = _checked_channels(images, problems)
    first = next(iter(volumes.values()), None)
    for channel, volume in volumes.items():
        assert first is not None
        if apart := difference(first.geometry, volume.geometry):
            problems.append(f"grids of channels {next(iter(volumes))} and {channel} differ: {', '.join(apart)}; "
                            "expected one grid. Resample one to the other.")  # fmt: skip
    indices = None
    if label is not None:
        indices = _checked_label(label, labels, first.geometry if first else None, problems)
    _refuse(case_id, problems)
    return volumes, indices


def _refuse(case_id: str, problems: list[str]) -> None:
    if problems:
        raise DataError(f"case {case_id}: {'; '.join(problems)}")


def _checked_channels(images: Mapping[str, Path], problems: list[str]) -> dict[str, Volume]:
    """Read each file once and give every channel its own volume, in the order of `images`."""
    sharing: dict[Path, list[str]] = {}
    for channel, path in images.items():
        sharing.setdefault(path, []).append(channel)
    found: dict[str, Volume] = {}
    for path, channels in sharing.items():
        names = ["image"] if len(images) == 1 else [f"channel {channel}" for channel in channels]
        volume = _checked_image(path, names, problems)
        if volume is not None:
            parts = {name: volume.with_voxels(volume.voxels[at : at + 1]) for at, name in enumerate(channels)}
            found.update(parts)
    return {channel: found[channel] for channel in images if channel in found}


def _checked_image(path: Path, names: list[str], problems: list[str]) -> Volume | None:
    """Read a file with one channel for each of the names by which problems are told."""
    try:
        volume = open_volume(path, len(names))
    except DataError as error:
        problems.append(f"{names[0]}: {error}")
        return None
    for name, voxels in zip(names, volume.voxels, strict=True):
        problems += [f"{name}: {problem}" for problem in _image_problems(voxels)]
    return volume


def _image_problems(voxels: NDArray[Any]) -> list[str]:
    """Say what makes an image (D, H, W) useless; NaN and infinity show in its extremes, so one pass is enough."""
    lowest, highest = voxels.min(), voxels.max()
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        nan = int(np.isnan(voxels).sum())
        infinite = int(np.isinf(voxels).sum())
        return [f"found {plural(nan, 'NaN voxel')} and {plural(infinite, 'infinite voxel')}; expected finite ones."
                " Replace them in the source, or leave the case out."]  # fmt: skip
    if lowest == highest:
        return [f"every voxel is {lowest}; expected an image. Export it again, or leave the case out."]
    return []


def _checked_label(path: Path, labels: Labels, like: Geometry | None, problems: list[str]) -> Volume | None:
    try:
        label = open_volume(path, 1)
    except DataError as error:
        problems.append(f"label: {error}")
        return None
    apart = difference(like, label.geometry) if like is not None else []
    if apart:
        problems.append(f"image and label grids differ: {', '.join(apart)}; {_SAME_GRID}")
    values = label.voxels[0]
    wrong = _fractions(values) or _unknown(values, labels)
    if wrong:
        problems.append(f"label: {wrong}")
    return None if apart or wrong else label.with_voxels(_to_index(values, labels)[None])


def _fractions(values: NDArray[Any]) -> str:
    """Name the values that are not whole numbers, with their counts; an empty text where all are."""
    if values.dtype.kind != "f":
        return ""
    counts: dict[float, int] = {}
    for section in values:
        rounded = np.rint(section)
        odd = section[~(np.abs(section - rounded) <= WHOLE)]
        for value, count in zip(*np.unique(odd, return_counts=True), strict=True):
            counts[float(value)] = counts.get(float(value), 0) + int(count)
        if len(counts) > 100_000:
            break
    if not counts:
        return ""
    return f"found values that are not whole numbers: {_listed(counts)}; expected class values. Is it the label file?"


def _unknown(values: NDArray[Any], labels: Labels) -> str:
    """Name the values that `labels` does not know, with their counts; an empty text where it knows all."""
    known = labels.index_of_value()
    unknown = {value: count for value, count in _value_counts(values).items() if value not in known}
    if not unknown:
        return ""
    return (
        f"found {plural(len(unknown), 'unknown value')}: {_listed(unknown)}; expected "
        f"{', '.join(map(str, sorted(known)[:20]))}{' ...' if len(known) > 20 else ''}. "
        "Name them in the labels of the config, or correct the file."
    )


def _value_counts(values: NDArray[Any]) -> dict[int, int]:
    """Count each whole value, slice by slice so that no wide copy of the volume is made."""
    lowest, highest = _extremes(values)
    if highest - lowest > 1 << 16:
        found, counts = np.unique(np.rint(values), return_counts=True)
        return {int(value): int(count) for value, count in zip(found, counts, strict=True)}
    total = np.zeros(highest - lowest + 1, np.int64)
    for section in values:
        total += np.bincount(_offsets(section, lowest).ravel(), minlength=len(total))
    return {lowest + int(at): int(total[at]) for at in np.flatnonzero(total)}


def _to_index(values: NDArray[Any], labels: Labels) -> NDArray[np.uint8]:
    lowest, highest = _extremes(values)
    lookup = labels.to_index(np.arange(lowest, highest + 1))
    out = np.empty(values.shape, np.uint8)
    for at, section in enumerate(values):
        np.take(lookup, _offsets(section, lowest), out=out[at], mode="clip")
    return out


def _extremes(values: NDArray[Any]) -> tuple[int, int]:
    return int(np.rint(values.min())), int(np.rint(values.max()))


def _offsets(section: NDArray[Any], lowest: int) -> NDArray[np.intp]:
    whole = np.rint(section) if section.dtype.kind == "f" else section
    return whole.astype(np.intp) - lowest


def _listed(counts: Mapping[Any, int]) -> str:
    most = sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN]
    text = ", ".join(f"{value:g} ({plural(count, 'voxel')})" for value, count in most)
    return text + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def open_volume(path: Path, channels: int) -> Volume:
    """Read a file or series of any kind; errors name no case and, since folders can carry names, no path."""
    if not os.path.exists(path):
        raise DataError(f"there is no file {path}. Correct the manifest, or restore the file.")
    if path.is_dir():
        volume = _read_series(path)
    elif path.name.lower().endswith((".nii", ".nii.gz")):
        volume = read_nifti(path, channels=channels)
    elif path.suffix.lower() in _FORMATS:
        check, image_io = _FORMATS[path.suffix.lower()]
        check(path)
        volume = _read_by_itk([str(path)], image_io)
    else:
        raise DataError(f"the ending of {path.name!r} is not known; expected .nii, .nii.gz, .mha, .mhd, .nrrd, .nhdr "
                        "or a folder with one DICOM series. Convert it.")  # fmt: skip
    if volume.channels != channels:
        raise DataError(f"it has {plural(volume.channels, 'channel')}; expected {channels}. Check the manifest.")
    return volume


_FORMATS: dict[str, tuple[Callable[[Path], None], str]] = {
    ".mha": (streams.check_metaimage, "MetaImageIO"),
    ".mhd": (streams.check_metaimage, "MetaImageIO"),
    ".nrrd": (streams.check_nrrd, "NrrdImageIO"),
    ".nhdr": (streams.check_nrrd, "NrrdImageIO"),
}


def _read_series(folder: Path) -> Volume:
    """Read the one DICOM series in a folder; whether its slices are sound is for the audit in `dicom/` to say."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if len(series) != 1:
        raise DataError(f"the folder holds {len(series)} DICOM series; expected 1. Give each series its own folder.")
    return _read_by_itk(list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])), "GDCMImageIO")


def _read_by_itk(files: list[str], image_io: str) -> Volume:
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = sitk.ReadImage(files if len(files) > 1 else files[0], imageIO=image_io)
    except RuntimeError as error:
        # ITK's text carries paths, and addresses of its source code.
        logger.debug("SimpleITK: %s", error)
        raise DataError("the file is cut short, damaged, or not what its ending says. Export it again.") from None
    return _from_itk(image)


def _from_itk(image: Any) -> Volume:
    import SimpleITK as sitk

    axes, voxels = image.GetDimension(), sitk.GetArrayFromImage(image)
    if axes not in (3, 4) or voxels.dtype.kind not in "iuf":
        raise DataError(f"it has {axes} axes of {voxels.dtype} voxels; expected 3 axes, real numbers. Convert it.")
    if image.GetNumberOfComponentsPerPixel() > 1:
        voxels = np.ascontiguousarray(np.moveaxis(voxels, -1, 0))
    # What stands before (D, H, W) now, components or a fourth axis, are channels.
    voxels = voxels.reshape(-1, *image.GetSize()[2::-1])
    direction = np.reshape(image.GetDirection(), (axes, axes))[:3, :3].ravel().tolist()
    if (degrees := shear_degrees(direction)) > _MAX_SHEAR_DEGREES:
        raise DataError(
            f"its axes are {degrees:.2g} degrees off a right angle; expected a rectangular grid. Resample it onto one."
        )
    return Volume(voxels, from_xyz(image.GetSize()[:3], image.GetSpacing()[:3], image.GetOrigin()[:3], direction))
