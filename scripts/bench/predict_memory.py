"""Peak memory of a whole prediction: .venv/bin/python -m scripts.bench.predict_memory.

A CT with 105 classes, and one of 2000 slices against one of 301; each in a process of its own, a small network, windows
of 96 with half a window of overlap, float32. nnU-Net holds all classes on the native grid: 105 x 301 x 512 x 512 values
are 15.4 GiB in float16 and 30.9 GiB in float32, before their copies.
"""

import sys

import numpy as np
import torch
from torch import nn

from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import HuWindow
from pipeline.imaging.prepare import PrepareOptions
from pipeline.imaging.volume import Geometry, Volume
from pipeline.learning.predictor import LoadedModel, PredictOptions, Predictor
from pipeline.machine import give_back_memory, keep_freed_memory, resident_memory_mb
from pipeline.networks.unet import UNet
from pipeline.records import InferenceRecipe
from pipeline.tasks.base import tasks
from scripts.bench.measure import extra_mib, in_child, row

WINDOW, NATIVE_MM, WORKING_MM = (96, 96, 96), (1.0, 0.7, 0.7), (1.0, 1.4, 1.4)


def main() -> None:
    extra, peak, _ = in_child(measure, 105, 301, 512)
    row("512 x 512 x 301, 105 classes, peak of the process", f"{peak / 1024:.2f} GiB, of it {extra:.0f} MiB to predict")
    short, long = in_child(measure, 5, 301, 512), in_child(measure, 5, 2000, 512)
    less = [extra - arrays for extra, _, arrays in (short, long)]
    row(
        "2000 slices against 301, 5 classes: extra memory less resampled input and mask",
        f"{less[1]:.0f} against {less[0]:.0f} MiB: {less[1] / less[0]:.2f}",
    )


def measure(classes: int, depth: int, side: int) -> tuple[float, float, float]:
    """Return extra and whole peak, and what resampled input and mask take, in MiB."""
    keep_freed_memory()
    torch.set_num_threads(2)
    predictor = Predictor([model(classes)], PredictOptions(precision="fp32"))
    predictor.predict(volume(100, 128), "warm")
    image = volume(depth, side)
    give_back_memory()
    extra = extra_mib(lambda: predictor.predict(image, "measured"))
    arrays = depth * (side // 2) ** 2 * 2 + depth * side**2
    return extra, resident_memory_mb() + extra, arrays / 2**20


def model(classes: int) -> LoadedModel:
    labels = Labels.model_validate({0: "background"} | {k: f"organ {k}" for k in range(1, classes)})
    recipe = InferenceRecipe(
        network=UNet(), task=tasks.parse("segmentation"), labels=labels, class_names=labels.classes,
        channels=("image",), prepare=PrepareOptions(spacing_mm=WORKING_MM, crop="none"), normalise=(HuWindow(),),
        patch_size=WINDOW,
    )  # fmt: skip
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.LeakyReLU(inplace=True), nn.Conv3d(8, classes, 1))
    return LoadedModel(recipe, network.eval(), "made")


def volume(depth: int, side: int) -> Volume:
    y, x = np.ogrid[:side, :side]
    voxels = np.empty((1, depth, side, side), np.int16)
    for k in range(depth):
        voxels[0, k] = 500 * np.sin(k / 20) + 500 * np.sin(y / 30) * np.cos(x / 25)
    return Volume(voxels, Geometry(shape=(depth, side, side), spacing_mm=NATIVE_MM))


if __name__ == "__main__":
    sys.exit(main())
