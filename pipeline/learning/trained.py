"""Finished trainings on disk, opened for prediction: recipe and weights, nothing that could be executed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pipeline.errors import ModelError
from pipeline.learning.weights import copy_weights, read_tensors
from pipeline.provenance import digest
from pipeline.records import InferenceRecipe, TrainedModel
from pipeline.workspace import RESULT

_SLACK = 1_000_000
"""Numbers that a network may have beyond twice its weights."""


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained network that is not in memory yet.

    recipe:        All that inference needs beside the weights.
    read:          Gives the weights by name, checked.
    sha256:        Of the weights' file.
    recipe_sha256: Of the recipe as it was written: fields that later versions add do not make it another one.
    bytes:         Size of the weights' file.
    name:          For messages: the folder or the member of a package that it lies in.
    """

    recipe: InferenceRecipe
    read: Callable[[], dict[str, Tensor]]
    sha256: str
    recipe_sha256: str
    bytes: int
    name: str

    @property
    def identity(self) -> str:
        """What stands for this model wherever it lies: the hash of its weights and of its recipe."""
        return digest([self.sha256, self.recipe_sha256])


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A trained network with its weights, ready to compute."""

    recipe: InferenceRecipe
    module: nn.Module
    name: str
    """For messages: the folder it came from."""
    take_turn: Callable[[], None] | None = None
    """Puts its weights into a module that it shares with other models; None where the module is its own."""


def load_trained(model: TrainedModel) -> LoadedModel:
    """Build the network of a finished training and give it its weights.

    Raises:
        ModelError: the weights are missing, changed or of another network.
    """
    return load(saved(model))


def saved(model: TrainedModel) -> SavedModel:
    """Return a finished training without reading its weights."""
    weights = model.path(model.weights)
    read = partial(read_tensors, weights, sha256=model.weights_sha256)
    size = weights.stat().st_size if weights.exists() else 0
    return SavedModel(
        model.recipe, read, model.weights_sha256, digest(written_recipe(model)), size, weights.parent.name
    )


def written_recipe(model: TrainedModel) -> dict[str, Any]:
    """Return the recipe of a finished training as it stands in its file."""
    try:
        found = json.loads(model.path(RESULT).read_text())["record"]["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        found = model.recipe.model_dump(mode="json")
    return dict(found)


def load(model: SavedModel) -> LoadedModel:
    """Build a network and give it its weights.

    Raises:
        ModelError: the weights are missing, changed or of another network.
    """
    tensors = model.read()
    module = _build(model, tensors)
    copy_weights(module, tensors, model.name)
    return LoadedModel(model.recipe, module, model.name)


def load_in_turn(models: Sequence[SavedModel]) -> list[LoadedModel]:
    """Load models that share the memory of one: each reads its weights anew when its turn comes.

    Raises:
        ModelError: some weights are missing, changed or of another network than those of the first model.
    """
    if len({digest(model.recipe.network.model_dump(mode="json")) for model in models}) > 1:
        raise ModelError(
            "--ensemble in-turn: the models are different networks; expected equal ones, which can share memory. "
            "Use --ensemble together."
        )
    module, inside = _build(models[0], models[0].read()), [""]

    def take_turn(model: SavedModel) -> None:
        if inside[0] != model.identity:
            inside[0] = ""
            copy_weights(module, model.read(), model.name)
            inside[0] = model.identity

    for model in reversed(models):  # damaged weights are told before any work, and the first is ready
        take_turn(model)
    return [LoadedModel(model.recipe, module, model.name, partial(take_turn, model)) for model in models]


def _build(model: SavedModel, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build the network, unless it is far larger than its weights: a package from elsewhere could ask for anything.

    Building it on the meta device first would tell as well, and would cost a second of imports.
    """
    recipe, left = model.recipe, 2 * sum(tensor.numel() for tensor in tensors.values()) + _SLACK

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal left
        left -= 0 if parameter is None else parameter.numel()
        if left < 0:
            raise ModelError(
                f"{model.name}: the recipe asks for a network that is larger than its weights; expected one of "
                f"{sum(tensor.numel() for tensor in tensors.values())} numbers. Get the model anew."
            )

    watching = register_module_parameter_registration_hook(count)
    try:
        module = recipe.network.build(len(recipe.channels), len(recipe.class_names), recipe.patch_size)
    except RuntimeError as error:
        raise ModelError(f"{model.name}: its network cannot be built: {error}. Get the model anew.") from None
    finally:
        watching.remove()
    return module.eval().requires_grad_(False)


def read_record(folder: Path) -> TrainedModel:
    """Read what a finished training says of itself.

    Raises:
        ModelError: there is none.
    """
    try:
        saved = json.loads((folder / RESULT).read_text())
        return TrainedModel.model_validate(saved["record"]).placed(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"{error.error_count()} fields do not fit" if isinstance(error, ValidationError) else type(error).__name__
        raise ModelError(
            f"{folder}: no trained model can be read there ({RESULT}: {why}); expected the folder of a finished "
            "training, such as runs/ct/train-fold0-e29afdfe. Check the path."
        ) from error


def find_trained(path: Path, fold: int | None) -> TrainedModel:
    """Return the finished training in a folder, or a run folder's longest one of a fold.

    Args:
        path: Folder of a training or of a run.
        fold: None for the one on all cases.

    Raises:
        ModelError: there is none.
    """
    if (path / RESULT).is_file():
        return read_record(path)
    name = f"train-{'all' if fold is None else f'fold{fold}'}"
    found = [read_record(result.parent) for result in sorted(path.glob(f"{name}-*/{RESULT}"))]
    if not found:
        raise ModelError(
            f"{path}: no finished training was found; expected {RESULT} in it, or in a folder {name}-... of a run. "
            "Check the path, or finish that training first."
        )
    return max(found, key=lambda model: model.steps)


def check_agreement(models: Sequence[LoadedModel]) -> None:
    """See to it that the logits of all models can be averaged.

    Raises:
        ModelError: there is no model, or they differ in more than weights and the numbers of normalisation.
    """
    if not models:
        raise ModelError("prediction: found no model; expected at least one. Name the folder of a finished training.")
    first = models[0]
    for other in models[1:]:
        for name in ("labels", "class_names", "channels", "prepare", "patch_size", "task"):
            one, two = getattr(first.recipe, name), getattr(other.recipe, name)
            if one != two:
                raise ModelError(
                    f"models {first.name} and {other.name}: {name} differs: {one} against {two}; expected equal ones, "
                    "since their logits are averaged. Predict with each of them alone."
                )
