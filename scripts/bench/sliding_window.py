"""Sliding window against nnU-Net's and MONAI's: scripts/bench/peers sliding_window [MODEL IMAGE].

A made image of 256 x 256 x 150, one network of 5 classes, half a window of overlap, Gaussian weights, one allocator.
"""

import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import Tensor, nn

from pipeline.imaging.kernels import in_slices, strongest_slices
from pipeline.imaging.normalise import window
from pipeline.learning.backends import openvino_forward
from pipeline.learning.predictor import load_model
from pipeline.learning.sliding_window import Member, Weights, plan_windows, slide
from pipeline.machine import keep_freed_memory
from pipeline.networks.unet import UNet
from scripts.bench.measure import extra_mib, in_child, row
from scripts.bench.nnunet_plans import dataset_json, plans

Network = Callable[[Tensor], Tensor]
Size = tuple[int, int, int]
SHAPE, WINDOW, CLASSES = (150, 256, 256), (96, 96, 96), 5


def main(repeats: int, model: tuple[Path, Path] | None) -> None:
    keep_freed_memory()
    network, image = made()
    spent = [0.0]
    timed = Timed(network, spent)
    converted = openvino_forward(network, "bf16", Path(tempfile.mkdtemp()))
    with torch.inference_mode():
        converted(torch.zeros(1, 1, *WINDOW))
        ways: dict[str, Callable[[], Any]] = {
            "ours fp32": lambda: ours(image, timed, "fp32"),
            "ours bf16": lambda: ours(image, timed, "bf16"),
            "ours OpenVINO bf16": lambda: ours(image, Timed(converted, spent), "fp32"),
            "nnU-Net": lambda: theirs(image, timed),
            "MONAI": lambda: monais(image, timed),
        }
        warm(timed)
        masks, walls, forwards = {}, {name: [] for name in ways}, {name: [] for name in ways}
        for _ in range(repeats):
            for name, way in ways.items():
                spent[0], started = 0.0, time.perf_counter()
                masks[name] = way()
                walls[name].append(time.perf_counter() - started)
                forwards[name].append(spent[0])
    wall = {name: statistics.median(found) for name, found in walls.items()}
    for name in ways:
        share = statistics.median(w / f for w, f in zip(walls[name], forwards[name], strict=True))
        row(f"{name}: wall, and as a share of its forward passes", f"{wall[name]:.1f} s, {share:.3f}")
    for name in ("nnU-Net", "MONAI"):
        row(f"ours in OpenVINO bf16 against {name}", f"{wall[name] / wall['ours OpenVINO bf16']:.2f} x")
        row(f"ours in bf16 against {name}", f"{wall[name] / wall['ours bf16']:.2f} x")
        row(f"ours in fp32 against {name}", f"{wall[name] / wall['ours fp32']:.2f} x")
        row(f"equal classes, ours in fp32 and {name}", f"{(masks['ours fp32'] == masks[name]).mean():.5f}")
    peer = statistics.median(in_child(memory, "nnU-Net") for _ in range(3))
    for summed in ("fp32", "fp16"):
        mine = statistics.median(in_child(memory, summed) for _ in range(3))
        row(f"extra peak memory, summed in {summed}", f"{mine:.0f} MiB, nnU-Net (fp16) {peer:.0f}: {mine / peer:.2f}")
    if model is not None:
        agreement(*model)


class Timed(nn.Module):
    """Counts the time in the network."""

    def __init__(self, network: Callable[[Tensor], Tensor], spent: list[float]) -> None:
        super().__init__()
        self.network, self.spent = network, spent

    def forward(self, x: Tensor) -> Tensor:
        started = time.perf_counter()
        logits = self.network(x)
        self.spent[0] += time.perf_counter() - started
        return logits


def made() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = UNet().build(1, CLASSES, WINDOW).eval()
    return network, torch.from_numpy(rng.normal(0, 1, (1, *SHAPE)).astype(np.float32))


def warm(network: nn.Module) -> None:
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            network(torch.zeros(1, 1, *WINDOW))


def ours(
    image: Tensor, network: Network, precision: str, accumulator: str = "fp32", window: Size = WINDOW,
    classes: int = CLASSES, weights: Weights = "gaussian",
) -> np.ndarray:  # fmt: skip
    mask = np.empty(image.shape[1:], np.uint8)

    def forward(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return network(x)

    member = Member(lambda box: image[(slice(None), *box)], forward, (0.0,))
    summed = torch.float16 if accumulator == "fp16" else torch.float32
    for slab in slide(plan_windows(mask.shape, window), [member], classes, weights=weights, accumulator=summed):
        where = [slice(None)] * 3
        where[slab.axis] = slice(slab.start, slab.stop)
        mask[tuple(where)] = strongest(slab.logits)
    return mask


def strongest(logits: Tensor) -> np.ndarray:
    """Decide as the product does: its kernel for float32, torch otherwise."""
    if logits.dtype != torch.float32:
        return logits.argmax(0).numpy()
    out, values = np.empty(logits.shape[1:], np.uint8), logits.numpy()
    in_slices(lambda first, last: strongest_slices(values, out, first, last), len(out))
    return out


def theirs(image: Tensor, network: Network, window: Size = WINDOW, classes: int = CLASSES) -> np.ndarray:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
        manager = PlansManager(plans(window))
        configuration = manager.get_configuration("3d_fullres")
        predictor.manual_initialization(network, manager, configuration, None, dataset_json(classes - 1), "none", None)
        logits = predictor.predict_sliding_window_return_logits(image)
    return logits.argmax(0).numpy().astype(np.uint8)


def monais(image: Tensor, network: Network, window: Size = WINDOW, weights: Weights = "gaussian") -> np.ndarray:
    logits = sliding_window_inference(image[None], window, 1, network, overlap=0.5, mode=weights, sigma_scale=0.125)
    return logits[0].argmax(0).numpy().astype(np.uint8)  # type: ignore[union-attr]


def memory(way: str) -> float:
    keep_freed_memory()
    network, image = made()
    with torch.inference_mode():
        warm(network)
        if way == "nnU-Net":
            return extra_mib(lambda: theirs(image, network))
        strongest(torch.zeros(2, 1, 1, 1))
        return extra_mib(lambda: ours(image, network, "fp32", way))


def whole_steps(length: int, window: int) -> int:
    """Return the length, cut so that windows half a window apart end flush: all three place the same ones then."""
    step = window // 2
    return length if length <= window else window + (length - window) // step * step


def agreement(model: Path, file: Path) -> None:
    """Compare masks of a trained network, whose classes are seldom as good as equal, on one window grid."""
    predictor = load_model(model, fold=0)
    case = predictor.prepare(predictor.read(file, "image"), "image")
    maps = [window(one, stats) for one, stats in zip(predictor.recipe.normalise, case.meta.stats, strict=True)]
    whole = case.read((0, 0, 0), case.shape)
    image = torch.stack([torch.from_numpy(one.apply(channel)) for one, channel in zip(maps, whole, strict=True)])
    network, size = predictor.models[0].module, predictor.recipe.patch_size
    image = image[(slice(None), *(slice(whole_steps(n, w)) for n, w in zip(case.shape, size, strict=True)))]
    classes = len(predictor.recipe.class_names)
    with torch.inference_mode():
        mine = ours(image, network, "fp32", window=size, classes=classes)
        half = ours(image, network, "bf16", window=size, classes=classes)
        for name, other in (
            ("nnU-Net", theirs(image, network, size, classes)),
            ("MONAI, which lets no Gaussian weight fall below 0.001", monais(image, network, size)),
            ("ours in bf16", half),
        ):
            row(
                f"trained network, same windows: equal classes, ours in fp32 and {name}",
                f"{(mine == other).mean():.5f}",
            )
        mine = ours(image, network, "fp32", window=size, classes=classes, weights="constant")
        other = monais(image, network, size, "constant")
        row("the same, ours and MONAI with constant weights", f"{(mine == other).mean():.6f}")


if __name__ == "__main__":
    given = sys.argv[1:]
    main(3, (Path(given[0]), Path(given[1])) if given else None)
