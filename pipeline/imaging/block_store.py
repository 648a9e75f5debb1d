"""The store of a block: one entry for many volumes of one shape, decoded once and read volume by volume."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, DataError, listed
from pipeline.imaging.block import read_block
from pipeline.imaging.encoding import Encoding
from pipeline.imaging.geometry import reorientation_of
from pipeline.imaging.normalise import Distribution, IntensityStats, body_threshold
from pipeline.imaging.placement import Placement
from pipeline.imaging.prepare import PrepareOptions
from pipeline.imaging.store import CaseMeta
from pipeline.imaging.volume import Geometry, Shape
from pipeline.plugin import Settings
from pipeline.workspace import atomic_folder

_QUANTILES = 201
"""Points of each volume's quantile function: every 0.5 %."""


class BlockMeta(Settings):
    """What is known of a prepared block without looking at its voxels."""

    format: Literal[1] = 1
    count: int
    shape: Shape
    """Of each volume, (D, H, W)."""
    dtype: Literal["int16", "float32"]


@dataclass(frozen=True, eq=False)
class LoadedBlock:
    """A prepared block in memory.

    voxels: (N, 1, D, H, W) int16 or float32, the intensities themselves.
    stats:  Figures of the body of each volume: minimum, maximum, count, mean, std (N,); quantiles (N, 201).
    """

    meta: BlockMeta
    voxels: NDArray[Any]
    stats: dict[str, NDArray[Any]]

    @cached_property
    def placement(self) -> Placement:
        """Where each volume lies: whole and unchanged on its own grid, 1 mm a voxel."""
        grid = Geometry(shape=self.meta.shape)
        return Placement(reorientation=reorientation_of(grid), start=(0, 0, 0), stop=grid.shape, working=grid)

    @cached_property
    def encodings(self) -> tuple[Encoding, ...]:
        """Stored type: without steps."""
        return (Encoding(dtype=self.meta.dtype),)


@dataclass(frozen=True, eq=False)
class BlockCase:
    """One volume of a prepared block; read as a `LoadedCase` is."""

    case_id: str
    block: LoadedBlock
    index: int

    @cached_property
    def meta(self) -> CaseMeta:
        """What is known of the volume."""
        found, row = self.block.stats, self.index
        # Made by us from checked arrays, thousands at a time: checking each again takes longer than reading them.
        body = Distribution.model_construct(
            count=int(found["count"][row]), mean=float(found["mean"][row]), std=float(found["std"][row]),
            quantiles=found["quantiles"][row],
        )  # fmt: skip
        stats = IntensityStats.model_construct(
            minimum=float(found["minimum"][row]), maximum=float(found["maximum"][row]), body=body, foreground=None
        )
        return CaseMeta.model_construct(
            case_id=self.case_id, channels=("image",), placement=self.block.placement, encodings=self.block.encodings,
            stats=(stats,), class_voxels=None, extra={},
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (D, H, W)."""
        return self.block.meta.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along (D, H, W): 1 mm, since such files do not say."""
        return (1.0, 1.0, 1.0)

    @property
    def points(self) -> dict[int, NDArray[np.int32]]:
        """Voxels of classes: none, since there is no label volume."""
        return {}

    def read(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        """Return the intensities (1, d, h, w) of a box: a view, do not write to it."""
        depth, height, width = (slice(int(begin), int(end)) for begin, end in zip(start, stop, strict=True))
        part: NDArray[Any] = self.block.voxels[self.index, :, depth, height, width]
        return part

    def read_label(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.uint8]:
        """Refuse: volumes of a block have no label volume.

        Raises:
            DataError: always.
        """
        raise DataError(f"case {self.case_id}: has no label volume; expected one. Choose the task classification.")

    def decoded(self) -> "BlockCase":
        """Return itself: the voxels are in memory."""
        return self


def ingest_block(file: Path, array: str, options: PrepareOptions, folder: Path) -> tuple[int, int, int]:
    """Read and store one block, unless `folder` holds it already.

    Args:
        file: npz or h5.
        array: Name of the array.
        options: Must leave volumes as they are.
        folder: Entry in the cache; its name stands for all of the above.

    Returns:
        Size (D, H, W) of each volume.

    Raises:
        DataError: the array cannot be used.
        ConfigError: the options would change volumes.
    """
    if (folder / "block.json").exists():
        return _read_meta(folder).shape
    _refuse_changes(options)
    voxels = read_block(file, array)
    meta = BlockMeta(
        count=len(voxels), shape=voxels.shape[1:], dtype="int16" if voxels.dtype == np.int16 else "float32"
    )
    with atomic_folder(folder) as draft:
        _write_voxels(draft / "voxels.b2nd", voxels[:, None])
        np.savez_compressed(draft / "stats.npz", **_measure(voxels))  # type: ignore[arg-type]
        (draft / "block.json").write_text(meta.model_dump_json(), encoding="utf-8")
    return meta.shape


def open_block(folder: Path) -> LoadedBlock:
    """Decode a block that `ingest_block` wrote.

    Raises:
        DataError: the folder holds no finished block.
    """
    import blosc2

    meta = _read_meta(folder)
    try:
        voxels = np.asarray(blosc2.open(str(folder / "voxels.b2nd"), mode="r")[:])
        with np.load(folder / "stats.npz", allow_pickle=False) as file:
            return LoadedBlock(meta, voxels, {name: file[name] for name in file.files})
    except (OSError, RuntimeError, ValueError) as error:
        raise _damaged(folder, error) from error


def _read_meta(folder: Path) -> BlockMeta:
    try:
        return BlockMeta.model_validate(json.loads((folder / "block.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise _damaged(folder, error) from error


def _damaged(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"prepared block {folder.name}: cannot be read: {type(error).__name__}; expected a finished block. "
        "Delete the folder; the next run makes it again."
    )


def _refuse_changes(options: PrepareOptions) -> None:
    changes = []
    if options.crop != "none":
        changes.append("ingest.crop: none")
    if options.spacing_mm not in (None, (1.0, 1.0, 1.0)):
        changes.append("ingest.spacing_mm: null")
    if options.middle_mm is not None or options.resize is not None:
        changes.append("neither ingest.middle_mm nor ingest.resize")
    if changes:
        raise ConfigError(
            f"volumes that share a file are kept as they are, 1 mm a voxel; expected {listed(changes)}. "
            "Set it in the config, or write each volume to a file of its own."
        )


def _measure(voxels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Measure the body of each volume, as `normalise.measure` does for one."""
    rows = voxels.reshape(len(voxels), -1)
    found: dict[str, NDArray[Any]] = {"minimum": rows.min(1), "maximum": rows.max(1)}
    figures, quantiles = [], np.empty((len(rows), _QUANTILES), np.float32)
    share = np.linspace(0, 1, _QUANTILES)
    for number, (row, low) in enumerate(zip(rows, found["minimum"].tolist(), strict=True)):
        body = np.sort(row[row > body_threshold(low)])
        body = body if body.size else np.sort(row)
        figures.append((body.size, body.mean(dtype=np.float64), body.std(dtype=np.float64)))
        quantiles[number] = np.interp(share * (body.size - 1), np.arange(body.size), body)
    found |= dict(zip(("count", "mean", "std"), np.array(figures).T, strict=True))
    return found | {"quantiles": quantiles}


def _write_voxels(path: Path, voxels: NDArray[Any]) -> None:
    import blosc2

    many = min(len(voxels), max(1, 2**20 // voxels[0].size))
    blosc2.asarray(
        voxels, urlpath=str(path), mode="w", chunks=(many, *voxels.shape[1:]),
        cparams={"codec": blosc2.Codec.LZ4, "clevel": 5, "filters": [blosc2.Filter.BITSHUFFLE], "filters_meta": [0]},
    )  # fmt: skip
