"""The rules of the planner: one function a value, each with the reason that becomes its comment in the YAML."""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log2, prod
from typing import Any

import numpy as np

from pipeline.errors import plural
from pipeline.planner import shapes
from pipeline.planner.known import Known

MINUTES = 30.0
"""Minutes of training a fold where nobody says otherwise."""
STEPS_PER_EPOCH = 50

_MOST_VOXELS = {"cpu": 64**3, "cuda": 128**3}
"""Of a patch: what a step of some tenths of a second allows."""
_SEEN_AT_ONCE = 8
"""A patch should hold at least one part in this many of a case, or it cannot tell where in the body it is."""
_SMALLEST_PART_VOXELS = 64
"""Voxels that the median connected component of the smallest class must keep."""
_VOXELS_A_STEP = {"cpu": 200_000, "cuda": 4_000_000}
_BASE_FEATURES = {"cpu": (16, 8), "cuda": (32, 16)}
_MOST_FEATURES = {"cpu": 128, "cuda": 320}
_FEWEST_STEPS = 1000
_SEGMENTATION_PASSES, _CLASSIFICATION_PASSES = 1000, 40
"""How often training may see each case before it learns cases by heart: labels of voxels are many, classes few."""


@dataclass(frozen=True)
class Choice:
    """A value, and why it is so in one sentence."""

    value: Any
    why: str


def fold_number(known: Known) -> Choice:
    """Five folds where groups are enough for it."""
    groups = known.groups
    k = 5 if groups >= 25 else 3 if groups >= 6 else 2
    return Choice(k, f"{plural(groups, 'group')}: each of {k} folds validates about {max(1, round(groups / k))}.")


def stratification(known: Known) -> Choice:
    """Spread evenly what differs between cases."""
    cases, found, reasons = known.listed, [], []
    if any(case.classes for case in cases):
        found.append("class")
        reasons.append("cases have classes")
    sites = {case.site for case in cases} - {""}
    if len(sites) > 1:
        found.append("site")
        reasons.append(plural(len(sites), "site"))
    volumes = np.array([[part.volume_ml for part in fact.classes.values()] for fact in known.cases if fact.classes])
    volumes = volumes if known.task.reads_masks else volumes[:0]
    if volumes.size and (volumes == 0).any():
        found.append("labels")
        reasons.append("some cases lack a label")
    if volumes.size and float(np.max(volumes.std(0) / np.maximum(volumes.mean(0), 1e-9))) > 0.5:
        found.append("label_volume")
        reasons.append("label volumes differ by more than half of their mean")
    why = f"Spread evenly: {', '.join(reasons)}." if reasons else "Nothing differs enough to be spread evenly."
    return Choice(found, why)


def crop(known: Known) -> Choice:
    """Leave air out, where there is much of it."""
    if known.is_block:
        return Choice("none", "Volumes of one array are used as they are.")
    extent = np.median([np.multiply(f.canonical_shape, f.canonical_spacing_mm) for f in known.cases], axis=0)
    names = known.facts.manifest.channels
    if known.is_ct(names[0]) and max(extent[1:]) > 200:
        return Choice("body", f"CT {max(extent[1:]):.0f} mm wide: air and table around the body are left out.")
    filled = float(np.median([found.nonzero for found in known.channel(names[0])] or [1.0]))
    if not known.is_ct(names[0]) and filled < 0.7:
        return Choice("nonzero", f"Only {filled:.0%} of the median case is not 0: the rest is left out.")
    return Choice("none", "Nothing around the median case is worth cutting away.")


def spacing(known: Known) -> Choice:
    """Median voxel size; coarser where a patch would see too little."""
    if known.is_block:
        return Choice(None, "Volumes of one array have no size in mm; each keeps its voxels.")
    size = np.median(known.spacings, axis=0)
    why = "Median voxel size of the cases."
    axis = int(np.argmax(size))
    if size[axis] / size.min() > 3:
        size[axis] = np.percentile(known.spacings[:, axis], 10)
        size[axis] = max(size[axis], size.min())
        why = f"Median voxel size of the cases; along {'DHW'[axis]}, where slices are thick, that of the finest tenth."
    share = _SEEN_AT_ONCE if known.task.reads_masks else 1
    most = share * _MOST_VOXELS[known.device.kind]
    extent = np.percentile(known.extents_mm(), 50 if known.task.reads_masks else 95, axis=0)
    floor, limit = shapes.coarser(size, extent, most), _coarsest(known)
    floor = min(floor, max(limit, float(size.min())))
    if floor > size.min():
        voxels = " x ".join(str(round(side)) for side in extent / size)
        native = " x ".join(f"{value:g}" for value in np.round(size, 2))
        size = np.maximum(size, floor)
        why = (
            f"Cases of {voxels} voxels at {native} mm are too large for patches of {_MOST_VOXELS[known.device.kind]} "
            f"voxels: these should hold {'an eighth of a case' if share > 1 else 'a case'} or more."
        )
        if floor == limit:
            why += " Coarser ones would lose the smallest class."
    return Choice([round(float(value), 3) for value in size], why)


def normalisation(known: Known) -> Choice:
    """By what the intensities of each channel mean."""
    names = known.facts.manifest.channels
    found = [_normalisation(known, name) for name in names]
    if len(names) == 1 or all(one.value == found[0].value for one in found):
        return found[0]
    values = {name: one.value for name, one in zip(names, found, strict=True)}
    return Choice(values, " ".join(f"{name}: {one.why}" for name, one in zip(names, found, strict=True)))


def foreground(known: Known) -> Choice:
    """More patches around labels where a patch is a small part of a case."""
    if not known.task.reads_masks:
        counts = [sum(name in case.classes for case in known.listed) for name in known.facts.manifest.class_names]
        if counts and max(counts) > 1.5 * max(1, min(counts)):
            return Choice(1.0, f"Classes have {min(counts)} to {max(counts)} cases: each is drawn equally often.")
        return Choice(0.0, "Classes have about equally many cases: all are drawn alike.")
    share = prod(known.get("sample.patch_size")) / float(np.prod(known.extent_voxels()))
    if share > 0.5:
        return Choice(0.33, "A patch holds most of a case and so most labels anyway; a third is centred on a label.")
    return Choice(0.5, f"A patch holds {share:.0%} of the median case: half of them are centred on a label.")


def network(known: Known) -> Choice:
    """The plain network of each task."""
    if known.task.reads_masks:
        return Choice("unet", "Encoder and decoder with skip connections: the standard of segmentation.")
    return Choice("resnet3d", "Residual blocks and a mean over space: one answer for a volume of any size.")


def strides(known: Known) -> Choice:
    """Halve axes until few voxels are left; coarse axes later."""
    patch = _patch_before(known)
    found = shapes.halvings(patch, _spacing(known))
    features = known.get("network.features")
    if "network.features" not in known.open and features:
        found = (found + [(1, 1, 1)] * len(features))[: len(features) - 1]
    late = len(set(found)) > 1 or any(len(set(step)) > 1 for step in found)
    why = f"From {_sides(patch)} voxels each axis is halved down to 4 to 7 of them"
    why += "; one with coarser voxels, or fewer of them, later or never." if late else "."
    return Choice([list(step) for step in found], why)


def kernels(known: Known) -> Choice:
    """1 along coarse axes: their neighbours are far away."""
    found = shapes.kernels_of(_spacing(known), known.get("network.strides") or _default_strides(known))
    if found is None:
        return Choice(None, "3 x 3 x 3 everywhere: no axis is twice as coarse as another.")
    flat = sum(1 in kernel for kernel in found)
    return Choice(
        [list(kernel) for kernel in found], f"1 along axes twice as coarse as the finest: at {plural(flat, 'level')}."
    )


def features(known: Known) -> Choice:
    """As wide as the minutes allow."""
    steps = known.get("network.strides")
    levels = len(steps) + 1 if steps is not None else 4
    kind, minutes = known.device.kind, known.get("train.max_minutes") or MINUTES
    found, cost = [16], None
    for base in _BASE_FEATURES[kind]:
        found = [min(base * 2**level, _MOST_FEATURES[kind]) for level in range(levels)]
        patch = _patch(known, found)
        cost = known.cost(patch, _batch_wanted(known, patch), features=found)
        if cost is None or (
            minutes * 60 / cost.seconds >= _FEWEST_STEPS and cost.memory_bytes <= known.device.memory_bytes
        ):
            break
    what = "a CPU" if kind == "cpu" else "a GPU"
    why = f"{found[0]} at full resolution on {what}, doubled at each of {plural(levels, 'level')}"
    why += f" up to {_MOST_FEATURES[kind]}" if found[-1] == _MOST_FEATURES[kind] and levels > 1 else ""
    if cost is not None:
        why += f"; about {round(minutes * 60 / cost.seconds, -1):.0f} steps fit into {minutes:g} minutes"
    return Choice(found, f"{why}.")


def patch_size(known: Known) -> Choice:
    """The form of the median case."""
    found = _patch(known, known.get("network.features"))
    extent = known.extent_voxels()
    who = "The median case has" if known.task.reads_masks else "Nineteen of twenty cases have at most"
    why = f"{who} {_sides(np.round(extent))} voxels; sides are multiples of what the network halves"
    if prod(found) < 0.9 * float(np.prod(extent)):
        why += f", the longest cut until {_MOST_VOXELS[known.device.kind]} voxels or the memory are not exceeded"
    return Choice(list(found), f"{why}.")


def batch_size(known: Known) -> Choice:
    """About so many voxels a step as keep the device busy."""
    patch = known.get("sample.patch_size")
    batch = _batch_wanted(known, patch)
    while batch > 1 and (cost := known.cost(patch, batch)) and cost.memory_bytes > known.device.memory_bytes:
        batch //= 2
    wanted = _VOXELS_A_STEP[known.device.kind] * (1 if known.task.reads_masks else 2)
    what = f"{known.device.units} cores" if known.device.kind == "cpu" else "the GPU"
    return Choice(batch, f"About {wanted} voxels a step keep {what} busy; more steps teach more than larger ones.")


def norm(known: Known) -> Choice:
    """Batch norm needs a batch."""
    if known.get("network.name") == "unet":
        return Choice("instance", "Each case by itself: batches are small.")
    batch = known.get("train.batch_size")
    if batch >= 16:
        return Choice("batch", f"A batch of {batch} volumes has a mean worth the name.")
    return Choice("instance", f"A batch of {batch} volumes is too small for means over it.")


def minutes(known: Known) -> Choice:
    """A time that one can wait for."""
    if "train.epochs" not in known.open and known.get("train.epochs") is not None:
        return Choice(None, "The epochs that are stated are the length.")
    return Choice(MINUTES, "Minutes of training a fold; --max-minutes changes it.")


def epochs(known: Known) -> Choice:
    """At most so many passes over the cases."""
    passes = _SEGMENTATION_PASSES if known.task.reads_masks else _CLASSIFICATION_PASSES
    k = known.get("folds.k") or 5
    cases = max(1, round(len(known.listed) * (k - 1) / k))
    per_epoch = (known.get("train.steps_per_epoch") or STEPS_PER_EPOCH) * known.get("train.batch_size")
    found = max(10, ceil(passes * cases / per_epoch))
    why = f"At most: each of {plural(cases, 'training case')} is seen about {passes} times; the minutes may end it"
    return Choice(found, f"{why} before.")


def validate_every(known: Known) -> Choice:
    """About ten validations."""
    steps = expected_steps(known)
    per_epoch = known.get("train.steps_per_epoch") or STEPS_PER_EPOCH
    found = int(min(10, max(1, round((steps or 10 * per_epoch) / per_epoch / 10))))
    return Choice(found, "About ten validations in a training, to choose the best weights by.")


def augmentation(known: Known) -> Choice:
    """The usual changes; for classes none that might make another class."""
    if known.task.reads_masks:
        return Choice(None, "The usual ones: mirroring, rotation and scaling, noise, brightness, contrast, gamma.")
    if known.is_block:
        return Choice([], "None: nothing is known of the space of these volumes.")
    found = [{"name": "affine", "rotation_degrees": [15, 15, 15], "scaling": [0.9, 1.1]}, {"name": "noise"}]
    return Choice(found, "No mirroring: the mirror image may be of another class.")


def figures(known: Known) -> Choice:
    """Surface distances with the tolerance of a voxel."""
    if not known.task.reads_masks:
        return Choice(None, "The usual ones of classification.")
    finest = float(np.median(known.spacings.min(axis=1))) if len(known.spacings) else 1.0
    tolerance = float(max(1, ceil(finest - 0.25)))
    names: list[dict[str, Any]] = [{"name": "dice"}, {"name": "hd95"}, {"name": "nsd", "tolerance_mm": tolerance}]
    return Choice([*names, {"name": "volume"}], f"NSD tolerates {tolerance:g} mm, about a voxel of the sources.")


Rule = Callable[[Known], Choice]

RULES: dict[str, Rule] = {
    "folds.k": fold_number,
    "folds.stratify": stratification,
    "ingest.crop": crop,
    "ingest.spacing_mm": spacing,
    "normalise": normalisation,
    "train.max_minutes": minutes,
    "network.name": network,
    "network.strides": strides,
    "network.kernels": kernels,
    "network.features": features,
    "sample.patch_size": patch_size,
    "sample.foreground": foreground,
    "train.batch_size": batch_size,
    "network.norm": norm,
    "train.epochs": epochs,
    "train.optimizer": lambda known: Choice(
        {"name": "adamw", "rate": 1e-3}, "Adam's usual rate; it seldom needs tuning."
    ),
    "train.schedule": lambda known: Choice({"name": "polynomial", "warmup_steps": 20}, "Down to zero at the end."),
    "train.augment": augmentation,
    "train.validate_every": validate_every,
    "train.precision": lambda known: Choice(
        known.device.precision, "The fastest format that this device computes natively."
    ),
    "predict.precision": lambda known: Choice(known.device.precision, "As in training."),
    "evaluate.metrics": figures,
}
"""In the order in which they are asked: each may read what those before it decided."""

ONLY_OF = {
    "network.strides": ("unet", "resnet3d"),
    "network.kernels": ("unet",),
    "network.features": ("unet", "resnet3d"),
    "network.norm": ("unet", "resnet3d"),
}
"""Options that only these networks have."""


def expected_steps(known: Known) -> int | None:
    """Return how many steps the training will have, by the predicted time of one; None where that is unknown."""
    cost = known.cost(known.get("sample.patch_size"), known.get("train.batch_size"))
    limits = []
    if known.get("train.epochs"):
        limits.append(known.get("train.epochs") * (known.get("train.steps_per_epoch") or STEPS_PER_EPOCH))
    if known.get("train.max_minutes") and cost is not None:
        limits.append(int(known.get("train.max_minutes") * 60 / cost.seconds))
    return min(limits) if limits else None


def _normalisation(known: Known, name: str) -> Choice:
    found = known.channel(name)
    lows, highs = [one.all.minimum for one in found], [one.all.maximum for one in found]
    if known.is_ct(name):
        labelled = [one.foreground for one in found if one.foreground is not None]
        if known.task.reads_masks and labelled:
            low, high = (np.median([one.percentile(percent) for one in labelled]) for percent in (0.5, 99.5))
            why = (
                f"CT: clipped to what 99 % of the labelled voxels have, in the median case {low:.0f} to {high:.0f} HU."
            )
            return Choice({"name": "training_zscore"}, why)
        low = 50 * np.floor(np.median([one.all.percentile(0.5) for one in found]) / 50)
        high = 50 * np.ceil(np.median([one.all.percentile(99.5) for one in found]) / 50)
        return Choice({"name": "hu_window", "range_hu": [float(low), float(high)]}, "CT: what 99 % of the voxels have.")
    if lows and len(set(lows)) == 1 and 0 < max(highs) <= 1.0 + 1e-6:
        return Choice({"name": "hu_window", "range_hu": [float(lows[0]), 1.0]}, "All cases share one scale, up to 1.")
    return Choice({"name": "zscore"}, "Intensities have no common unit (MR): each case to mean 0 and deviation 1.")


def _coarsest(known: Known) -> float:
    """Return the voxel size (mm) at which the median component of the smallest class has few voxels left."""
    sizes: dict[str, list[float]] = {}
    for fact in known.cases:
        for name, part in fact.classes.items():
            if part.components:
                sizes.setdefault(name, []).append(part.volume_ml / part.components)
    if not sizes or not known.task.reads_masks:
        return float("inf")
    smallest_ml = min(float(np.median(found)) for found in sizes.values())
    return round(float((1000 * smallest_ml / _SMALLEST_PART_VOXELS) ** (1 / 3)), 1)


def _spacing(known: Known) -> list[float]:
    chosen = known.get("ingest.spacing_mm")
    if chosen in (None, "auto"):
        return [1.0, 1.0, 1.0] if known.is_block else np.median(known.spacings, axis=0).tolist()
    return list(chosen)


def _patch_before(known: Known) -> shapes.Sides:
    """Return the patch that strides are made for: the stated one, or what the cases ask for."""
    stated = known.get("sample.patch_size")
    if "sample.patch_size" not in known.open and stated not in (None, "auto"):
        return shapes.three(stated)
    return shapes.wanted_patch(known.extent_voxels(), _MOST_VOXELS[known.device.kind])


def _patch(known: Known, widths: list[int] | None) -> shapes.Sides:
    """Return the patch of the form of the case that fits the network, the voxels and, with a batch, the memory."""
    stated = known.get("sample.patch_size")
    if "sample.patch_size" not in known.open and stated not in (None, "auto"):
        return shapes.three(stated)
    is_ours = known.get("network.name") in ONLY_OF["network.features"]
    changes = {"features": widths} if widths is not None and is_ours else {}
    divisor = known.network(**changes).divisor()
    if known.get("network.name") == "resnet3d":
        divisor = shapes.divisor_of(known.get("network.strides") or [])  # nothing is lost to rounding at any level
    most = float(_MOST_VOXELS[known.device.kind])
    while True:
        found = shapes.fitted_patch(known.extent_voxels(), divisor, most)
        cost = known.cost(found, min(2, _batch_wanted(known, found)), **changes)
        if cost is None or cost.memory_bytes <= known.device.memory_bytes or prod(found) <= prod(divisor) * 8:
            return found
        most = 0.8 * prod(found)


def _batch_wanted(known: Known, patch: Any) -> int:
    if "train.batch_size" not in known.open and known.get("train.batch_size"):
        return int(known.get("train.batch_size"))
    wanted = _VOXELS_A_STEP[known.device.kind] * (1 if known.task.reads_masks else 2)
    power = max(1, round(log2(max(2.0, wanted / prod(patch)))))
    most = max(2, len(known.listed) // 4)
    return int(min(2**power, 2 ** int(log2(most))))


def _default_strides(known: Known) -> list[tuple[int, int, int]]:
    return [(2, 2, 2)] * (len(known.get("network.features") or [1] * 4) - 1)


def _sides(values: Any) -> str:
    return " x ".join(f"{value:g}" for value in values)
