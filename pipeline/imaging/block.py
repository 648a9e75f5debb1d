"""Many small volumes of one shape in one array of a file (npz, h5): how a case names its own, and one look at all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.imaging.facts import PERCENTILES, CaseFacts, ChannelFacts, Intensities, content_sha256, voxels_sha256
from pipeline.imaging.volume import Geometry

_MEMBER = re.compile(r"^(?P<file>.+\.(npz|h5|hdf5))#(?P<array>\w+)/(?P<index>\d+)$")


@dataclass(frozen=True)
class Member:
    """One volume of a block: number `index` of an array of a file. As a path it is `file#array/index`."""

    file: Path
    array: str
    index: int

    @property
    def path(self) -> Path:
        """What stands for it where a case names its image."""
        return Path(f"{self.file}#{self.array}/{self.index}")


def member_of(path: Path) -> Member | None:
    """Return what volume of a block a path means; None where it is a file of its own."""
    found = _MEMBER.match(str(path))
    return None if found is None else Member(Path(found["file"]), found["array"], int(found["index"]))


def source_file(path: Path) -> Path:
    """Return the file that holds an image: the path itself, or the block's file."""
    member = member_of(path)
    return path if member is None else member.file


def read_array(file: Path, array: str) -> NDArray[Any]:
    """Read one array of an npz or h5 file as it is; nothing in the file is executed.

    Raises:
        DataError: no such file or array, or h5py is not installed.
    """
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as content:
                return np.asarray(content[array])
        return _read_h5(file, array)
    except (OSError, ValueError, KeyError) as error:
        why = f"it has no array {array!r}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise DataError(f"{file}: cannot be read: {why}. Check the path and the file.") from error


def read_block(file: Path, array: str) -> NDArray[Any]:
    """Read a block of volumes.

    Args:
        file: npz or h5.
        array: (N, D, H, W), or (N, n * n * n) for cubes written row by row.

    Returns:
        (N, D, H, W), finite; int16 where all are whole numbers that fit, else float32.

    Raises:
        DataError: it is no such array, or holds NaN or infinity.
    """
    values = read_array(file, array)
    if values.ndim == 2:
        side = round(values.shape[1] ** (1 / 3))
        if side**3 == values.shape[1]:
            values = values.reshape(len(values), side, side, side)
    if values.ndim != 4 or values.dtype.kind not in "iufb" or values.size == 0:
        raise DataError(
            f"{file}: array {array} is {values.dtype} of shape {values.shape}; expected numbers (N, D, H, W), or "
            "(N, n * n * n) for cubes."
        )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=(1, 2, 3)))
    if bad.size:
        raise DataError(
            f"{file}: volume {bad[0]} of array {array} holds NaN or infinity"
            f"{f' and so do {bad.size - 1} more' if bad.size > 1 else ''}; expected finite numbers. Mend the file."
        )
    is_whole = values.dtype.kind != "f" or bool(np.array_equal(values, np.rint(values)))
    small = is_whole and float(values.min()) >= -(2**15) and float(values.max()) < 2**15
    return np.ascontiguousarray(values, np.int16 if small else np.float32)


def survey_block(file: Path, array: str, members: Mapping[str, int]) -> dict[str, CaseFacts]:
    """Look at all volumes of a block that are cases.

    Args:
        file: npz or h5.
        array: Name of the array.
        members: Case id -> index in the array.

    Raises:
        DataError: the array cannot be used, or is shorter than an index.
    """
    block, content = read_block(file, array), content_sha256(file)
    if members and max(members.values()) >= len(block):
        raise DataError(
            f"{file}: array {array} holds {len(block)} volumes; expected at least {max(members.values()) + 1}."
        )
    chosen = block[list(members.values())].reshape(len(members), -1)
    percentiles = np.percentile(chosen, PERCENTILES, axis=1).T
    geometry, columns = Geometry(shape=block.shape[1:]), _columns(chosen)
    return {
        case_id: CaseFacts(
            case_id=case_id, geometry=geometry, canonical=geometry,
            channels={
                "image": ChannelFacts(
                    dtype=block.dtype.name, sha256=content, voxels_sha256=voxels_sha256(block[index]),
                    nonzero=columns["nonzero"][row],
                    all=Intensities(
                        voxels=chosen.shape[1], minimum=columns["minimum"][row], maximum=columns["maximum"][row],
                        mean=columns["mean"][row], std=columns["std"][row],
                        percentiles=tuple(percentiles[row].tolist()),
                    ),
                )
            },
        )
        for row, (case_id, index) in enumerate(members.items())
    }  # fmt: skip


def _columns(rows: NDArray[Any]) -> dict[str, list[float]]:
    """Return figures of each row (N, voxels) at once."""
    found = {
        "minimum": rows.min(1), "maximum": rows.max(1), "mean": rows.mean(1, dtype=np.float64),
        "std": rows.std(1, dtype=np.float64), "nonzero": np.count_nonzero(rows, 1) / rows.shape[1],
    }  # fmt: skip
    return {name: values.astype(float).tolist() for name, values in found.items()}


def _read_h5(file: Path, array: str) -> NDArray[Any]:
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{file}: reading it needs h5py. Install it with 'pip install h5py'.") from error
    with h5py.File(file, "r") as content:
        return np.asarray(content[array])
