"""25 classes from the working grid to 512 x 512 x 301 against nnU-Net's export: scripts/bench/peers export.

nnU-Net's export needs up to 16 GB and minutes here; it runs once.
"""

import numpy as np
import torch

from pipeline.imaging.native import decide_on_grid, interpolate_on_grid
from pipeline.imaging.volume import Geometry
from scripts.bench.made_ct import SHAPE
from scripts.bench.measure import extra_mib, in_child, interleaved, ratio, row, seconds
from scripts.bench.nnunet_plans import dataset_json, plans

CLASSES, WORKING_SHAPE, SPACING, WORKING = 25, (200, 256, 256), (1.0, 0.75, 0.75), (1.505, 1.5, 1.5)


def main() -> None:
    logits = made()
    working = Geometry(shape=WORKING_SHAPE, spacing_mm=WORKING, origin=offset())
    native = Geometry(shape=SHAPE, spacing_mm=SPACING)
    mask = decide_on_grid(logits, working, native)
    times = interleaved({"ours": lambda: decide_on_grid(logits, working, native)}, 5, warm=False)
    full = np.full(SHAPE, -np.inf, np.float32)
    best = np.zeros(SHAPE, np.uint8)
    for index in range(CLASSES):
        values = interpolate_on_grid(logits[index : index + 1], working, native)[0]
        higher = values > full
        full[higher], best[higher] = values[higher], index
    row("voxels equal to interpolating every class", f"{(mask == best).mean():.7f}")
    del full, best, mask
    times["nnU-Net"] = [seconds(lambda: theirs(logits))]
    row("time of the export (nnU-Net once)", ratio(times, "ours", "nnU-Net"))
    row("extra memory", f"{in_child(memory, True):.0f} MiB against nnU-Net's {in_child(memory, False):.0f} MiB")


def made() -> np.ndarray:
    """Blocks of classes with smooth borders, as logits are."""
    rng = np.random.default_rng(0)
    logits = np.empty((CLASSES, *WORKING_SHAPE), np.float32)
    for channel in logits:
        coarse = torch.from_numpy(rng.normal(0, 4, (1, 1, 9, 10, 10)).astype(np.float32))
        channel[:] = torch.nn.functional.interpolate(coarse, WORKING_SHAPE, mode="trilinear")[0, 0].numpy()
    return logits


def offset() -> tuple[float, float, float]:
    """The first voxel centre of the working grid: both grids have the same outer edges. (x, y, z) in mm."""
    depth, height, width = ((w - s) / 2 for w, s in zip(WORKING, SPACING, strict=True))
    return width, height, depth


def theirs(logits: np.ndarray) -> np.ndarray:
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans(spacing=WORKING))
    box = [[0, n] for n in SHAPE]
    properties = {"spacing": list(SPACING), "shape_after_cropping_and_before_resampling": SHAPE,
                  "shape_before_cropping": SHAPE, "bbox_used_for_cropping": box}  # fmt: skip
    return convert_predicted_logits_to_segmentation_with_correct_shape(  # type: ignore[no-any-return]
        torch.from_numpy(logits), manager, manager.get_configuration("3d_fullres"),
        manager.get_label_manager(dataset_json(CLASSES - 1)), properties, num_threads_torch=2,
    )  # fmt: skip


def memory(is_ours: bool) -> float:
    logits = made()
    working = Geometry(shape=WORKING_SHAPE, spacing_mm=WORKING, origin=offset())
    native = Geometry(shape=SHAPE, spacing_mm=SPACING)
    decide_on_grid(logits[:, :8], working, native, box=((0, 0, 0), (4, 64, 64)))
    return extra_mib(lambda: decide_on_grid(logits, working, native) if is_ours else theirs(logits))


if __name__ == "__main__":
    main()
