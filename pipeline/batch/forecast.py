"""What a batch will cost, told before it starts: windows, passes, time and memory, and what would cost less."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from pipeline.batch.sources import Source
from pipeline.errors import DataError, plural
from pipeline.imaging.geometry import canonical_geometry, reorientation_of, resampled_geometry
from pipeline.imaging.prepare import MOST_VOXELS
from pipeline.imaging.read import read_geometry
from pipeline.imaging.volume import Geometry
from pipeline.learning.predictor import Predictor
from pipeline.learning.sliding_window import Size, plan_windows
from pipeline.machine import resident_memory_mb
from pipeline.progress import clock
from pipeline.records import InferenceRecipe

_MIB = 1 << 20
_WORTH_MB = 50
_CT = (301, 512, 512)
"""Assumed where a header cannot be read."""

Look = Callable[[Path], Geometry]
"""Volume file -> its grid; raises DataError."""


@dataclass(frozen=True)
class Forecast:
    """What a batch will cost at most: what cropping will leave out is not known yet.

    windows:       Over all cases.
    members:       Models.
    mirrors:       Images a window is looked at in, 2 to the power of the mirrored axes.
    seconds_a_pass: Of one window through one network, measured on noise just now; None where it was not.
    fixed_mb:      What the process holds with its models loaded, and after a pass its activations.
    case_mb:       The largest case: images, slab and mask.
    overlap_mb:    Of that, what is the next and the last case.
    """

    cases: int
    windows: int
    members: int
    mirrors: int
    in_turn: bool
    seconds_a_pass: float | None
    fixed_mb: float
    case_mb: float
    overlap_mb: float
    slab_mb: float
    weights_mb: float
    batch: int
    overlap: Any

    def timed(self, predictor: Predictor) -> "Forecast":
        """Return this with the time of one window, measured on noise now."""
        return replace(self, seconds_a_pass=_seconds_a_pass(predictor)) if self.windows else self

    @property
    def passes(self) -> int:
        """Forward passes of a single window."""
        return self.windows * self.members * self.mirrors

    @property
    def seconds(self) -> float | None:
        """Of all passes."""
        return None if self.seconds_a_pass is None else self.passes * self.seconds_a_pass

    @property
    def peak_mb(self) -> float:
        """Memory of the process."""
        return self.fixed_mb + self.case_mb

    def text(self, memory_bytes: int | None = None, max_minutes: float | None = None) -> str:
        """Say the cost, and what to change where it would not fit what the user names."""
        parts = [plural(self.cases, "case"), f"at most {plural(self.windows, 'window')}"]
        if self.members > 1:
            parts.append(f"{self.members} models {'in turn' if self.in_turn else 'together'}")
        if self.mirrors > 1:
            parts.append(f"{self.mirrors} mirror images")
        parts.append(f"{self.passes} passes")
        if self.seconds is not None:
            parts.append(f"about {clock(self.seconds)} in the network")
        parts.append(f"about {self.peak_mb / 1024:.1f} GB")
        lines = ["to do: " + ", ".join(parts)]
        if memory_bytes is not None and self.peak_mb * _MIB > memory_bytes:
            lines.append(self._less_memory(memory_bytes))
        if max_minutes is not None and self.seconds is not None and self.seconds > 60 * max_minutes:
            lines.append(self._less_time(max_minutes))
        return "\n".join(lines)

    def _less_memory(self, memory_bytes: int) -> str:
        saves = []
        if self.members > 1 and not self.in_turn:
            saves.append(((self.members - 1) * self.weights_mb, "--ensemble in-turn"))
        if self.batch > 1:
            saves.append((0.5 * self.case_mb, "--set predict.window_batch=1"))
        saves.append((0.5 * self.slab_mb, "--set predict.accumulator=fp16"))
        saves.append((self.overlap_mb, "one case a command, so that none waits"))
        best = [f"{what} (saves {mb / 1024:.1f} GB)" for mb, what in sorted(saves, reverse=True) if mb >= _WORTH_MB]
        return (
            f"that is more than the {memory_bytes / 1024**3:.1f} GB allowed; slabs that do not fit will lie in a file. "
            f"To save memory: {'; '.join(best) or 'a smaller network'}."
        )

    def _less_time(self, max_minutes: float) -> str:
        assert self.seconds is not None
        times = []
        if self.mirrors > 1:
            times.append((1 / self.mirrors, "--set predict.mirror=[]"))
        if self.members > 1:
            times.append((1 / self.members, "--fold with one of the folds"))
        if self.overlap != 0.25 and (not isinstance(self.overlap, float) or self.overlap > 0.25):
            times.append((0.35, "--set predict.overlap=0.25"))
        best = [f"{what} (takes about {clock(share * self.seconds)})" for share, what in sorted(times)]
        return (
            f"that is more than the {max_minutes:g} minutes allowed. To save time: "
            f"{'; '.join(best) or 'a GPU, or fewer cases a command'}. Each changes results a little."
        )


def forecast(
    sources: Sequence[Source], predictor: Predictor, *, probabilities: bool = False, measure: bool = True,
    look: Look = read_geometry,
) -> Forecast:  # fmt: skip
    """Say what predicting the sources will cost, from their headers and one window of noise.

    Args:
        sources: What is to be predicted.
        predictor: With its models loaded.
        probabilities: Whether those of every voxel are kept.
        measure: Whether to time the network on a window; else the time is not told.
        look: Reads the header of a volume file; one that crashes its reader should do so in a child process.
    """
    grids = [grid_of(source, look) for source in sources]
    recipe, options = predictor.recipe, predictor.options
    # What is absurdly large is refused when it is prepared, and costs nothing.
    working = [shape if prod(shape := working_shape(grid, recipe)) <= MOST_VOXELS else (1, 1, 1) for grid in grids]
    planned = [plan_windows(shape, recipe.patch_size, options.overlap) for shape in working]
    channels, classes = len(recipe.channels), len(recipe.class_names)
    slabs = [4 * classes * prod(plan.slab) for plan in planned]
    # Read as int16 or float32, prepared as one of the two, and a mask.
    images = [
        channels * 4 * prod(grid.shape) + channels * 4 * prod(shape) for grid, shape in zip(grids, working, strict=True)
    ]
    masks = [prod(grid.shape) * (2 if probabilities else 1) for grid in grids]
    costs = [slab + 2 * image + 2 * mask for slab, image, mask in zip(slabs, images, masks, strict=True)]
    waiting = max((image + mask for image, mask in zip(images, masks, strict=True)), default=0) if len(grids) > 1 else 0
    seconds = _seconds_a_pass(predictor) if measure and sources else None
    weights = sum(tensor.nbytes for tensor in predictor.models[0].module.state_dict().values())
    return Forecast(
        cases=len(sources),
        windows=sum(len(plan) for plan in planned),
        members=len(predictor.models),
        mirrors=2 ** len(options.mirror),
        in_turn=any(model.take_turn is not None for model in predictor.models),
        seconds_a_pass=seconds,
        fixed_mb=resident_memory_mb(),
        case_mb=max(costs, default=0) / _MIB,
        overlap_mb=waiting / _MIB,
        slab_mb=max(slabs, default=0) / _MIB,
        weights_mb=weights / _MIB,
        batch=options.window_batch,
        overlap=options.overlap,
    )


def grid_of(source: Source, look: Look = read_geometry) -> Geometry:
    """Return the grid of a source from its header; that of a usual CT where it cannot be read."""
    if source.series is not None:
        return _grid_of_series(source)
    try:
        return look(next(iter(source.files.values()))[0])
    except (DataError, OSError, RuntimeError):
        return Geometry(shape=_CT)  # reading it will say what is wrong, and cost that case only


def working_shape(grid: Geometry, recipe: InferenceRecipe) -> Size:
    """Return the size that a volume is brought to, were nothing cropped."""
    upright = canonical_geometry(reorientation_of(grid))
    prepare = recipe.prepare
    if prepare.resize is not None:
        return prepare.resize
    shape = upright.shape if prepare.spacing_mm is None else resampled_geometry(upright, prepare.spacing_mm).shape
    if prepare.middle_mm is None:
        return shape
    spacing = prepare.spacing_mm or upright.spacing_mm
    depth, height, width = (
        min(n, round(extent / step)) for n, extent, step in zip(shape, prepare.middle_mm, spacing, strict=True)
    )
    return depth, height, width


def _grid_of_series(source: Source) -> Geometry:
    from pipeline.dicom.geometry import grid_of as grid_of_stack
    from pipeline.dicom.geometry import stack_of

    first = source.series[0] if isinstance(source.series, tuple) else source.series
    try:
        return grid_of_stack(stack_of(first.planes))
    except (ValueError, ArithmeticError, AttributeError):
        return Geometry(shape=_CT)


def _seconds_a_pass(predictor: Predictor) -> float:
    """Time one window of noise through the first model, after one that warms it up."""
    recipe, batch = predictor.recipe, predictor.options.window_batch
    windows = torch.randn((batch, len(recipe.channels), *recipe.patch_size), device=predictor.device)
    forward = predictor.forward(predictor.models[0])
    with torch.inference_mode():
        for _ in range(2):
            started = perf_counter()
            float(forward(windows).float().mean())  # waits for a GPU too
            seconds = perf_counter() - started
    return seconds / batch
