"""One look at the files of a case for the doctor: what each holds and what its reader refuses, told, never raised."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.imaging.block import read_block
from pipeline.imaging.facts import content_sha256, voxels_sha256
from pipeline.imaging.mirror import Mirroring, mirroring
from pipeline.imaging.nifti_forms import Forms, read_forms
from pipeline.imaging.read import WHOLE, open_volume
from pipeline.imaging.volume import Geometry, Volume

_SAMPLE = 20_000
"""Percentiles and spread come from about so many voxels, evenly spaced: they only serve to find what is odd."""
_PART = 1 << 18
"""Voxels that are looked at together: they stay in the processor's cache while all figures are taken."""
_MOST_VALUES = 1000
_WIDE = 1 << 16
"""Whole numbers up to this are counted by their place in a table."""


@dataclass(frozen=True)
class Intensity:
    """Intensities of one channel; extremes and sum are exact, the rest is of an even sample."""

    minimum: float
    """Of the finite voxels; 0 where there is none."""
    maximum: float
    total: float
    voxels: int
    nan: int = 0
    infinite: int = 0
    std: float = 0.0
    median: float = 0.0
    p99: float = 0.0

    @property
    def mean(self) -> float:
        """Mean of all voxels."""
        return self.total / self.voxels


@dataclass(frozen=True)
class FileFacts:
    """What is known of one file after one look."""

    path: Path
    is_there: bool = True
    sha256: str = ""
    """Of its bytes; of all files for a folder; of the voxels for a volume of a block."""
    refused: str = ""
    """Why it cannot be read; then nothing below is known."""
    dtype: str = ""
    geometry: Geometry | None = None
    forms: Forms | None = None
    """Of NIfTI files."""
    intensity: Intensity | None = None
    """Of images."""
    counts: Mapping[int, int] = field(default_factory=dict)
    """Label value -> voxels, of labels; the most frequent of very many."""
    fractions: Mapping[float, int] = field(default_factory=dict)
    """Values that are not whole numbers -> voxels, of labels; the most frequent of very many."""


@dataclass(frozen=True)
class Examination:
    """All files of a case."""

    case_id: str
    images: Mapping[str, FileFacts]
    """Channel -> its file."""
    label: FileFacts | None = None
    mirroring: Mirroring | None = None
    """How well the label fits the first image, as it lies and mirrored; None where that cannot be said."""

    @property
    def geometry(self) -> Geometry | None:
        """Grid of the first channel that can be read."""
        return next((image.geometry for image in self.images.values() if image.geometry), None)


def examine_case(images: Mapping[str, Path], label: Path | None, case_id: str) -> Examination:
    """Read every file of a case once, and hash its bytes.

    Args:
        images: Channel -> file or folder of one DICOM series; channels that share a file lie in it in this order.
        label: Label file, or None.
        case_id: Name of the case.

    Returns:
        What was found; a file that cannot be read is told there.
    """
    found: dict[str, FileFacts] = {}
    first: Volume | None = None
    for path in dict.fromkeys(images.values()):
        channels = [channel for channel, of in images.items() if of == path]
        facts, volume = _look(path, len(channels))
        for at, channel in enumerate(channels):
            found[channel] = _with(facts, intensity=None if volume is None else intensity(volume.voxels[at]))
        first = first or volume
    if label is None:
        return Examination(case_id, found)
    facts, volume = _look(label, 1)
    if volume is None:
        return Examination(case_id, found, facts)
    counts, fractions = label_values(volume.voxels[0])
    known = next((facts.intensity for facts in found.values()), None)
    is_sound = known is not None and not (known.nan or known.infinite or fractions)
    fits = mirroring(first.voxels[0], volume.voxels[0]) if first is not None and is_sound else None
    return Examination(case_id, found, _with(facts, counts=counts, fractions=fractions), fits)


def examine_block(file: Path, array: str, members: Mapping[str, int]) -> dict[str, Examination]:
    """Look at many volumes of one array of a file, read once.

    Args:
        file: npz or h5.
        array: Its name.
        members: Case id -> index.

    Raises:
        DataError: the array cannot be used, or is shorter than an index.
    """
    block = read_block(file, array)
    if members and max(members.values()) >= len(block):
        expected = max(members.values()) + 1
        raise DataError(f"{file}: array {array} holds {len(block)} volumes; expected at least {expected}.")
    geometry = Geometry(shape=block.shape[1:])
    return {
        case_id: Examination(
            case_id,
            {
                "image": FileFacts(
                    path=Path(f"{file}#{array}/{index}"),
                    sha256=voxels_sha256(block[index]),
                    dtype=block.dtype.name,
                    geometry=geometry,
                    intensity=intensity(block[index]),
                )
            },
        )
        for case_id, index in members.items()
    }


def matches(paths: Sequence[Path], is_label: bool = False) -> list[tuple[int, int, str]]:
    """Compare volumes that may be the same, voxel by voxel, in every orientation.

    Args:
        paths: Files of one channel each.
        is_label: Whether they are labels, which are compared as they lie.

    Returns:
        (index, index of the earlier file that it equals, how): `re-saved` with equal voxels in the same order,
        `turned` with the axes exchanged or mirrored. Files that cannot be read match nothing.
    """
    kept: list[tuple[int, NDArray[Any]]] = []
    found = []
    for at, path in enumerate(paths):
        _, volume = _look(path, 1, hashed=False)
        if volume is None:
            continue
        same = ((earlier, how) for earlier, voxels in kept if (how := _same(voxels, volume.voxels[0], is_label)))
        earlier, how = next(same, (None, ""))
        if earlier is None:
            kept.append((at, volume.voxels[0]))
        else:
            found.append((at, earlier, how))
    return found


def intensity(voxels: NDArray[Any]) -> Intensity:
    """Describe the intensities of an image of any shape, with at least one voxel, in one pass."""
    flat = np.ravel(voxels)
    parts = [flat[start : start + _PART] for start in range(0, flat.size, _PART)]
    lowest, highest = min(part.min() for part in parts), max(part.max() for part in parts)
    if voxels.dtype.kind == "f" and not (np.isfinite(lowest) and np.isfinite(highest)):
        return _of_broken(flat)
    total = float(sum(part.sum(dtype=np.int64 if voxels.dtype.kind in "iu" else np.float64) for part in parts))
    sample = np.asarray(flat[:: -(-flat.size // _SAMPLE)], np.float64)
    median, p99 = np.percentile(sample, (50, 99)).tolist()
    return Intensity(float(lowest), float(highest), total, flat.size, std=float(sample.std()), median=median, p99=p99)


def label_values(values: NDArray[Any]) -> tuple[dict[int, int], dict[float, int]]:
    """Count the values of a label.

    Args:
        values: Of any shape and real type.

    Returns:
        Whole value -> voxels (0 included where it occurs), and value -> voxels of those that are not whole
        numbers; each holds the most frequent ones where there are very many.
    """
    flat = np.ravel(values)
    parts = [part[part != 0] for part in (flat[start : start + _PART] for start in range(0, flat.size, _PART))]
    foreground = np.concatenate(parts)
    zeros = {0: flat.size - foreground.size} if foreground.size < flat.size else {}
    if values.dtype.kind != "f":
        return zeros | _counted(foreground), {}
    whole = np.rint(foreground)
    is_odd = ~(np.abs(foreground - whole) <= WHOLE)
    fractions = {float(value): count for value, count in _unique(foreground[is_odd]).items()}
    return zeros | {int(value): count for value, count in _unique(whole[~is_odd]).items()}, fractions


def _look(path: Path, channels: int, *, hashed: bool = True) -> tuple[FileFacts, Volume | None]:
    if not path.exists():
        return FileFacts(path, is_there=False, refused="there is no such file"), None
    sha256 = ""
    try:
        sha256 = content_sha256(path) if hashed else ""
        volume = open_volume(path, channels)
        is_nifti = path.is_file() and path.name.lower().endswith((".nii", ".nii.gz"))
        forms = read_forms(path, volume.geometry) if is_nifti and hashed else None
    except DataError as error:
        return FileFacts(path, sha256=sha256, refused=str(error)), None
    except OSError as error:
        return FileFacts(path, refused=f"the file cannot be read: {error.strerror or type(error).__name__}."), None
    return FileFacts(path, True, sha256, "", volume.dtype.name, volume.geometry, forms), volume


def _with(facts: FileFacts, **changes: Any) -> FileFacts:
    from dataclasses import replace

    return replace(facts, **changes)


def _of_broken(flat: NDArray[Any]) -> Intensity:
    """Describe an image with NaN or infinity by its finite voxels."""
    finite = flat[np.isfinite(flat)].astype(np.float64)
    nan = int(np.isnan(flat).sum())
    if not finite.size:
        return Intensity(0.0, 0.0, 0.0, flat.size, nan, flat.size - nan)
    return Intensity(
        float(finite.min()), float(finite.max()), float(finite.sum()), flat.size, nan, flat.size - finite.size - nan
    )


def _counted(values: NDArray[Any]) -> dict[int, int]:
    """Count whole numbers: by their place in a table where they are moderate, else by sorting."""
    if not values.size:
        return {}
    lowest, highest = int(values.min()), int(values.max())
    if max(highest, -lowest) > _WIDE:
        return {int(value): count for value, count in _unique(values).items()}
    lowest = min(lowest, 0)
    counts = np.bincount(values.astype(np.int64) - lowest if lowest else values)
    return {lowest + int(at): int(counts[at]) for at in np.flatnonzero(counts)}


def _unique(values: NDArray[Any]) -> dict[Any, int]:
    found, counts = np.unique(values, return_counts=True)
    most = np.sort(np.argsort(-counts, kind="stable")[:_MOST_VALUES])
    return dict(zip(found[most].tolist(), counts[most].tolist(), strict=True))


def _same(a: NDArray[Any], b: NDArray[Any], as_it_lies: bool) -> str:
    if a.shape == b.shape and np.array_equal(a, b):
        return "re-saved"
    if as_it_lies or sorted(a.shape) != sorted(b.shape):
        return ""
    from itertools import permutations, product

    for axes in permutations(range(3)):
        turned = b.transpose(axes)
        if turned.shape != a.shape:
            continue
        for steps in product((1, -1), repeat=3):
            mirrored = turned[tuple(slice(None, None, step) for step in steps)]
            if np.array_equal(a[:1], mirrored[:1]) and np.array_equal(a, mirrored):
                return "turned"
    return ""
