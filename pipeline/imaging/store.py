"""The store of prepared cases: compressed voxels that are read patch by patch, and what belongs to them."""

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.errors import DataError
from pipeline.imaging.encoding import Encoding
from pipeline.imaging.normalise import IntensityStats
from pipeline.imaging.placement import Placement
from pipeline.imaging.volume import Geometry
from pipeline.plugin import Settings
from pipeline.workspace import atomic_folder

POINTS = 10_000
"""Voxel positions that are kept of each class, for centring patches."""

# Measured on a trunk CT at 1.5 mm, 2 cores, 96^3 patches: lz4 + bitshuffle 1.8 ns a voxel to read at ratio 1.8-2.2,
# zstd-1 + bytedelta 5-6 ns at 2.2-2.8, lz4 + shuffle 1.5 ns at 1.6-2.0. Labels: zstd-5 0.6 ns at 91, lz4 0.7 ns at 11.
_IMAGE, _LABEL, _POINTS = ("LZ4", 5, "BITSHUFFLE"), ("ZSTD", 5, "NOFILTER"), ("ZSTD", 1, "SHUFFLE")
# A 96^3 patch at a random place touches 1.8 times its own blocks; smaller ones cost more each than they save.
_BLOCK, _CHUNK = (16, 16, 32), (64, 64, 128)


class CaseMeta(Settings):
    """What is known of a prepared case without looking at its voxels."""

    format: Literal[1] = 1
    case_id: str
    channels: tuple[str, ...] = ("image",)
    """Names of the image channels, in order."""
    placement: Placement
    """Grid of the voxels, and the way back to the source."""
    encodings: tuple[Encoding, ...]
    """Stored type of each channel."""
    stats: tuple[IntensityStats, ...]
    """Intensities of each channel."""
    class_voxels: dict[int, int] | None = None
    """Class index -> voxels on the working grid, background (0) and ignored (255) included; None without a label."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Whatever the stage that wrote the case wants to find again."""

    @property
    def geometry(self) -> Geometry:
        """Grid of the voxels."""
        return self.placement.working

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (D, H, W)."""
        return self.geometry.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along (D, H, W), in mm."""
        return self.geometry.spacing_mm

    @property
    def stored_bytes(self) -> int:
        """Memory that the case takes when it is decoded: image and label."""
        depth, height, width = self.shape
        voxel = sum(np.dtype(encoding.dtype).itemsize for encoding in self.encodings)
        return depth * height * width * (voxel + (self.class_voxels is not None))


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """A prepared case in memory: read as a `StoredCase` is, with equal numbers."""

    meta: CaseMeta
    voxels: NDArray[Any]
    """(C, D, H, W) in the stored type, int16 or float32."""
    label: NDArray[np.uint8] | None
    """(D, H, W) class indices."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (D, H, W)."""
        return self.meta.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along (D, H, W), in mm."""
        return self.meta.spacing_mm

    def read(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        """Return the intensities (C, d, h, w) from `start` to before `stop`, both (D, H, W) and inside the grid.

        int16 where all channels are stored as they are, else float32; possibly a view: do not write to it.
        """
        return _decode(self.voxels[(slice(None), *_slices(start, stop))], self.meta.encodings)

    def read_label(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.uint8]:
        """Return the class indices (d, h, w) of a box; possibly a view.

        Raises:
            DataError: the case has no label.
        """
        if self.label is None:
            raise _no_label(self.meta)
        return self.label[_slices(start, stop)]

    @cached_property
    def points(self) -> dict[int, NDArray[np.int32]]:
        """Class index -> up to 10 000 of its voxels, (n, 3) along (D, H, W), in raster order; empty without a label."""
        return {} if self.label is None else class_points(self.label, self.meta.case_id)

    def decoded(self) -> "LoadedCase":
        """Return itself: the voxels are in memory."""
        return self


@dataclass(frozen=True, eq=False)
class StoredCase:
    """A prepared case on disk. Reading is safe from several threads and processes; nothing is kept open."""

    folder: Path
    meta: CaseMeta

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (D, H, W)."""
        return self.meta.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along (D, H, W), in mm."""
        return self.meta.spacing_mm

    def read(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        """Return the intensities (C, d, h, w) from `start` to before `stop`, both (D, H, W) and inside the grid.

        int16 where all channels are stored as they are, else float32.
        """
        return _decode(self._array("image")[(slice(None), *_slices(start, stop))], self.meta.encodings)

    def read_label(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.uint8]:
        """Return the class indices (d, h, w) of a box.

        Raises:
            DataError: the case has no label.
        """
        if self.meta.class_voxels is None:
            raise _no_label(self.meta)
        return np.asarray(self._array("label")[_slices(start, stop)])

    @cached_property
    def points(self) -> dict[int, NDArray[np.int32]]:
        """Class index -> up to 10 000 of its voxels, (n, 3) along (D, H, W), in raster order; empty without a label."""
        if self.meta.class_voxels is None:
            return {}
        counts = [min(count, POINTS) for count in self.meta.class_voxels.values()]
        parts = np.split(self._array("points")[:], np.cumsum(counts)[:-1])
        return {k: _unravelled(flat, self.shape) for k, flat in zip(self.meta.class_voxels, parts, strict=True)}

    def decoded(self) -> LoadedCase:
        """Read the whole case into memory."""
        label = np.asarray(self._array("label")[:]) if self.meta.class_voxels is not None else None
        loaded = LoadedCase(self.meta, np.asarray(self._array("image")[:]), label)
        loaded.__dict__["points"] = self.points
        return loaded

    def _array(self, name: str) -> Any:
        import blosc2  # 0.4 s, so only where voxels are read

        # Opening costs 0.1 ms; a handle shared between threads is not safe, and many kept ones use up descriptors.
        return blosc2.open(str(self.folder / f"{name}.b2nd"), mode="r", dparams={"nthreads": 1})


def write_case(folder: Path, voxels: NDArray[Any], label: NDArray[np.uint8] | None, meta: CaseMeta) -> CaseMeta:
    """Write a prepared case so that `folder` appears whole or not at all; an existing one is kept as it is.

    Args:
        folder: Does not exist yet; its parents are made.
        voxels: (C, D, H, W) in the type of `meta.encodings`.
        label: (D, H, W) class indices on the same grid.
        meta: `class_voxels` is filled in here.

    Returns:
        The record as written.

    Raises:
        ValueError: the arrays do not fit the record.
    """
    _check(voxels, label, meta)
    meta = meta.model_copy(update={"class_voxels": None if label is None else count_classes(label)})
    with atomic_folder(folder) as draft:
        _write_array(draft / "image.b2nd", voxels, _IMAGE)
        if label is not None:
            _write_array(draft / "label.b2nd", label, _LABEL)
            points = _flat_points(label, meta.case_id)
            _write_array(draft / "points.b2nd", np.concatenate(list(points.values())), _POINTS)
        (draft / "case.json").write_text(meta.model_dump_json(), encoding="utf-8")
    return meta


def open_case(folder: Path) -> StoredCase:
    """Open a case that `write_case` wrote; voxels are read when asked for.

    Raises:
        DataError: the folder holds no finished case, or one of another format.
    """
    try:
        meta = CaseMeta.model_validate(json.loads((folder / "case.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(
            f"prepared case {folder.name}: case.json cannot be read: {type(error).__name__}; expected a finished case. "
            "Delete the folder; the next run makes it again."
        ) from error
    return StoredCase(folder, meta)


def keep_decoded(cases: Iterable[StoredCase], budget_bytes: int) -> list[StoredCase | LoadedCase]:
    """Decode cases, in order, as long as they fit into a memory budget; the others stay on disk. Same numbers."""
    kept: list[StoredCase | LoadedCase] = []
    for case in cases:
        fits = case.meta.stored_bytes <= budget_bytes
        budget_bytes -= case.meta.stored_bytes if fits else 0
        kept.append(case.decoded() if fits else case)
    return kept


def count_classes(label: NDArray[np.uint8]) -> dict[int, int]:
    """Return class index -> voxels, of those that occur."""
    counts = np.zeros(256, np.int64)
    for part in label:  # slice by slice: bincount makes an int64 copy
        counts += np.bincount(part.ravel(), minlength=256)
    return {int(k): int(counts[k]) for k in np.flatnonzero(counts)}


def class_points(label: NDArray[np.uint8], case_id: str, most: int = POINTS) -> dict[int, NDArray[np.int32]]:
    """Draw voxels of each class, evenly spread over them: one in each of `most` equal stretches of raster order.

    The draw depends on the case id alone, so that every run and machine has the same points.

    Args:
        label: (D, H, W) class indices; every value that occurs is a class here, 0 and 255 too.
        case_id: Key of the random numbers.
        most: All voxels are taken of a class with no more than these.

    Returns:
        Class index -> (n, 3) int32 positions along (D, H, W), in raster order.
    """
    return {k: _unravelled(flat, label.shape) for k, flat in _flat_points(label, case_id, most).items()}


def _flat_points(label: NDArray[np.uint8], case_id: str, most: int = POINTS) -> dict[int, NDArray[np.int64]]:
    ranks = {k: _even_ranks(count, most, case_id, k) for k, count in count_classes(label).items()}
    found: dict[int, list[NDArray[np.int64]]] = {k: [] for k in ranks}
    seen = dict.fromkeys(ranks, 0)
    slab = max(1, 2**22 // label[0].size)
    for first in range(0, label.shape[0], slab):
        part = label[first : first + slab].ravel()
        order = np.argsort(part, kind="stable")  # a radix sort for bytes: raster order within each class
        ends = np.cumsum(np.bincount(part, minlength=256))
        for k, wanted in ranks.items():
            begin, end = int(ends[k - 1]) if k else 0, int(ends[k])
            here = wanted[np.searchsorted(wanted, seen[k]) : np.searchsorted(wanted, seen[k] + end - begin)]
            found[k].append(order[begin + here - seen[k]] + first * label[0].size)
            seen[k] += end - begin
    return {k: np.concatenate(parts) for k, parts in found.items()}


def _unravelled(flat: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int32]:
    return np.stack(np.unravel_index(flat, shape), axis=1).astype(np.int32)


def _even_ranks(count: int, most: int, case_id: str, class_index: int) -> NDArray[np.int64]:
    if count <= most:
        return np.arange(count)
    key = int.from_bytes(sha256(case_id.encode()).digest()[:8], "little")
    random = np.random.Generator(np.random.Philox(key=[key, class_index]))
    edges = np.arange(most + 1) * count // most
    return edges[:-1] + (random.random(most) * np.diff(edges)).astype(np.int64)


def _check(voxels: NDArray[Any], label: NDArray[np.uint8] | None, meta: CaseMeta) -> None:
    expected = (len(meta.encodings), *meta.shape)
    if voxels.shape != expected or {str(voxels.dtype)} != {encoding.dtype for encoding in meta.encodings}:
        raise ValueError(f"voxels {voxels.shape} {voxels.dtype} are not {expected} in the type of the encodings")
    if label is not None and (label.shape != meta.shape or label.dtype != np.uint8):
        raise ValueError(f"label {label.shape} {label.dtype} is not {meta.shape} uint8")


def _decode(stored: NDArray[Any], encodings: tuple[Encoding, ...]) -> NDArray[Any]:
    if stored.dtype == np.float32 or all(encoding.is_plain for encoding in encodings):
        return np.asarray(stored)
    return np.stack([encoding.decode(channel) for encoding, channel in zip(encodings, stored, strict=True)])


def _slices(start: Sequence[int], stop: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(int(begin), int(end)) for begin, end in zip(start, stop, strict=True))


def _write_array(path: Path, array: NDArray[Any], compression: tuple[str, int, str]) -> None:
    import blosc2

    codec, level, how = compression
    chunks, blocks = (None, None) if array.ndim < 3 else _parts(array.shape)
    blosc2.asarray(
        np.ascontiguousarray(array), urlpath=str(path), mode="w", chunks=chunks, blocks=blocks,
        cparams={
            "codec": blosc2.Codec[codec], "clevel": level, "filters": [blosc2.Filter[how]], "filters_meta": [0],
            "typesize": array.itemsize, "nthreads": min(4, os.cpu_count() or 1),
        },
    )  # fmt: skip


def _parts(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return chunk and block of an array (D, H, W) or (C, D, H, W)."""
    lead = (1,) * (len(shape) - 3)
    blocks = tuple(min(n, size) for n, size in zip((*lead, *_BLOCK), shape, strict=True))
    # Whole blocks a chunk, or the rest of a chunk would be padded with blocks that are half empty.
    chunks = tuple(
        min(n, -(-size // block) * block) for n, size, block in zip((*lead, *_CHUNK), shape, blocks, strict=True)
    )
    return chunks, blocks


def _no_label(meta: CaseMeta) -> DataError:
    return DataError(f"case {meta.case_id}: has no label volume; expected one. Give the manifest a label column.")
