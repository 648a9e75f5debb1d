"""From a trained model and a volume to a mask on the volume's own grid: the one way to predict."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from pipeline.errors import DataError, ModelError, plural
from pipeline.imaging.normalise import Window, body_threshold, window
from pipeline.imaging.prepare import prepare
from pipeline.imaging.read import read_case_images
from pipeline.imaging.store import LoadedCase, StoredCase
from pipeline.imaging.volume import Geometry, Volume
from pipeline.learning.native_grid import (
    Decide,
    Grids,
    Output,
    SourceMask,
    decide_class,
    decide_interpolated,
    write_native,
)
from pipeline.learning.precision import Precision, autocast, choose_device, choose_layout, resolve_precision
from pipeline.learning.sliding_window import (
    Box,
    Forward,
    Member,
    Size,
    Skip,
    Weights,
    average,
    mirrored,
    plan_windows,
    slide,
)
from pipeline.learning.trained import LoadedModel, check_agreement, load_trained, read_record, weights_of
from pipeline.machine import MemoryWatch, give_back_memory
from pipeline.plugin import Settings
from pipeline.records import InferenceRecipe
from pipeline.tasks.segmentation import Segmentation

__all__ = ["LoadedModel", "PredictOptions", "Prediction", "Predictor", "load_model", "load_trained", "weights_of"]

P = ParamSpec("P")
T = TypeVar("T")
PreparedCase = LoadedCase | StoredCase
Share = Annotated[float, Field(ge=0, lt=1)]

_SURE = 10.0
"""Logit by which a window that holds only air is background."""


class PredictOptions(Settings):
    """How windows cover a volume and how their logits become one answer."""

    overlap: Share | tuple[Share, Share, Share] = 0.5
    """Share of a window that its neighbour covers too: one for all axes, or one each along (D, H, W)."""
    weights: Weights = "gaussian"
    """How much a voxel counts by its place in the window."""
    mirror: tuple[Literal["D", "H", "W"], ...] = ()
    """Axes along which mirror images are averaged in (TTA): each doubles the time."""
    precision: Precision = "auto"
    """Number format of convolutions: `auto` takes the fastest that the device computes natively."""
    accumulator: Literal["fp32", "fp16"] = "fp32"
    """Number format in which logits are summed; `fp16` halves the memory of a slab and rounds."""
    window_batch: PositiveInt = 1
    """Windows in one forward pass."""
    skip_air: bool = False
    """Whether windows without body are background without a look; only for networks that say so anyway."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the models say of one case.

    mask:           (D, H, W) label values on the input's grid; None for classification.
    geometry:       Grid of the input.
    probabilities:  Class name -> probability of the whole volume; empty for segmentation.
    volumes_ml:     Name of a class or region -> volume; background left out.
    seconds:        By step: read, prepare, network, windows (what is around the network), native_grid.
    peak_memory_mb: Of the process in the meantime, in MiB, with all it holds.
    """

    case_id: str
    mask: NDArray[Any] | None
    geometry: Geometry
    probabilities: dict[str, float] = field(default_factory=dict)
    volumes_ml: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0


class Predictor:
    """Models of one kind (folds of a run, say), applied together to case after case.

    Args:
        models: Their logits are averaged; they agree in everything but weights and the numbers of normalisation.
        options: How to cover a volume.
        device: Where to compute.
        memory_limit: Bytes that a slab of logits may take; a larger one lies in a scratch file. None for no limit.
        scratch: Folder of that file; the system's temporary one where None.

    Raises:
        ModelError: there is no model, they do not fit together, or mirror images along W are asked for where a
            class names a side and has no partner.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        options: PredictOptions | None = None,
        *,
        device: torch.device | str = "cpu",
        memory_limit: int | None = None,
        scratch: Path | None = None,
    ) -> None:
        check_agreement(models)
        self.models, self.options = tuple(models), options or PredictOptions()
        self._swaps = _swapped_channels(self.recipe) if "W" in self.options.mirror else ()
        self.device = torch.device(device)
        self.precision = resolve_precision(self.options.precision, self.device)
        self.memory_limit, self.scratch = memory_limit, scratch
        self._layout = choose_layout("auto", self.precision, self.device)
        for model in models:
            model.module.to(self.device, memory_format=self._layout)  # type: ignore[call-overload]

    @property
    def recipe(self) -> InferenceRecipe:
        """What the models have in common; the normalisation is that of the first."""
        return self.models[0].recipe

    def predict(
        self,
        volume: Volume | Path | str | Mapping[str, Path],
        case_id: str = "volume",
        *,
        advance: Callable[[int], None] | None = None,
    ) -> Prediction:
        """Predict an image as it comes: any orientation, spacing and size.

        Args:
            volume: The image with its channels in the order of the recipe, its file, or channel -> file.
            case_id: Names the case in errors.
            advance: Called with the number of windows that were just done.

        Raises:
            DataError: the image cannot be used.
        """
        clock = _Clock()
        with MemoryWatch() as memory:
            with clock("read"):
                image = self._read(volume, case_id)
            with clock("prepare"):
                case = prepare(image, None, self.recipe.prepare, case_id=case_id, channels=self.recipe.channels)
            del image
            made = self._predict(case, clock, advance)
        give_back_memory()
        return Prediction(case_id, **made, seconds=clock.seconds, peak_memory_mb=memory.peak_mb)

    def predict_prepared(self, case: PreparedCase, *, advance: Callable[[int], None] | None = None) -> Prediction:
        """Predict a case that was prepared with the recipe's options; the mask lies on its source's grid."""
        clock = _Clock()
        with MemoryWatch() as memory:
            made = self._predict(case, clock, advance)
        give_back_memory()
        return Prediction(case.meta.case_id, **made, seconds=clock.seconds, peak_memory_mb=memory.peak_mb)

    def window_count(self, shape: Size) -> int:
        """Return how many windows cover a prepared volume (D, H, W)."""
        return len(plan_windows(shape, self.recipe.patch_size, self.options.overlap))

    def _predict(self, case: PreparedCase, clock: "_Clock", advance: Callable[[int], None] | None) -> dict[str, Any]:
        is_mask = self.recipe.task.reads_masks
        made = (self._segment if is_mask else self._classify)(case, clock, advance)
        return {"geometry": case.meta.placement.source, **made}

    def _segment(self, case: PreparedCase, clock: "_Clock", advance: Callable[[int], None] | None) -> dict[str, Any]:
        options, recipe, placement = self.options, self.recipe, case.meta.placement
        mask = SourceMask(recipe.labels, placement)
        slabs = slide(
            plan_windows(case.shape, recipe.patch_size, options.overlap),
            self._members(case, clock),
            len(recipe.class_names),
            weights=options.weights,
            batch=options.window_batch,
            accumulator=torch.float16 if options.accumulator == "fp16" else torch.float32,
            device=self.device,
            skip=self._skip(case) if options.skip_air else None,
            memory_limit=self.memory_limit,
            scratch=self.scratch,
            advance=advance,
        )
        decide = mask.deciding(clock.around("native_grid", self._decide()))
        output = Output(decide, mask.view, interpolates=not self._takes_strongest)
        with clock("windows"):
            write_native(slabs, Grids(placement.working, placement.cropped), [output])
        return {"mask": mask.whole, "volumes_ml": mask.volumes_ml()}

    def _classify(self, case: PreparedCase, clock: "_Clock", advance: Callable[[int], None] | None) -> dict[str, Any]:
        grid = plan_windows(case.shape, self.recipe.patch_size, self.options.overlap)
        with clock("windows"):
            logits_K = average(grid, self._members(case, clock), batch=self.options.window_batch, advance=advance)
        shares = self.recipe.task.decode(logits_K[None], self.recipe.labels)[0].tolist()
        return {"mask": None, "probabilities": dict(zip(self.recipe.class_names, shares, strict=True))}

    @property
    def _takes_strongest(self) -> bool:
        """Whether the decision is the strongest class; any other needs the interpolated logits."""
        return isinstance(self.recipe.task, Segmentation) and not self.recipe.labels.regions

    def _decide(self) -> Decide:
        if self._takes_strongest:
            return decide_class
        task, labels = self.recipe.task, self.recipe.labels
        return decide_interpolated(lambda logits_KDHW: task.decode(logits_KDHW[None], labels)[0])

    def _read(self, volume: Volume | Path | str | Mapping[str, Path], case_id: str) -> Volume:
        channels = self.recipe.channels
        if not isinstance(volume, Volume):
            files = volume if isinstance(volume, Mapping) else dict.fromkeys(channels, Path(volume))
            missing = [name for name in channels if name not in files]
            if missing:
                raise DataError(
                    f"case {case_id}: no file for channel {', '.join(missing)}; expected {', '.join(channels)}, as the "
                    "model was trained. Name a file for each."
                )
            volume = read_case_images({name: Path(files[name]) for name in channels}, case_id=case_id)
        if volume.channels != len(channels):
            raise DataError(
                f"case {case_id}: found {plural(volume.channels, 'channel')}; expected {len(channels)} "
                f"({', '.join(channels)}), as the model was trained. Give the same kind of image."
            )
        return volume

    def _members(self, case: PreparedCase, clock: "_Clock") -> list[Member]:
        read = _on_device(case, self.device) if self.device.type != "cpu" else _from_store(case)
        members = []
        for model in self.models:
            maps = [window(one, stats) for one, stats in zip(model.recipe.normalise, case.meta.stats, strict=True)]
            background = tuple(one.background for one in maps)
            members.append(Member(partial(read, maps), self._forward(model, clock), background))
        return members

    def _forward(self, model: LoadedModel, clock: "_Clock") -> Forward:
        def forward(windows_BCDHW: Tensor) -> Tensor:
            with autocast(self.precision, self.device):
                logits = model.module(windows_BCDHW.contiguous(memory_format=self._layout))
            first: Tensor = logits[0] if isinstance(logits, list | tuple) else logits
            return first

        axes = ["DHW".index(axis) for axis in self.options.mirror]
        return mirrored(clock.around("network", forward), axes, self._swaps)

    def _skip(self, case: PreparedCase) -> Skip:
        threshold = body_threshold(case.meta.stats[0].minimum)
        sure = [-_SURE] * len(self.recipe.class_names)
        if self._takes_strongest:
            sure[0] = _SURE
        return Skip(lambda box: bool(case.read(*_corners(box))[0].max() <= threshold), tuple(sure))


def _from_store(case: PreparedCase) -> Callable[[list[Window], Box], Tensor]:
    """Return what reads and normalises a window on the CPU."""

    def read(maps: list[Window], box: Box) -> Tensor:
        raw = case.read(*_corners(box))
        return torch.from_numpy(np.stack([one.apply(channel) for one, channel in zip(maps, raw, strict=True)]))

    return read


def _on_device(case: PreparedCase, device: torch.device) -> Callable[[list[Window], Box], Tensor]:
    """Return what does the same on a GPU, which holds the whole prepared volume: the CPU could not feed it."""
    raw_CDHW = torch.from_numpy(np.ascontiguousarray(case.read((0, 0, 0), case.shape))).to(device)

    def read(maps: list[Window], box: Box) -> Tensor:
        channels = [
            raw_CDHW[(index, *box)].float().clamp_(one.lower, one.upper).sub_(one.shift).mul_(one.scale)
            for index, one in enumerate(maps)
        ]
        return torch.stack(channels)

    return read


def _corners(box: Box) -> tuple[list[int], list[int]]:
    return [part.start for part in box], [part.stop for part in box]


def load_model(
    folder: Path | str, options: PredictOptions | None = None, *, device: torch.device | str = "auto"
) -> Predictor:
    """Open a trained model for prediction; nothing in it is executed.

    Args:
        folder: Result of one training.
        options: How to cover a volume.
        device: `auto` for the GPU where there is one.

    Raises:
        ModelError: it holds no finished training, or one that is damaged.
        ConfigError: a GPU is asked for and torch sees none.
    """
    return Predictor([load_trained(read_record(Path(folder)))], options, device=choose_device(str(device)))


class _Clock:
    """Seconds by step; what an inner step takes is not counted in the one around it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inside = 0.0

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        outer, self._inside = self._inside, 0.0
        started = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self.seconds[step] = self.seconds.get(step, 0.0) + took - self._inside
            self._inside = outer + took

    def around(self, step: str, function: Callable[P, T]) -> Callable[P, T]:
        """Return the function, timed."""

        def timed(*args: P.args, **kwargs: P.kwargs) -> T:
            with self(step):
                return function(*args, **kwargs)

        return timed


def _swapped_channels(recipe: InferenceRecipe) -> tuple[tuple[int, int], ...]:
    """Return which channels of the logits a mirror image of the patient exchanges."""
    labels = recipe.labels
    if not recipe.task.reads_masks:
        return ()
    if alone := labels.unpaired_sides():
        raise ModelError(
            f"predict.mirror: {', '.join(alone)} names a side and has no partner; expected one to swap it with in "
            "images mirrored along W. Leave W out."
        )
    if not labels.regions:
        return labels.swaps()
    both_ways = [(one, other) for pair in labels.swaps() for one, other in (pair, pair[::-1])]
    partner = {labels.classes[one]: labels.classes[other] for one, other in both_ways}
    regions = [frozenset(members) for members in labels.regions.values()]
    images = [frozenset(partner.get(name, name) for name in members) for members in regions]
    if not set(images) <= set(regions):
        raise ModelError(
            "predict.mirror: some region has no mirror image among the regions; expected one to swap it with in images "
            "mirrored along W. Leave W out."
        )
    pairs = [(one, regions.index(image)) for one, image in enumerate(images)]
    return tuple((one, other) for one, other in pairs if one < other)
