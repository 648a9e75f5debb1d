"""The streaming sliding window: a network over a volume of any size, with one slab of logits in memory.

Letters of a shape: B windows of a batch, C channels, K classes, D H W depth, height, width; d h w those of a window.

Decided here:

- Windows are spread evenly over each axis, first and last flush with its ends, with steps as near to
  `window x (1 - overlap)` from below as whole windows allow; nnU-Net's way. MONAI's fixed steps with the last
  window pushed back were rejected: their overlap jumps at the far end.
- Logits are averaged, not probabilities, over windows, mirrors and members alike. One sum holds all of them, no
  softmax is paid for in each window, and interpolating the mean to another grid stays linear, which lets the
  native-grid decision skip most of its work. A mean of probabilities would need all of that anew; it weighs
  sure members less, and on ensembles of folds differs from this in few voxels.
- Windows stand on a product of three sets of starts and the weights are products of three profiles, so the sum
  of weights is such a product as well. Each profile is divided by its axis' sum beforehand: what is accumulated
  is the weighted mean itself. No sum of weights is kept, and none can be too small to divide by.
- Within a row of windows one member comes after the other, each over all windows of the row. So members that must
  share the memory of one network change places once a row, not once a window, and no logits of a whole volume wait
  for the next member; members that are all in memory take the same order, so both give the same bits.
"""

import itertools
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Size = tuple[int, int, int]
"""Voxels along (D, H, W)."""
Box = tuple[slice, slice, slice]
"""Part of a volume along (D, H, W); start and stop inside it."""
Weights = Literal["gaussian", "constant", "hann"]
Read = Callable[[Box], Tensor]
"""Part of the volume -> normalised intensities (C, d, h, w)."""
Forward = Callable[[Tensor], Tensor]
"""(B, C, d, h, w) -> logits (B, K, d, h, w)."""

GAUSSIAN_SIGMA = 1 / 8
"""Standard deviation in window lengths; that of nnU-Net and MONAI."""


@dataclass(frozen=True)
class WindowGrid:
    """Which windows cover a volume.

    shape:   Size of the volume (D, H, W).
    window:  Size of a window.
    before:  Voxels of padding in front of each axis, where the volume is smaller than a window.
    starts:  For each axis, where windows begin, in voxels of the padded volume, ascending.
    axis:    Slab axis: windows come in its order, and what lies behind them is finished.
    """

    shape: Size
    window: Size
    before: Size
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    axis: int

    def __len__(self) -> int:
        return math.prod(len(starts) for starts in self.starts)

    @property
    def padded(self) -> Size:
        """Size of the volume after padding."""
        depth, height, width = (max(n, w) for n, w in zip(self.shape, self.window, strict=True))
        return depth, height, width

    @property
    def slab(self) -> Size:
        """Size of what is held at once: one window thick along the slab axis, the padded volume along the others."""
        size = list(self.padded)
        size[self.axis] = self.window[self.axis]
        return size[0], size[1], size[2]


@dataclass(frozen=True, eq=False)
class Member:
    """One network of an ensemble, with its own normalisation.

    read:       Gives the normalised intensities of a part of the volume.
    forward:    The network, mirrors included (`mirrored`).
    background: Normalised value of each channel (C) that pads volumes smaller than a window.
    take_turn:  Called before its windows of each row; for networks that share memory. None where there is nothing
                to do.
    """

    read: Read
    forward: Forward
    background: tuple[float, ...]
    take_turn: Callable[[], None] | None = None


@dataclass(frozen=True, eq=False)
class Skip:
    """Windows that no network needs to see.

    is_empty: Says of a part of the volume that it holds only air.
    logits:   (K) what such a window says in every voxel: surely background.
    """

    is_empty: Callable[[Box], bool]
    logits: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Slab:
    """Finished logits of the rows `start` to before `stop` along the slab axis, of the unpadded volume.

    logits: (K, D, H, W), float32 or as the accumulator; memory that the next slab overwrites.
    """

    start: int
    stop: int
    axis: int
    logits: Tensor


def plan_windows(shape: Size, window: Size, overlap: float | tuple[float, float, float] = 0.5) -> WindowGrid:
    """Place windows over a volume.

    Args:
        shape: Size of the volume (D, H, W).
        window: Size of a window.
        overlap: Share of a window that its neighbour covers at least, one for all axes or one each, in [0, 1).

    Returns:
        The windows. The slab axis is the one along which the volume counts most windows, so that a slab is the
        smallest part of it; the first of equals.
    """
    shares = overlap if isinstance(overlap, tuple) else (overlap,) * 3
    if not all(0 <= share < 1 for share in shares):
        raise ValueError(f"overlap {overlap} is not in [0, 1)")
    before = tuple(max(0, w - n) // 2 for n, w in zip(shape, window, strict=True))
    starts = tuple(_starts(max(n, w), w, share) for n, w, share in zip(shape, window, shares, strict=True))
    lengths = [n / w for n, w in zip(shape, window, strict=True)]
    axis = lengths.index(max(lengths))
    return WindowGrid(shape, window, before, starts, axis)  # type: ignore[arg-type]  # tuples of three each


def slide(
    grid: WindowGrid,
    members: Sequence[Member],
    classes: int,
    *,
    weights: Weights = "gaussian",
    batch: int = 1,
    accumulator: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    skip: Skip | None = None,
    memory_limit: int | None = None,
    scratch: Path | None = None,
    advance: Callable[[int], None] | None = None,
) -> Iterator[Slab]:
    """Run every member over every window and give the mean logits slab by slab, as they are finished.

    Args:
        grid: The windows.
        members: Networks; their logits are averaged with equal shares.
        classes: Channels of the logits.
        weights: How a window's voxels count: most in its centre (`gaussian`, `hann`) or all alike (`constant`).
        batch: Windows in one forward pass.
        accumulator: Type in which logits are summed; float16 halves the slab and costs three digits.
        device: Where logits are summed; `forward` may move its input to another.
        skip: Windows that are not computed; None to compute all.
        memory_limit: Bytes that the slab may take in memory. A larger one lies in a memory-mapped scratch file,
            with equal numbers; on the CPU only. None for no limit.
        scratch: Folder for that file; the system's temporary one where None.
        advance: Called with the number of windows that were just done.

    Yields:
        Slabs that follow each other without a gap from 0 to the end of the slab axis. Their logits are valid
        until the next one is asked for.
    """
    memory = _zeros((classes, *grid.slab), accumulator, torch.device(device), memory_limit, scratch)
    slab = _SlabSum(grid, memory, _profiles(grid, weights, device))
    along = grid.starts[grid.axis]
    for row, (first, after) in enumerate(zip(along, [*along[1:], grid.padded[grid.axis]], strict=True)):
        _add_row(slab, members, row, batch, skip, advance or _nobody)
        yield slab.finished(first, after)
        slab.drop(after - first)


@torch.no_grad()
def average(
    grid: WindowGrid, members: Sequence[Member], *, batch: int = 1, advance: Callable[[int], None] | None = None
) -> Tensor:
    """Run networks that judge a window as a whole, and give their mean logits (K) over all windows and members."""
    total, count = torch.zeros(()), 0
    rows = range(len(grid.starts[grid.axis]))
    windows = itertools.chain.from_iterable(_row_of_windows(grid, row) for row in rows)
    for places in _batches(windows, batch):
        for member in members:
            if member.take_turn is not None:
                member.take_turn()
            logits_BK = member.forward(torch.stack([_window(member, grid, place) for place in places]))
            total = total + logits_BK.float().sum(0).cpu()
        count += len(places)
        if advance is not None:
            advance(len(places))
    return total / (count * len(members))


def axis_weights(starts: Sequence[int], window: int, length: int, kind: Weights) -> list[NDArray[np.float64]]:
    """Return how each window counts along one axis, so that all windows together count 1 everywhere.

    Args:
        starts: Where windows begin; they cover the axis.
        window: Length of a window.
        length: Length of the axis.
        kind: Form of the profile before it is divided by the sum over the windows.

    Returns:
        One array (window) for each start.
    """
    shape = _profile(window, kind)
    total = np.zeros(length)
    for start in starts:
        total[start : start + window] += shape
    return [shape / total[start : start + window] for start in starts]


def mirrored(forward: Forward, axes: Sequence[int], swaps: Sequence[tuple[int, int]] = ()) -> Forward:
    """Average a network over all mirror images along the axes: 2 to the power of their number.

    Args:
        forward: The network.
        axes: Of (D, H, W): 0, 1, 2. The canonical W axis runs from the patient's right to the left.
        swaps: Pairs of classes that an image mirrored along W exchanges, such as left and right kidney.

    Returns:
        A function like `forward`, whose logits are turned back, swapped back and averaged.
    """
    choices = [chosen for count in range(len(axes) + 1) for chosen in itertools.combinations(axes, count)]
    if len(choices) == 1:
        return forward

    def average(windows_BCDHW: Tensor) -> Tensor:
        total = forward(windows_BCDHW)
        for chosen in choices[1:]:
            dims = [axis + 2 for axis in chosen]
            logits = forward(windows_BCDHW.flip(dims)).flip(dims)
            total = total + (_swapped(logits, swaps) if 2 in chosen else logits)
        return total / len(choices)

    return average


def _starts(length: int, window: int, overlap: float) -> tuple[int, ...]:
    """Spread windows evenly: the fewest whose steps do not exceed `window x (1 - overlap)`."""
    target = max(1.0, window * (1 - overlap))
    steps = math.ceil((length - window) / target - 1e-9)
    return tuple(round(i * (length - window) / max(steps, 1)) for i in range(steps + 1))


def _profile(window: int, kind: Weights) -> NDArray[np.float64]:
    """Symmetric, positive everywhere, 1 at most."""
    if kind == "constant":
        return np.ones(window)
    place = (np.arange(window) + 0.5) / window
    if kind == "hann":
        return np.sin(np.pi * place) ** 2
    return np.exp(-0.5 * ((place - 0.5) / GAUSSIAN_SIGMA) ** 2)


class _SlabSum:
    """The weighted sum of the windows of the rows that are not finished yet; its row 0 is where they begin."""

    def __init__(self, grid: WindowGrid, sums_KDHW: Tensor, profiles: list[list[Tensor]]) -> None:
        self.grid, self.sums_KDHW, self.profiles = grid, sums_KDHW, profiles

    def add(self, place: Size, logits_KDHW: Tensor, share: float) -> None:
        """Add the logits of a window of the current row.

        On a CPU class by class: there is no second copy of all of them, and the weight stays in the cache.
        """
        target_KDHW = self._covered(place)
        depth, height, width = (self.profiles[axis][place[axis]] for axis in range(3))
        weight_DHW = (depth * share)[:, None, None] * (height[:, None] * width)
        at_once = 1 if target_KDHW.device.type == "cpu" else len(logits_KDHW)
        targets, parts = (torch.split(all_of, at_once) for all_of in (target_KDHW, logits_KDHW.to(target_KDHW.device)))
        for target, logits in zip(targets, parts, strict=True):
            target.addcmul_(logits.float(), weight_DHW)

    def finished(self, first: int, after: int) -> Slab:
        """Cut the padding off the rows that no later window touches."""
        grid, axis = self.grid, self.grid.axis
        begins, counts = list(grid.before), list(grid.shape)
        if grid.shape[axis] >= grid.window[axis]:
            begins[axis], counts[axis] = 0, after - first
        part = (slice(None), *(slice(begin, begin + n) for begin, n in zip(begins, counts, strict=True)))
        return Slab(first, first + counts[axis], axis, self.sums_KDHW[part])

    def drop(self, count: int) -> None:
        """Move what is unfinished to the front and zero the rest."""
        dim, length = self.grid.axis + 1, self.grid.window[self.grid.axis]
        for start in range(count, length, count):  # piecewise: source and target of a piece never overlap
            rows = min(count, length - start)
            self.sums_KDHW.narrow(dim, start - count, rows).copy_(self.sums_KDHW.narrow(dim, start, rows))
        self.sums_KDHW.narrow(dim, length - count, count).zero_()

    def _covered(self, place: Size) -> Tensor:
        """Return the part of the slab that a window covers: along the slab axis all of it."""
        grid = self.grid
        starts = [0 if axis == grid.axis else grid.starts[axis][place[axis]] for axis in range(3)]
        return self.sums_KDHW[(slice(None), *(slice(s, s + w) for s, w in zip(starts, grid.window, strict=True)))]


def _zeros(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, limit: int | None, scratch: Path | None
) -> Tensor:
    """Make the slab, in a file that has no name where memory is short."""
    size = math.prod(shape) * dtype.itemsize
    if limit is None or size <= limit or device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    with tempfile.TemporaryFile(dir=scratch) as file:
        file.truncate(size)
        mapped = np.memmap(file, np.uint8, "r+", shape=(size,))
    return torch.from_numpy(mapped).view(dtype).view(shape)


def _profiles(grid: WindowGrid, kind: Weights, device: torch.device | str) -> list[list[Tensor]]:
    per_axis = zip(grid.starts, grid.window, grid.padded, strict=True)
    weights = [axis_weights(starts, window, length, kind) for starts, window, length in per_axis]
    return [[torch.as_tensor(one, dtype=torch.float32, device=device) for one in axis] for axis in weights]


def _row_of_windows(grid: WindowGrid, row: int) -> Iterator[Size]:
    """Give the windows of one row as indices into `grid.starts`."""
    choices = [range(len(starts)) for starts in grid.starts]
    choices[grid.axis] = range(row, row + 1)
    yield from itertools.product(*choices)


def _batches(places: Iterator[Size], size: int) -> Iterator[list[Size]]:
    while chunk := list(itertools.islice(places, size)):
        yield chunk


@torch.no_grad()
def _add_row(
    slab: _SlabSum, members: Sequence[Member], row: int, batch: int, skip: Skip | None, advance: Callable[[int], None]
) -> None:
    """Add what the members say of the windows of one row."""
    places = list(_row_of_windows(slab.grid, row))
    seen = places if skip is None else _not_skipped(slab, places, skip)
    advance(len(places) - len(seen))
    for member in members if seen else ():
        if member.take_turn is not None:
            member.take_turn()
        for some in _batches(iter(seen), batch):
            windows_BCDHW = torch.stack([_window(member, slab.grid, place) for place in some])
            _add_logits(slab, some, member.forward(windows_BCDHW), 1 / len(members))
            if member is members[-1]:
                advance(len(some))


def _not_skipped(slab: _SlabSum, places: list[Size], skip: Skip) -> list[Size]:
    """Say background for the windows that no network needs to see, and return the others."""
    seen = []
    for place in places:
        if skip.is_empty(_inside(slab.grid, place)):
            slab.add(place, torch.tensor(skip.logits)[:, None, None, None].expand(-1, *slab.grid.window), 1.0)
        else:
            seen.append(place)
    return seen


def _nobody(count: int) -> None:
    """Hear how many windows are done."""


def _add_logits(slab: _SlabSum, places: list[Size], logits_BKDHW: Tensor, share: float) -> None:
    # A call of its own: the logits are freed on return, not held beside the next forward pass.
    classes, window = slab.sums_KDHW.shape[0], slab.grid.window
    if logits_BKDHW.shape[1:] != (classes, *window):
        raise ValueError(f"the network gave {tuple(logits_BKDHW.shape)} for {classes} classes and window {window}")
    for place, logits_KDHW in zip(places, logits_BKDHW, strict=True):
        slab.add(place, logits_KDHW, share)


def _inside(grid: WindowGrid, place: Size) -> Box:
    """Return the part of the volume that a window covers, padding left out."""
    starts = [grid.starts[axis][place[axis]] - grid.before[axis] for axis in range(3)]
    depth, height, width = (
        slice(max(0, start), min(start + w, n)) for start, w, n in zip(starts, grid.window, grid.shape, strict=True)
    )
    return depth, height, width


def _window(member: Member, grid: WindowGrid, place: Size) -> Tensor:
    """Read a window (C, d, h, w), padded with the background where the volume is smaller."""
    part_CDHW = member.read(_inside(grid, place))
    if part_CDHW.shape[1:] == grid.window:
        return part_CDHW
    window = part_CDHW.new_tensor(member.background)[:, None, None, None].repeat(1, *grid.window)
    begins = zip(grid.before, part_CDHW.shape[1:], strict=True)
    window[(slice(None), *(slice(begin, begin + n) for begin, n in begins))] = part_CDHW
    return window


def _swapped(logits_BKDHW: Tensor, swaps: Sequence[tuple[int, int]]) -> Tensor:
    if not swaps:
        return logits_BKDHW
    order = list(range(logits_BKDHW.shape[1]))
    for one, other in swaps:
        order[one], order[other] = other, one
    return logits_BKDHW[:, order]
