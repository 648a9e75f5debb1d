"""Finished trainings on disk, opened for prediction: recipe and weights, nothing that could be executed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from torch import nn

from pipeline.errors import ModelError
from pipeline.learning.weights import load_weights
from pipeline.records import InferenceRecipe, TrainedModel
from pipeline.workspace import RESULT


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A trained network with its weights, ready to compute."""

    recipe: InferenceRecipe
    module: nn.Module
    name: str
    """For messages: the folder it came from."""


def load_trained(model: TrainedModel) -> LoadedModel:
    """Build the network of a finished training and give it its weights.

    Raises:
        ModelError: the weights are missing, changed or of another network.
    """
    recipe = model.recipe
    module = recipe.network.build(len(recipe.channels), len(recipe.class_names), recipe.patch_size)
    weights = model.path(model.weights)
    load_weights(module, weights, sha256=model.weights_sha256)
    return LoadedModel(recipe, module.eval().requires_grad_(False), weights.parent.name)


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


def weights_of(path: Path | str) -> Path:
    """Return the weights file of a trained model's folder, or the path itself where it is such a file."""
    if Path(path).is_file():
        return Path(path)
    record = read_record(Path(path))
    return record.path(record.weights)


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
