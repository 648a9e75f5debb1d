"""From a trained model and a volume to a mask on the volume's own grid: the one way to predict."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError, DataError, plural
from pipeline.imaging.normalise import body_threshold, window
from pipeline.imaging.prepare import prepare
from pipeline.imaging.read import read_case_images
from pipeline.imaging.store import LoadedCase
from pipeline.imaging.volume import Volume
from pipeline.learning.backends import Backend, compiled_forward, openvino_forward, resolve_backend, torch_forward
from pipeline.learning.confidence import Confidence
from pipeline.learning.mirror_images import mirrored_classes, swapped_channels
from pipeline.learning.models import ModelSource, open_source
from pipeline.learning.native_grid import (
    Decide,
    Grids,
    Output,
    SourceMask,
    decide_class,
    decide_interpolated,
    write_native,
)
from pipeline.learning.precision import check_finite, choose_device, choose_layout, resolve_precision
from pipeline.learning.prediction import Prediction, PredictOptions
from pipeline.learning.probabilities import ProbabilityMaps
from pipeline.learning.sliding_window import (
    Box,
    Forward,
    Member,
    Size,
    Skip,
    WindowGrid,
    average,
    mirrored,
    plan_windows,
    slide,
)
from pipeline.learning.step_clock import StepClock
from pipeline.learning.trained import LoadedModel, check_agreement, load, load_in_turn, load_trained
from pipeline.learning.window_source import PreparedCase, corners, from_store, on_device, outside
from pipeline.machine import Machine, MemoryWatch, give_back_memory
from pipeline.postprocess.base import PostProcess
from pipeline.records import InferenceRecipe
from pipeline.tasks.segmentation import Segmentation

__all__ = ["LoadedModel", "PredictOptions", "Prediction", "Predictor", "load_model", "load_trained"]

Image = Volume | Path | str | Mapping[str, Path]
"""An image with its channels in the order of the recipe, its file, or channel -> file."""

_SURE = 10.0
"""Logit by which a window that holds only air is background."""


class Predictor:
    """Models of one kind (folds of a run, say), applied together to case after case.

    Args:
        models: Their logits are averaged; they agree in everything but weights and the numbers of normalisation.
        options: How to cover a volume.
        postprocess: What mends a mask, one after the other.
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
        postprocess: Sequence[PostProcess] = (),
        device: torch.device | str = "cpu",
        memory_limit: int | None = None,
        scratch: Path | None = None,
    ) -> None:
        check_agreement(models)
        self.models, self.options, self.postprocess = tuple(models), options or PredictOptions(), tuple(postprocess)
        self.swaps = swapped_channels(self.recipe) if "W" in self.options.mirror else ()
        self.device = torch.device(device)
        self.precision = resolve_precision(self.options.precision, self.device)
        self.memory_limit, self.scratch = memory_limit, scratch
        self._layout = choose_layout("auto", self.precision, self.device)
        for model in models:
            model.module.to(self.device, memory_format=self._layout)  # type: ignore[call-overload]
        self.backend: Backend = "torch"
        self._forwards: dict[int, Forward] = {}

    def choose_backend(self, windows: int, cache: Path) -> None:
        """Decide what computes the networks, now that it is known how much there is to do.

        Until this is called it is torch.

        Args:
            windows: To be computed, over all cases.
            cache: Folder of converted networks.

        Raises:
            ConfigError: the options ask for a backend that cannot be used.
        """
        passes = windows * len(self.models) * 2 ** len(self.options.mirror)
        voxels = passes * math.prod(self.recipe.patch_size)
        shares = any(model.take_turn is not None for model in self.models)
        wanted: Backend = "torch" if shares and self.options.backend == "auto" else self.options.backend
        self.backend = resolve_backend(wanted, self.device, self.precision, voxels)
        self._forwards.clear()
        if self.backend == "torch":
            return
        if shares:
            raise ConfigError(
                f"predict.backend: {self.backend} keeps all models in memory. Use --ensemble together, or torch."
            )
        shape = (self.options.window_batch, len(self.recipe.channels), *self.recipe.patch_size)
        for model in self.models:
            self._forwards[id(model)] = (
                compiled_forward(model.module, shape, self.precision, self.device, self._layout, cache)
                if self.backend == "compiled"
                else openvino_forward(model.module, self.precision, cache)
            )

    @property
    def recipe(self) -> InferenceRecipe:
        """What the models have in common; the normalisation is that of the first."""
        return self.models[0].recipe

    def predict(
        self,
        volume: Image,
        case_id: str = "volume",
        *,
        roi: NDArray[Any] | None = None,
        probabilities: bool = False,
        advance: Callable[[int], None] | None = None,
    ) -> Prediction:
        """Predict an image as it comes: any orientation, spacing and size.

        Args:
            volume: The image with its channels in the order of the recipe, its file, or channel -> file.
            case_id: Names the case in errors.
            roi: (D, H, W) on the grid of the image: windows without a voxel that is not 0 here are not computed,
                and are background. None for all of it.
            probabilities: Whether to keep the probabilities of every voxel, in `maps`.
            advance: Called with the number of windows that were just done.

        Raises:
            DataError: the image cannot be used.
        """
        clock = StepClock()
        with MemoryWatch() as memory:
            with clock("read"):
                image = self.read(volume, case_id)
            with clock("prepare"):
                case = self.prepare(image, case_id, self.lacking(volume))
            del image
            made = self._predict(case, clock, advance, roi, probabilities=probabilities)
        give_back_memory()
        return Prediction(case_id, **made, seconds=clock.seconds, peak_memory_mb=memory.peak_mb)

    def predict_prepared(
        self,
        case: PreparedCase,
        *,
        roi: NDArray[Any] | None = None,
        acquired: NDArray[np.bool_] | None = None,
        probabilities: bool = False,
        advance: Callable[[int], None] | None = None,
    ) -> Prediction:
        """Predict a case that was prepared with the recipe's options; the mask lies on its source's grid.

        Where `acquired` (D, H, W) on that grid is False, nothing was scanned: the mask has background there.
        """
        clock = StepClock()
        with MemoryWatch() as memory:
            made = self._predict(case, clock, advance, roi, probabilities=probabilities, acquired=acquired)
        give_back_memory()
        return Prediction(case.meta.case_id, **made, seconds=clock.seconds, peak_memory_mb=memory.peak_mb)

    def read(self, volume: Image, case_id: str, missing: Sequence[str] = ()) -> Volume:
        """Return an image with the channels that the models were trained on.

        Args:
            volume: Files, or what was read already.
            case_id: Named in errors.
            missing: Optional channels that a volume which was read already lacks.

        Raises:
            DataError: it cannot be read or has other channels.
        """
        channels = tuple(name for name in self.recipe.channels if name not in missing)
        if not isinstance(volume, Volume):
            files = volume if isinstance(volume, Mapping) else dict.fromkeys(channels, Path(volume))
            absent = [name for name in channels if name not in files and name not in self.recipe.optional_channels]
            if absent:
                raise DataError(
                    f"case {case_id}: no file for channel {', '.join(absent)}; expected {', '.join(channels)}, as the "
                    "model was trained. Name a file for each."
                )
            channels = tuple(name for name in channels if name in files)
            volume = read_case_images({name: Path(files[name]) for name in channels}, case_id=case_id)
        if volume.channels != len(channels):
            raise DataError(
                f"case {case_id}: found {plural(volume.channels, 'channel')}; expected {len(channels)} "
                f"({', '.join(channels)}), as the model was trained. Give the same kind of image."
            )
        return volume

    def lacking(self, volume: Image | Mapping[str, Any]) -> tuple[str, ...]:
        """Return the optional channels that are not among the files of a case."""
        if not isinstance(volume, Mapping):
            return ()
        return tuple(name for name in self.recipe.optional_channels if name not in volume)

    def prepare(self, image: Volume, case_id: str, missing: Sequence[str] = ()) -> LoadedCase:
        """Bring an image to the grid of the models; needs no network, so another thread may do it."""
        return prepare(
            image, None, self.recipe.prepare, case_id=case_id, channels=self.recipe.channels, missing=missing
        )

    def windows(self, shape: Size) -> WindowGrid:
        """Return the windows that cover a prepared volume (D, H, W)."""
        return plan_windows(shape, self.recipe.patch_size, self.options.overlap)

    def window_count(self, shape: Size) -> int:
        """Return how many windows cover a prepared volume (D, H, W)."""
        return len(self.windows(shape))

    def _predict(
        self,
        case: PreparedCase,
        clock: StepClock,
        advance: Callable[[int], None] | None,
        roi: NDArray[Any] | None,
        *,
        probabilities: bool,
        acquired: NDArray[np.bool_] | None = None,
    ) -> dict[str, Any]:
        if self.recipe.task.reads_masks:
            made = self._segment(case, clock, advance, roi, probabilities=probabilities, acquired=acquired)
        else:
            made = self._classify(case, clock, advance)
        return {"geometry": case.meta.placement.source, **made}

    def _segment(
        self,
        case: PreparedCase,
        clock: StepClock,
        advance: Callable[[int], None] | None,
        roi: NDArray[Any] | None,
        *,
        probabilities: bool,
        acquired: NDArray[np.bool_] | None = None,
    ) -> dict[str, Any]:
        options, recipe, placement = self.options, self.recipe, case.meta.placement
        mask, grid = SourceMask(recipe.labels, placement), self.windows(case.shape)
        slabs = slide(
            grid,
            self._members(case, clock),
            len(recipe.class_names),
            weights=options.weights,
            batch=options.window_batch,
            accumulator=torch.float16 if options.accumulator == "fp16" else torch.float32,
            device=self.device,
            skip=self._skip(case, roi),
            memory_limit=self.memory_limit,
            scratch=self.scratch,
            advance=advance,
        )
        confidence = Confidence(recipe.class_names, exclusive=self._takes_strongest, case_id=case.meta.case_id)
        decide = mask.deciding(clock.around("native_grid", self._decide()))
        outputs = [Output(decide, mask.view, interpolates=not self._takes_strongest)]
        maps = self._maps(case, grid.axis) if probabilities else None
        if maps is not None:
            outputs.append(maps.output)
        try:
            with clock("windows"):
                write_native(confidence.watching(slabs, clock), Grids(placement.working, placement.cropped), outputs)
        except BaseException:
            if maps is not None:
                maps.close()
            raise
        if self.postprocess:
            with clock("postprocess"):
                mask = self._mended(mask)
        if acquired is not None:
            mask = mask.replaced(recipe.labels.to_index(mask.whole) * acquired)
        return {
            "mask": mask.whole, "volumes_ml": mask.volumes_ml(), "confidence": confidence.means(), "maps": maps,
        }  # fmt: skip

    def _mended(self, mask: SourceMask) -> SourceMask:
        labels = self.recipe.labels
        indices = labels.to_index(mask.whole)
        for step in self.postprocess:
            indices = step.apply(indices, mask.spacing_mm)
        return mask.replaced(indices)

    def _maps(self, case: PreparedCase, axis: int) -> ProbabilityMaps:
        recipe = self.recipe
        return ProbabilityMaps(
            recipe.class_names, case.meta.placement, exclusive=not recipe.labels.regions, axis=axis,
            scratch=self.scratch,
        )  # fmt: skip

    def _classify(self, case: PreparedCase, clock: StepClock, advance: Callable[[int], None] | None) -> dict[str, Any]:
        with clock("windows"):
            logits_K = average(
                self.windows(case.shape), self._members(case, clock), batch=self.options.window_batch, advance=advance
            )
        check_finite(logits_K, case.meta.case_id)
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

    def _members(self, case: PreparedCase, clock: StepClock) -> list[Member]:
        read = on_device(case, self.device) if self.device.type != "cpu" else from_store(case)
        members = []
        for model in self.models:
            maps = [window(one, stats) for one, stats in zip(model.recipe.normalise, case.meta.stats, strict=True)]
            background = tuple(one.background for one in maps)
            members.append(Member(partial(read, maps), self._mirrored(model, clock), background, model.take_turn))
        return members

    def forward(self, model: LoadedModel) -> Forward:
        """Return one network as windows (B, C, d, h, w) on the device -> logits, in the number format chosen."""

        known = self._forwards.get(id(model))
        return torch_forward(model.module, self.precision, self.device, self._layout) if known is None else known

    def _mirrored(self, model: LoadedModel, clock: StepClock) -> Forward:
        axes = ["DHW".index(axis) for axis in self.options.mirror]
        timed = clock.around("network", self.forward(model))
        return (mirrored if self.recipe.task.reads_masks else mirrored_classes)(timed, axes, self.swaps)

    def _skip(self, case: PreparedCase, roi: NDArray[Any] | None) -> Skip | None:
        empty: list[Callable[[Box], bool]] = []
        if roi is not None:
            empty.append(outside(roi, case))
        if self.options.skip == "air":
            there = next((at for at, stats in enumerate(case.meta.stats) if stats.body.count), 0)
            threshold = body_threshold(case.meta.stats[there].minimum)
            empty.append(lambda box: bool(case.read(*corners(box))[there].max() <= threshold))
        if not empty:
            return None
        sure = [-_SURE] * len(self.recipe.class_names)
        if self._takes_strongest:
            sure[0] = _SURE
        return Skip(lambda box: any(says(box) for says in empty), tuple(sure))


def load_model(
    path: Path | str,
    options: PredictOptions | None = None,
    *,
    fold: int | None = None,
    device: torch.device | str = "auto",
) -> Predictor:
    """Open a trained model for prediction; nothing in it is executed.

    Args:
        path: Run folder (all its folds together), folder of one training, or package made by `package`.
        options: How to cover a volume; None for those of the run.
        fold: Of a run folder or package, the one fold to use.
        device: `auto` for the GPU where there is one.

    Raises:
        ModelError: it holds no finished training, or one that is damaged.
        ConfigError: a GPU is asked for and torch sees none.
    """
    predictor = predictor_of(open_source(Path(path), fold), options, device=choose_device(str(device)))
    if predictor.options.backend in ("compiled", "openvino"):
        predictor.choose_backend(0, Machine().cache)
    return predictor


def predictor_of(
    source: ModelSource,
    options: PredictOptions | None = None,
    *,
    in_turn: bool = False,
    device: torch.device | str = "cpu",
    memory_limit: int | None = None,
    scratch: Path | None = None,
) -> Predictor:
    """Load models and make them ready; `in_turn` keeps the weights of one at a time in memory."""
    models = load_in_turn(source.models) if in_turn else [load(model) for model in source.models]
    chosen = options or PredictOptions.model_validate(dict(source.options))
    return Predictor(models, chosen, postprocess=source.postprocess, device=device, memory_limit=memory_limit,
                     scratch=scratch)  # fmt: skip
