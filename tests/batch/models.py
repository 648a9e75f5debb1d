"""Tiny finished runs on disk, made without training, and volumes to predict."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import HuWindow
from pipeline.imaging.prepare import PrepareOptions
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image
from pipeline.learning.weights import save_weights
from pipeline.networks.unet import UNet
from pipeline.records import InferenceRecipe, TrainedModel
from pipeline.tasks.base import tasks

LABELS = Labels(values={0: "background", 2: "soft", 7: "bone"})


def recipe(**changes: Any) -> InferenceRecipe:
    """Two foreground classes on a grid of 2 mm."""
    task = tasks.parse(changes.pop("task", "segmentation"))
    labels = changes.pop("labels", LABELS)
    values: dict[str, Any] = {
        "network": UNet(features=(4, 8)),
        "task": task,
        "labels": labels,
        "class_names": task.class_names(labels, changes.pop("classes", ())),
        "channels": ("image",),
        "prepare": PrepareOptions(spacing_mm=(2.0, 2.0, 2.0), crop="none"),
        "normalise": (HuWindow(range_hu=(-1000, 1000)),),
        "patch_size": (8, 12, 8),
    }
    return InferenceRecipe(**(values | changes))


def make_training(folder: Path, seed: int = 0, **changes: Any) -> TrainedModel:
    """Write the folder of a finished training with random weights."""
    made = recipe(**changes)
    torch.manual_seed(seed)
    module = made.network.build(len(made.channels), len(made.class_names), made.patch_size)
    folder.mkdir(parents=True)
    record = TrainedModel(
        recipe=made, weights_sha256=save_weights(module, folder / "model.safetensors"), epochs=3, steps=30,
        best_epoch=2, best_score=0.5, seconds=90.0, parameters=1234, ended="steps",
    )  # fmt: skip
    (folder / "training.json").write_text(json.dumps({"precision": "fp32"}))
    (folder / "result.json").write_text(json.dumps({"key": "k", "record": record.model_dump(mode="json")}))
    return record.placed(folder)


def make_run(folder: Path, folds: int = 2, **changes: Any) -> Path:
    """Write a run folder with a training for each fold."""
    for fold in range(folds):
        make_training(folder / f"train-fold{fold}-0a1b2c3d", fold, **changes)
    (folder / "resolved.yaml").write_text("predict: {overlap: 0.25, precision: bf16, window_batch: 1}\n")
    return folder


def make_volume(path: Path, seed: int = 0, shape: tuple[int, int, int] = (14, 16, 15)) -> Volume:
    """Write a smooth random volume."""
    field = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 2.0)
    voxels = (field / np.abs(field).max() * 1000).astype(np.int16)
    volume = Volume(voxels[None], Geometry(shape=shape, spacing_mm=(2.5, 1.4, 1.6), origin=(-30.0, 40.0, 100.0)))
    write_image(volume, path)
    return volume
