"""What is known of a case after one look at its files: grid, intensities, labels and content."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.imaging.geometry import apply, canonical_geometry, reorientation_of
from pipeline.imaging.labels import IGNORE, Labels
from pipeline.imaging.read import read_case
from pipeline.imaging.volume import Geometry, Volume
from pipeline.plugin import Settings
from pipeline.provenance import digest

PERCENTILES = (0.5, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0, 99.5)

_HISTOGRAM_BINS = 1 << 17
"""Whole numbers over a range up to this are counted, which gives every figure exactly and in one pass."""
_MOST_SORTED = 1 << 22
"""Of more values than this, percentiles come from that many, evenly spaced."""

Index = tuple[int, int, int]


class Intensities(Settings):
    """Distribution of some voxels of one channel."""

    voxels: int
    minimum: float
    maximum: float
    mean: float
    std: float
    percentiles: tuple[float, ...]
    """At `PERCENTILES`."""

    def percentile(self, percent: float) -> float:
        """Return the intensity at one of `PERCENTILES`."""
        return self.percentiles[PERCENTILES.index(percent)]


class ChannelFacts(Settings):
    """One channel of an image."""

    dtype: str
    """Type of the voxels as read, e.g. `int16`."""
    sha256: str
    """Of the file's bytes as they lie on disk (of all files, for a folder)."""
    voxels_sha256: str
    """Of shape, type and values: equal for copies, however compressed or placed."""
    nonzero: float
    """Share of voxels that are not 0."""
    all: Intensities
    foreground: Intensities | None = None
    """Over labelled voxels; None where there are none."""


class ClassFacts(Settings):
    """One class of a label volume."""

    voxels: int
    volume_ml: float
    components: int
    """Connected components, neighbours touching by face, edge or corner."""
    start: Index | None = None
    """First index (D, H, W) of the box around the class, in canonical orientation; None where it is absent."""
    stop: Index | None = None
    """Index after the last."""


class CaseFacts(Settings):
    """One case, seen once."""

    case_id: str
    geometry: Geometry
    """Grid of the image file."""
    canonical: Geometry
    """The same grid with its axes turned to the canonical orientation."""
    channels: dict[str, ChannelFacts]
    """In the order of the data set."""
    label_sha256: str = ""
    """Of the label file; empty where there is none."""
    label_voxels_sha256: str = ""
    classes: dict[str, ClassFacts] = Field(default_factory=dict)
    """Every foreground class that the labels name, present or not."""
    ignored_voxels: int = 0
    """Voxels that count nowhere."""

    @property
    def canonical_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along canonical (D, H, W)."""
        return self.canonical.spacing_mm

    @property
    def canonical_shape(self) -> Index:
        """Voxels along canonical (D, H, W)."""
        return self.canonical.shape

    @property
    def present(self) -> tuple[str, ...]:
        """Names of the foreground classes that have voxels."""
        return tuple(name for name, facts in self.classes.items() if facts.voxels)


def survey_case(images: Mapping[str, Path], label: Path | None, labels: Labels, case_id: str) -> CaseFacts:
    """Read the files of a case, check them, and say what is in them.

    Args:
        images: Channel -> file or folder.
        label: Label file, or None.
        labels: What its values mean.
        case_id: Named in errors.

    Raises:
        DataError: the case cannot be used; every problem of its files is named.
    """
    volumes, indices = read_case(images, label, labels, case_id=case_id)
    geometry = next(iter(volumes.values())).geometry
    reorientation = reorientation_of(geometry)
    mask = np.ascontiguousarray(apply(indices.voxels[0], reorientation)) if indices else None
    return CaseFacts(
        case_id=case_id,
        geometry=geometry,
        canonical=canonical_geometry(reorientation),
        channels={name: _channel(volume, images[name], indices) for name, volume in volumes.items()},
        label_sha256=content_sha256(label) if label else "",
        label_voxels_sha256=voxels_sha256(indices.voxels[0]) if indices else "",
        classes=class_facts(mask, labels, geometry.voxel_ml) if mask is not None else {},
        ignored_voxels=int(np.count_nonzero(mask == IGNORE)) if mask is not None and mask.max() == IGNORE else 0,
    )


def content_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, or of the names and contents of all files below a folder."""
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if file.is_file())
        return digest([(str(file.relative_to(path)), content_sha256(file)) for file in inside])
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def voxels_sha256(voxels: NDArray[Any]) -> str:
    """Return the sha256 of an array's shape, type and values."""
    found = hashlib.sha256(f"{voxels.shape} {voxels.dtype.str}".encode())
    found.update(np.ascontiguousarray(voxels).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def intensities(values: NDArray[Any]) -> Intensities:
    """Describe the distribution of values, of any shape and with at least one.

    Exact, with percentiles interpolated linearly as `numpy.percentile` does; only the percentiles of more
    than 4 million values that are not whole numbers of a moderate range are those of an even sample.
    """
    lowest, highest = values.min(), values.max()
    if values.dtype.kind in "iu" and int(highest) - int(lowest) < _HISTOGRAM_BINS:
        return _of_counts(_counts(values, int(lowest), int(highest)), int(lowest))
    flat = np.ravel(values)
    mean = float(flat.mean(dtype=np.float64))
    squares = sum(float(np.square(part.astype(np.float64) - mean).sum()) for part in _parts(flat))
    sample = flat[:: -(-flat.size // _MOST_SORTED)]
    return Intensities(
        voxels=flat.size,
        minimum=float(lowest),
        maximum=float(highest),
        mean=mean,
        std=(squares / flat.size) ** 0.5,
        percentiles=tuple(np.percentile(sample, PERCENTILES).tolist()),
    )


def class_facts(indices: NDArray[np.uint8], labels: Labels, voxel_ml: float) -> dict[str, ClassFacts]:
    """Measure every foreground class of a label volume.

    Args:
        indices: (D, H, W) class indices, contiguous.
        labels: Their names.
        voxel_ml: Volume of a voxel.
    """
    from scipy import ndimage

    names = labels.classes[1:]
    voxels = np.zeros(256, np.int64)
    for section in indices:
        voxels += np.bincount(section.ravel(), minlength=256)
    boxes = ndimage.find_objects(indices, max_label=len(names)) if names else []
    components = _components(indices, boxes)
    return {
        name: ClassFacts(
            voxels=int(voxels[index]),
            volume_ml=float(voxels[index] * voxel_ml),
            components=int(components[index]),
            start=tuple(part.start for part in box) if box else None,
            stop=tuple(part.stop for part in box) if box else None,
        )
        for index, (name, box) in enumerate(zip(names, boxes, strict=True), 1)
    }


def _channel(volume: Volume, path: Path, indices: Volume | None) -> ChannelFacts:
    voxels = volume.voxels[0]
    labelled = voxels[(indices.voxels[0] > 0) & (indices.voxels[0] != IGNORE)] if indices else voxels[:0]
    return ChannelFacts(
        dtype=voxels.dtype.name,
        sha256=content_sha256(path),
        voxels_sha256=voxels_sha256(voxels),
        nonzero=np.count_nonzero(voxels) / voxels.size,
        all=intensities(voxels),
        foreground=intensities(labelled) if labelled.size else None,
    )


def _parts(flat: NDArray[Any]) -> list[NDArray[Any]]:
    """Cut a vector so that widening a part to 64 bits stays within a few megabytes."""
    return [flat[start : start + (1 << 19)] for start in range(0, flat.size, 1 << 19)]


def _counts(values: NDArray[Any], lowest: int, highest: int) -> NDArray[np.int64]:
    total = np.zeros(highest - lowest + 1, np.int64)
    for part in _parts(np.ravel(values)):
        total += np.bincount(part.astype(np.intp) - lowest, minlength=len(total))
    return total


def _of_counts(counts: NDArray[np.int64], lowest: int) -> Intensities:
    """Describe a distribution by how often each whole number from `lowest` on occurs."""
    number = int(counts.sum())
    levels = np.arange(len(counts), dtype=np.float64) + lowest
    mean = float(counts @ levels / number)
    rank = np.asarray(PERCENTILES) / 100 * (number - 1)
    upto = np.cumsum(counts)
    below, above = (levels[np.searchsorted(upto, place, side="right")] for place in (np.floor(rank), np.ceil(rank)))
    return Intensities(
        voxels=number,
        minimum=float(lowest),
        maximum=float(levels[-1]),
        mean=mean,
        std=float(counts @ np.square(levels - mean) / number) ** 0.5,
        percentiles=tuple((below + (above - below) * (rank - np.floor(rank))).tolist()),
    )


def _components(indices: NDArray[np.uint8], boxes: list[Any]) -> NDArray[np.int64]:
    """Count the connected components of each class, within the box around all classes."""
    import cc3d

    present = [box for box in boxes if box]
    if not present:
        return np.zeros(256, np.int64)
    around = tuple(slice(min(box[axis].start for box in present), max(box[axis].stop for box in present))
                   for axis in range(3))  # fmt: skip
    inside = np.ascontiguousarray(indices[around])
    component, number = cc3d.connected_components(inside, connectivity=26, return_N=True)
    class_of = np.zeros(number + 1, np.uint8)
    foreground = inside > 0
    class_of[component[foreground]] = inside[foreground]
    return np.bincount(class_of[1:], minlength=256)
