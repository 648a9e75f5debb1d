"""Train: fits a network to the training cases of one fold."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from pipeline.datasets.base import Case
from pipeline.dicom.codes import codes_of
from pipeline.errors import ConfigError, plural
from pipeline.imaging.labels import IGNORE
from pipeline.imaging.normalise import fit_channels
from pipeline.imaging.store import StoredCase, keep_decoded
from pipeline.imaging.training_range import modality_of, training_range
from pipeline.learning.class_validation import class_validation
from pipeline.learning.learner import Forward
from pipeline.learning.loop import Pictures, fit
from pipeline.learning.options import TrainOptions
from pipeline.learning.patches import Batch, PatchCase, patch_cases
from pipeline.learning.precision import (
    autocast,
    choose_device,
    choose_layout,
    repeat_exactly,
    resolve_precision,
    seed_torch,
)
from pipeline.learning.prefetch import InOrder
from pipeline.learning.trained import find_trained
from pipeline.learning.validation import mask_validation, predict_mask
from pipeline.learning.volumes import source_of
from pipeline.learning.weights import load_matching
from pipeline.losses.base import Loss, losses
from pipeline.losses.deep_supervision import deep_supervision
from pipeline.provenance import FileHashes
from pipeline.records import CaseTable, DatasetFacts, InferenceRecipe, SamplingPlan, TrainedModel
from pipeline.stages.base import Stage, StageContext, stages
from pipeline.stages.pictures import slice_picture
from pipeline.stages.prepared import Prepared, open_prepared
from pipeline.transforms.base import Transform, transforms
from pipeline.transforms.spatial import for_volume_classes
from pipeline.workspace import write_json

LossField = Annotated[Loss, losses]
TransformField = Annotated[Transform, transforms]
_SHARE_FOR_VOXELS = 0.5
"""Part of the memory budget that decoded cases may fill."""


@stages.register
class Train(Stage, TrainOptions):
    """Length, optimiser, loss and augmentation of a training."""

    name: Literal["train"] = "train"
    batch_size: PositiveInt = 2
    """Patches in a step."""
    loss: LossField | None = None
    """None for the default of the task."""
    class_weights: Literal["auto"] | tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Weight of each class in the loss; `auto`: by the inverse of its share of the voxels (of the cases, without
    masks), softened by a root."""
    augment: tuple[TransformField, ...] | None = None
    """Random changes of patches; None for the usual ones, an empty list for none."""
    init_from: str | None = None
    """Trained model whose weights are taken over where name and shape fit: the folder of a training, or of a run,
    whose longest training of the same fold is meant. So a finished training is made longer, as a new result."""
    score: str | None = None  # type: ignore[assignment]
    """The figure of the validation that chooses the best weights, higher is better; none for that of the task:
    dice for segmentation, accuracy for classification."""
    tensorboard: bool = False
    """Whether to write TensorBoard event files too: curves, and a slice of a validation case at each validation;
    needs the extra `tensorboard`."""

    per_fold: ClassVar[bool] = True
    uses_seed: ClassVar[bool] = True
    uses: ClassVar[tuple[str, ...]] = ("task", "normalise", "network")
    needs: ClassVar[tuple[str, ...]] = ("survey", "ingest", "sample")
    gives: ClassVar[type[TrainedModel]] = TrainedModel

    def key_options(self) -> dict[str, Any]:
        """Leave out what changes no number."""
        hidden = {*self.WITHOUT_EFFECT, "tensorboard"}
        kept = {key: value for key, value in super().key_options().items() if key not in hidden}
        # What `stop` ends without a result, `lower_rate` goes on with; results of both are the same.
        kept["on_divergence"] = "stop"
        # They once came from validation cases too: such a training is neither used again nor gone on with.
        return kept | {"class_weights": "auto, of training cases"} if self.class_weights == "auto" else kept

    def run(
        self, context: StageContext, *, survey: DatasetFacts, ingest: CaseTable, sample: SamplingPlan
    ) -> TrainedModel:
        """Train, going on from a checkpoint where there is one.

        Raises:
            ModelError: the network cannot be built or does not fit the data.
            StoppedError: the training diverged.
        """
        device = choose_device(context.machine.device)
        repeat_exactly(device, deterministic=self.deterministic)
        stored = _open(context, ingest, sample)
        recipe = self._recipe(context, survey, ingest, sample, stored)
        parent = self._parent(context, sample)
        module = self._module(context, recipe, parent)
        train, validation = _patch_cases(context, ingest, sample, stored, recipe)
        source = source_of(
            train,
            sample,
            batch_size=self.batch_size,
            labels=recipe.labels,
            transforms=self._transforms(recipe),
            seed=_fold_seed(context),
            device=device,
        )
        forward = self._forward(device)
        with InOrder(source.batch, workers=1) as batches:
            outcome = fit(
                module,
                batches,
                self._loss_of(recipe, ingest, {case_id: stored[case_id] for case_id in sample.train}, device),
                self.model_copy(update={"score": self.score or recipe.task.default_score}),
                seed=_fold_seed(context),
                folder=context.folder,
                device=device,
                validate=_validation(context, validation, recipe, forward) if validation else None,
                pictures=_pictures(validation[0], recipe, forward) if validation and recipe.task.reads_masks else None,
                progress=context.progress,
                tensorboard=self.tensorboard,
            )
        weights = context.folder / TrainedModel.model_fields["weights"].default
        shutil.copyfile(outcome.best_weights, weights)
        model = TrainedModel(
            recipe=recipe,
            weights_sha256=FileHashes(context.folder, remember=False).sha256(weights),
            best_epoch=outcome.best_epoch,
            best_score=outcome.best_score,
            epochs=outcome.epochs,
            steps=outcome.steps,
            seconds=outcome.seconds,
            parameters=sum(weight.numel() for weight in module.parameters()),
            ended=outcome.ended,
            cases=tuple(sorted({*sample.train, *(parent.cases if parent else ())})),
            parent=f"{parent.folder.name} {parent.weights_sha256}" if parent else "",
        )
        how = {"precision": outcome.precision, "environments": outcome.environments, "halvings": outcome.halvings}
        write_json(context.folder / "training.json", how)
        return model

    def _recipe(
        self,
        context: StageContext,
        survey: DatasetFacts,
        ingest: CaseTable,
        sample: SamplingPlan,
        stored: dict[str, Prepared],
    ) -> InferenceRecipe:
        stats = [stored[case_id].meta.stats for case_id in sample.train]
        task, metadata = context.parts.task, survey.manifest.metadata
        facts = (survey.facts[case_id] for case_id in sample.train if case_id in survey.facts)
        seen = training_range(facts, modality_of(metadata))
        return InferenceRecipe(
            network=context.parts.network,
            task=task,
            labels=ingest.labels,
            class_names=task.class_names(ingest.labels, ingest.class_names),
            channels=ingest.channels,
            optional_channels=ingest.optional_channels,
            prepare=ingest.prepare,
            normalise=fit_channels(context.parts.normalise, ingest.channels, stats),
            patch_size=sample.patch_size,
            seen=seen.model_dump(mode="json") if seen else {},
            codes=codes_of(metadata),
        )

    def _transforms(self, recipe: InferenceRecipe) -> tuple[Transform, ...]:
        chosen = usual_transforms() if self.augment is None else self.augment
        return chosen if recipe.task.reads_masks else for_volume_classes(chosen, recipe.class_names)

    def _parent(self, context: StageContext, sample: SamplingPlan) -> TrainedModel | None:
        """Return the training that this one goes on from, if any.

        Raises:
            ConfigError: it learned from a case that this fold validates with.
            ModelError: there is none.
        """
        if self.init_from is None:
            return None
        parent = find_trained(Path(self.init_from), context.fold)
        leaked = sorted(set(parent.cases) & set(sample.validation))
        if leaked:
            raise ConfigError(
                f"train.init_from: {parent.folder.name} learned from {plural(len(leaked), 'case')} that fold "
                f"{context.fold} validates with ({', '.join(leaked[:3])}); expected a model that never saw them. "
                "Name a model of the same fold, or of other data."
            )
        return parent

    def _module(self, context: StageContext, recipe: InferenceRecipe, parent: TrainedModel | None) -> nn.Module:
        seed_torch(_fold_seed(context))
        module = recipe.network.build(len(recipe.channels), len(recipe.class_names), recipe.patch_size)
        if parent is not None:
            report = load_matching(module, parent.path(parent.weights))
            context.progress.say(f"{parent.folder.name}: {report}")
        return module

    def _forward(self, device: torch.device) -> Callable[[nn.Module, Tensor], Tensor]:
        precision = resolve_precision(self.precision, device)
        layout = choose_layout(self.channels_last, precision, device)

        def forward(module: nn.Module, windows: Tensor) -> Tensor:
            with autocast(precision, device):
                logits: Tensor = module(windows.to(device, memory_format=layout))
            return logits.float()

        return forward

    def _loss_of(
        self, recipe: InferenceRecipe, ingest: CaseTable, stored: dict[str, Prepared], device: torch.device
    ) -> Callable[[Forward, Batch], Tensor]:
        task, weights = recipe.task, self._class_weights(recipe, ingest, stored)
        chosen = self.loss or task.default_loss()
        loss = deep_supervision(chosen.build(None if weights is None else weights.to(device)))

        def loss_of(forward: Forward, batch: Batch) -> Tensor:
            annotated = None if batch.annotated is None else batch.annotated.to(device)
            return loss(forward(batch.image_BCDHW), task.target(batch.truth.to(device), recipe.labels, annotated))

        return loss_of

    def _class_weights(self, recipe: InferenceRecipe, ingest: CaseTable, stored: dict[str, Prepared]) -> Tensor | None:
        if self.class_weights is None:
            return None
        names = recipe.class_names
        if self.class_weights == "auto":
            counts = torch.ones(len(names))
            rows = ingest.by_id()
            for case_id, case in stored.items():
                for index, count in self._counts(recipe, rows[case_id].case, case).items():
                    if index < len(names):
                        counts[index] += count
            raw, found = (counts.sum() / counts).sqrt(), counts > 1
            if found.any():  # a class that no training case has would else outweigh all others
                raw[~found] = raw[found].mean()
            return raw / raw.mean()
        if len(self.class_weights) != len(names):
            raise ConfigError(
                f"train.class_weights: found {len(self.class_weights)} numbers; expected {len(names)}, one for each of "
                f"{', '.join(names)}."
            )
        return torch.tensor(self.class_weights)

    @staticmethod
    def _counts(recipe: InferenceRecipe, case: Case, stored: Prepared) -> dict[int, int]:
        """Return how much of each class a case has: voxels, or without masks the case itself."""
        if recipe.task.reads_masks:
            found, order = stored.meta.class_voxels or {}, {name: at for at, name in enumerate(recipe.labels.classes)}
            if not recipe.labels.regions:
                return found
            members = enumerate(recipe.labels.regions.values())
            return {index: sum(found.get(order[name], 0) for name in names) for index, names in members}
        return {recipe.class_names.index(name): 1 for name in case.classes}


def usual_transforms() -> tuple[Transform, ...]:
    """Return the augmentation of a config that names none."""
    names = ("flip", "affine", "noise", "brightness", "contrast", "gamma")
    return tuple(transforms.parse(name) for name in names)


def _fold_seed(context: StageContext) -> int:
    """Give each fold draws and first weights of its own."""
    return context.seed * 1000 + (999 if context.fold is None else context.fold)


def _open(context: StageContext, ingest: CaseTable, sample: SamplingPlan) -> dict[str, Prepared]:
    rows = ingest.by_id()
    wanted = (*sample.train, *sample.validation)
    return open_prepared(context.machine.cache, [rows[case_id] for case_id in wanted])


def _patch_cases(
    context: StageContext, ingest: CaseTable, sample: SamplingPlan, stored: dict[str, Prepared], recipe: InferenceRecipe
) -> tuple[list[PatchCase], list[PatchCase]]:
    """Return training and validation cases; decoded once where the memory budget allows."""
    budget = int(_SHARE_FOR_VOXELS * context.machine.memory_bytes())
    alone = [case for case in stored.values() if isinstance(case, StoredCase)]
    kept = dict(stored) | {case.meta.case_id: case for case in keep_decoded(alone, budget)}
    rows, masks = ingest.by_id(), recipe.task.reads_masks
    made = {
        case.case_id: case
        for case in patch_cases(
            [rows[case_id] for case_id in stored], kept, recipe.normalise, recipe.labels, recipe.class_names,
            whole_volume=not masks,
        )
    }  # fmt: skip

    def has_truth(case_id: str) -> bool:
        if masks:
            return stored[case_id].meta.class_voxels is not None
        return recipe.task.has_truth(rows[case_id].case.classes)

    labelled = [made[case_id] for case_id in sample.validation if has_truth(case_id)]
    return [made[case_id] for case_id in sample.train], labelled


def _validation(
    context: StageContext,
    cases: list[PatchCase],
    recipe: InferenceRecipe,
    forward: Callable[[nn.Module, Tensor], Tensor],
) -> Callable[[nn.Module], dict[str, float]]:
    chosen = mask_validation if recipe.task.reads_masks else class_validation
    return chosen(cases, recipe.task, recipe.labels, recipe.class_names, recipe.patch_size, forward)


def _pictures(case: PatchCase, recipe: InferenceRecipe, forward: Callable[[nn.Module, Tensor], Tensor]) -> Pictures:
    """Return what draws a case as a network sees it: always one slice, the middle one of what is labelled."""

    def draw(module: nn.Module) -> dict[str, NDArray[np.uint8]]:
        labels, shape = recipe.labels, case.voxels.shape
        truth = case.voxels.read_label((0, 0, 0), shape)
        labelled = np.flatnonzero(((truth > 0) & (truth != IGNORE)).any(axis=(1, 2)))
        middle = int(labelled[labelled.size // 2]) if labelled.size else shape[0] // 2
        guess = predict_mask(case, module, recipe.task, labels, recipe.class_names, recipe.patch_size, forward)
        image = case.voxels.read((middle, 0, 0), (middle + 1, *shape[1:]))[0, 0]
        picture = slice_picture(
            image, case.voxels.spacing_mm[1:], truth[middle], guess[middle], class_names=labels.classes
        )
        return {case.case_id: picture}

    return draw
