"""Probabilities of every voxel on the grid of the input: kept compressed while slabs arrive, written class by class.

Slabs finish along an axis of the working grid, which need not be the slowest one of the file, so they cannot go into
a NIfTI file as they come. They go into a chunked, compressed array on disk; from there each class becomes a file of
its own, which every viewer opens. 8 bits are enough for what is looked at: a step of 1/255 is far below what a
network's probabilities are good for, and NIfTI knows no float16.
"""

import itertools
import json
import math
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.imaging.geometry import apply
from pipeline.imaging.placement import Placement
from pipeline.imaging.volume import Volume
from pipeline.imaging.write import write_image
from pipeline.learning.native_grid import Output, decide_interpolated
from pipeline.workspace import write_json

ENTROPY = "entropy"
_CHUNK_ROWS = 8
_READ_ROWS = 32


class ProbabilityMaps:
    """One volume of probabilities a class and one of the entropy, in 255ths, in a scratch file until written.

    Args:
        names: Classes, or regions, in the order of the logits.
        placement: Where the cropped native grid lies in the file.
        exclusive: Whether a voxel has one class (softmax), or each region is for itself (sigmoid).
        axis: Slab axis, along which it is filled.
        scratch: Folder for the file; the system's temporary one where None.
    """

    def __init__(
        self, names: Sequence[str], placement: Placement, *, exclusive: bool, axis: int, scratch: Path | None = None
    ) -> None:
        self.names, self.placement, self.exclusive = (*names, ENTROPY), placement, exclusive
        if scratch is not None:
            scratch.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(prefix=".tmp-", dir=scratch)
        shape = placement.cropped.shape
        chunk = [min(512, n) for n in shape]
        chunk[axis] = min(_CHUNK_ROWS, shape[axis])
        self.array: Any = blosc2.zeros(
            (len(self.names), *shape), np.uint8, chunks=(1, *chunk), cparams={"clevel": 1, "codec": blosc2.Codec.LZ4},
            urlpath=str(Path(self._folder.name) / "maps.b2nd"), mode="w",
        )  # fmt: skip

    @property
    def output(self) -> Output:
        """What fills it as slabs arrive."""
        return Output(decide_interpolated(self._say), self.array, interpolates=True)

    def write(self, folder: Path) -> list[Path]:
        """Write `<class>.nii.gz` for each class, `entropy.nii.gz`, and `scale.json`, which says what 255 means.

        Entropy is that of the classes, as a share of the largest possible: 0 where the network is certain. One
        volume of 8 bits on the grid of the file is in memory at a time.

        Returns:
            The files.
        """
        written = []
        for index, file in enumerate(_file_names(self.names)):
            path = folder / file
            outside = 255 if self.exclusive and index == 0 else 0
            write_image(Volume(self._on_source(index, outside)[None], self.placement.source), path)
            written.append(path)
        scale = folder / "scale.json"
        files = {path.name: name for path, name in zip(written, self.names, strict=True)}
        write_json(scale, {"unit": "255 is a probability of 1; entropy: 255 is the largest possible", "files": files})
        return [*written, scale]

    def close(self) -> None:
        """Remove the scratch file."""
        self._folder.cleanup()

    def _on_source(self, index: int, outside: int) -> NDArray[np.uint8]:
        whole = np.full(self.placement.source.shape, outside, np.uint8)
        box = zip(self.placement.start, self.placement.stop, strict=True)
        inside = apply(whole, self.placement.reorientation)[tuple(slice(start, stop) for start, stop in box)]
        for first in range(0, inside.shape[0], _READ_ROWS):
            inside[first : first + _READ_ROWS] = self.array[index, first : first + _READ_ROWS]
        return whole

    def _say(self, logits_KDHW: Tensor) -> Tensor:
        """Turn logits (K, ...) float32 into probabilities and their entropy in 255ths, uint8 (K + 1, ...)."""
        if self.exclusive:
            shares = logits_KDHW.softmax(0)
            entropy = torch.special.entr(shares).sum(0) / math.log(max(2, len(shares)))
        else:
            shares = logits_KDHW.sigmoid()
            entropy = (torch.special.entr(shares) + torch.special.entr(1 - shares)).mean(0) / math.log(2)
        return torch.cat([shares, entropy[None].clamp_(0, 1)]).mul_(255).round_().to(torch.uint8)


def read_probabilities(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Read what `ProbabilityMaps.write` wrote: class name, or `entropy`, -> shares (D, H, W)."""
    from pipeline.imaging.read import read_image

    files = json.loads((folder / "scale.json").read_text())["files"]
    return {
        name: read_image(folder / file, case_id=name).voxels[0].astype(np.float32) / np.float32(255)
        for file, name in files.items()
    }


def _file_names(names: Sequence[str]) -> list[str]:
    """Return a file for each name, numbered where two would share one, also where capitals count for nothing."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        tried = (plain if number == 1 else f"{plain}-{number}" for number in itertools.count(1))
        file = next(f"{one}.nii.gz" for one in tried if one.lower() not in found)
        found[file.removesuffix(".nii.gz").lower()] = file
    return list(found.values())
