"""Random 96^3 patches, image and label, from 8 CTs: a core's rate against the peers': scripts/bench/peers patches.

One thread each, so that rates are a core's. Without augmentation: our store from the disk and decoded in memory,
nnU-Net's reader, MONAI's CacheDataset with a random crop, TorchIO's Queue. With it: rotation, scaling, mirroring,
noise, brightness, contrast and gamma, against batchgeneratorsv2's transforms of nnU-Net at its probabilities; ours at
the defaults, and all of them in every patch as the worst case.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import blosc2
import nibabel
import numpy as np
import torch

from pipeline.datasets.base import Case
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import HuWindow
from pipeline.imaging.prepare import PrepareOptions, prepare
from pipeline.imaging.store import StoredCase, open_case, write_case
from pipeline.imaging.volume import Geometry, Volume
from pipeline.learning.patches import PatchSource, patch_cases
from pipeline.machine import keep_freed_memory
from pipeline.records import IngestedCase, SamplingPlan
from pipeline.transforms.base import transforms
from scripts.bench.made_ct import made_ct
from scripts.bench.measure import row, tree_mib

PATCH, CASES, SHAPE, ORGANS = (96, 96, 96), 8, (200, 240, 240), 5
USUAL = ("flip", "affine", "noise", "brightness", "contrast", "gamma")
Make = Callable[[int], Any]


def main() -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    blosc2.set_nthreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stored = [write(folder, number) for number in range(CASES)]
        ours_mib, theirs_mib = tree_mib(folder / "ours"), tree_mib(folder / "nnunet")
        row("store on the disk, as a share of nnU-Net's b2nd", f"{ours_mib / theirs_mib:.2f} ({ours_mib:.0f} MiB)")
        decoded = [case.decoded() for case in stored]
        plain = {
            "ours, from the disk": ours(stored, ()),
            "ours, decoded in memory": ours(decoded, ()),
            "nnU-Net's reader": nnunet_reader(folder / "nnunet"),
            "MONAI CacheDataset": monai_cache(stored),
            "TorchIO Queue, tensors in memory": torchio_queue(in_memory(stored)),
            "TorchIO Queue, from nii.gz": torchio_queue(in_files(stored, folder / "torchio")),
        }
        rates = measure(
            plain, {"MONAI CacheDataset": 3, "TorchIO Queue, tensors in memory": 32, "TorchIO Queue, from nii.gz": 16}
        )
        show(rates, ("ours, from the disk", "ours, decoded in memory"))
        augmented = {
            "ours, usual augmentation": ours(decoded, USUAL),
            "ours, all of it in every patch": ours(decoded, USUAL, probability=1.0),
            "batchgeneratorsv2": batchgenerators(),
        }
        show(measure(augmented, {"batchgeneratorsv2": 3}), tuple(augmented)[:2])


def measure(ways: dict[str, Make], batches: dict[str, int], rounds: int = 5) -> dict[str, float]:
    """Patches of each way per second of processor time, in turns; batches are of 2 patches.

    TorchIO fills its queue of 16 patches from time to time, so it gets batches enough for several fillings a turn.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    step = itertools.count()
    for way in ways.values():
        way(next(step))
    for _ in range(rounds):
        for name, way in ways.items():
            count, started = batches.get(name, 15), time.process_time()
            for _ in range(count):
                way(next(step))
            found[name].append(2 * count / (time.process_time() - started))
    return {name: statistics.median(rates) for name, rates in found.items()}


def show(rates: dict[str, float], ours_names: tuple[str, ...]) -> None:
    for name, rate in rates.items():
        ratios = ", ".join(f"{rates[one] / rate:.1f} x" for one in ours_names)
        row(name, f"{rate:.1f} patches a core-second" + ("" if name in ours_names else f"; ours {ratios}"))


def write(folder: Path, number: int) -> StoredCase:
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    voxels, label = made_ct(SHAPE, organs=ORGANS, seed=number)
    made = prepare(
        Volume(voxels[None], Geometry(shape=SHAPE, spacing_mm=(1.5, 1.5, 1.5))), label, PrepareOptions(crop="none"),
        case_id=f"c{number}",
    )  # fmt: skip
    write_case(folder / "ours" / f"c{number}", made.voxels, made.label, made.meta)
    data, seg = (voxels[None].astype(np.float32) - 40) / 90, label[None].astype(np.int16)
    (folder / "nnunet").mkdir(exist_ok=True)
    blocks, chunks = comp_blosc2_params(data.shape, PATCH, data.itemsize)
    seg_blocks, seg_chunks = comp_blosc2_params(seg.shape, PATCH, seg.itemsize)
    nnUNetDatasetBlosc2.save_case(
        data, seg, {}, str(folder / "nnunet" / f"c{number}"), chunks=chunks, blocks=blocks, chunks_seg=seg_chunks,
        blocks_seg=seg_blocks,
    )  # fmt: skip
    return open_case(folder / "ours" / f"c{number}")


def ours(cases: list[Any], names: tuple[str, ...], probability: float | None = None) -> Make:
    rows = [IngestedCase(case=Case(case_id=c.meta.case_id, images={}), entry="", shape=c.shape) for c in cases]
    labels = Labels.model_validate({0: "background"} | {k: f"organ {k}" for k in range(1, ORGANS + 1)})
    ids = tuple(c.meta.case_id for c in cases)
    plan = SamplingPlan(
        train=ids, validation=(), patch_size=PATCH, foreground=0.33,
        cases_of_class=dict.fromkeys(range(1, ORGANS + 1), ids),
    )  # fmt: skip
    chosen = patch_cases(rows, {c.meta.case_id: c for c in cases}, [HuWindow()], labels, labels.classes)
    augment = [transforms.parse({"name": name} | ({} if probability is None else {"probability": probability}))
               for name in names]  # fmt: skip
    return PatchSource(chosen, plan, batch_size=2, labels=labels, transforms=augment).batch


def nnunet_reader(folder: Path) -> Make:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    data_set = nnUNetDatasetBlosc2(str(folder))
    rng = np.random.default_rng(0)

    def batch(_: int) -> object:
        images, segs = np.zeros((2, 1, *PATCH), np.float32), np.zeros((2, 1, *PATCH), np.int16)
        for row_number in range(2):
            data, seg, _previous, _properties = data_set.load_case(f"c{rng.integers(CASES)}")
            box = (slice(None), *(slice(a, a + n) for a, n in zip(corner(rng), PATCH, strict=True)))
            images[row_number], segs[row_number] = data[box], seg[box]
        return torch.from_numpy(images), torch.from_numpy(segs)

    return batch


def monai_cache(stored: list[StoredCase]) -> Make:
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import Compose, RandCropByPosNegLabeld, ScaleIntensityRanged

    items = [{"image": torch.from_numpy(c.decoded().voxels.astype(np.float32)),
              "label": torch.from_numpy(c.decoded().label[None])} for c in stored]  # fmt: skip
    steps = Compose([
        ScaleIntensityRanged("image", -160, 240, 0, 1, clip=True),
        RandCropByPosNegLabeld(["image", "label"], "label", PATCH, pos=1, neg=2, num_samples=1),
    ])  # fmt: skip
    loader = DataLoader(CacheDataset(items, steps, progress=False), batch_size=2, shuffle=True, num_workers=0)
    endless = (batch for _ in itertools.count() for batch in loader)
    return lambda _: next(endless)


def in_memory(stored: list[StoredCase]) -> Iterator[tuple[Any, Any]]:
    for case in stored:
        decoded = case.decoded()
        yield torch.from_numpy(decoded.voxels.astype(np.float32)), torch.from_numpy(decoded.label[None])


def in_files(stored: list[StoredCase], folder: Path) -> Iterator[tuple[Any, Any]]:
    folder.mkdir()
    for number, (image, label) in enumerate(in_memory(stored)):
        names = [folder / f"{number}_{kind}.nii.gz" for kind in ("image", "label")]
        for name, voxels in zip(names, (image, label), strict=True):
            nibabel.save(nibabel.Nifti1Image(voxels[0].numpy().astype(np.int16), np.eye(4)), name)
        yield tuple(names)


def torchio_queue(pairs: Iterable[tuple[Any, Any]]) -> Make:
    """Give TorchIO tensors or files; a file is read each time that its case is drawn."""
    import torchio

    subjects = []
    for image, label in pairs:
        how = "path" if isinstance(image, Path) else "tensor"
        subjects.append(
            torchio.Subject(image=torchio.ScalarImage(**{how: image}), label=torchio.LabelMap(**{how: label}))
        )
    data_set = torchio.SubjectsDataset(subjects, transform=torchio.RescaleIntensity((0, 1), in_min_max=(-160, 240)))
    queue = torchio.Queue(data_set, 16, 4, torchio.UniformSampler(PATCH), num_workers=0)
    loader = torchio.SubjectsLoader(queue, batch_size=2, num_workers=0)
    endless = (batch for _ in itertools.count() for batch in loader)
    return lambda _: next(endless)


def batchgenerators() -> Make:
    """nnU-Net's training transforms less blur and low resolution, on patches of its enlarged reading size."""
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    angle, some = np.pi / 6, BGContrast((0.75, 1.25))
    steps = ComposeTransforms([
        SpatialTransform(
            PATCH, patch_center_dist_from_border=0, random_crop=False, p_elastic_deform=0, p_rotation=0.2,
            rotation=(-angle, angle), p_scaling=0.2, scaling=(0.7, 1.4), p_synchronize_scaling_across_axes=1,
            bg_style_seg_sampling=False,
        ),
        RandomTransform(
            GaussianNoiseTransform(noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True), 0.1
        ),
        RandomTransform(
            MultiplicativeBrightnessTransform(multiplier_range=some, synchronize_channels=False, p_per_channel=1), 0.15
        ),
        RandomTransform(
            ContrastTransform(contrast_range=some, preserve_range=True, synchronize_channels=False, p_per_channel=1),
            0.15,
        ),
        *(
            RandomTransform(
                GammaTransform(
                    gamma=BGContrast((0.7, 1.5)), p_invert_image=invert, synchronize_channels=False, p_per_channel=1,
                    p_retain_stats=1,
                ),
                share,
            )
            for invert, share in ((1, 0.1), (0, 0.3))
        ),
        MirrorTransform(allowed_axes=(0, 1, 2)),
    ])  # fmt: skip
    image, seg = torch.randn(1, 140, 140, 140), torch.randint(0, 5, (1, 140, 140, 140), dtype=torch.int16)
    return lambda _: [steps(image=image, segmentation=seg) for _ in range(2)]


def corner(rng: np.random.Generator) -> list[int]:
    return [int(rng.integers(0, n - p + 1)) for n, p in zip(SHAPE, PATCH, strict=True)]


if __name__ == "__main__":
    main()
