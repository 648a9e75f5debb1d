"""Which patches a step trains on, and the batches made of them: a pure function of (seed, step, row)."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError
from pipeline.imaging.block_store import BlockCase
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import Normalise, Window, window
from pipeline.imaging.store import LoadedCase, StoredCase
from pipeline.learning.augment import Drawn, Frame, Size, change_intensity, cut, place, read_box, side_table
from pipeline.records import IngestedCase, SamplingPlan
from pipeline.transforms.base import Transform
from pipeline.transforms.spatial import for_labels

Voxels = StoredCase | LoadedCase | BlockCase
"""A prepared volume: on disk, in memory, or one of a block in memory."""


@dataclass(frozen=True, eq=False)
class PatchCase:
    """A case as training reads it.

    voxels:    Its prepared volume, on disk or in memory.
    windows:   Normalisation of each channel.
    annotated: (K,) which classes were labelled; None for all.
    mirrored:  (K,) the same in a patch that shows left and right exchanged, since its labels are too; None for all.
    classes:   (K,) 0 and 1, the truth of a whole volume in classification; None where the label volume is the truth.
    """

    voxels: Voxels
    windows: tuple[Window, ...]
    annotated: NDArray[np.bool_] | None = None
    classes: NDArray[np.float32] | None = None
    mirrored: NDArray[np.bool_] | None = None

    @property
    def case_id(self) -> str:
        """Name of the case."""
        return self.voxels.meta.case_id


@dataclass(frozen=True)
class PatchDraw:
    """Everything that was drawn for one patch; equal draws give equal patches."""

    step: int
    row: int
    case_id: str
    class_index: int | None
    """Class on whose voxel the patch is centred, or that the whole volume is of; None where any would do."""
    start: Size
    """First voxel (D, H, W) before turning; negative where the patch is larger than the volume."""
    drawn: tuple[tuple[str, Any], ...]
    """Name of each transform and what it drew; None where it leaves the patch alone."""

    def __str__(self) -> str:
        where = "anywhere" if self.class_index is None else f"on class {self.class_index}"
        changes = ", ".join(f"{name} {drawn}" for name, drawn in self.drawn if drawn is not None)
        return (
            f"case {self.case_id}, patch {self.row + 1} of batch {self.step + 1}: from voxel {self.start}, "
            f"centred {where}; {changes or 'not augmented'}"
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """What one step trains on.

    image_BCDHW: float32, normalised.
    truth:       Segmentation: (B, D, H, W) uint8 class index, 255 where it does not count. Classification: (B, K)
                 float32 of 0 and 1.
    annotated:   (B, K) bool, classes that were labelled; None for all.
    draws:       One a row.
    """

    step: int
    image_BCDHW: Tensor
    truth: Tensor
    annotated: Tensor | None
    draws: tuple[PatchDraw, ...]

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Case of each row."""
        return tuple(draw.case_id for draw in self.draws)


class PatchSource:
    """Draws and makes the batches of a training.

    Of all rows ever made, counted on through the steps, the share `plan.foreground` is centred on a labelled
    voxel: evenly spread, so that with 0.5 each batch of two has exactly one. Such a row draws a class by
    `plan.class_weights`, then one of the cases that have it, then one of its voxels; a rare class is seen as
    often as its weight says, however few cases have it. The other rows draw a case and a place, all alike.
    """

    def __init__(
        self,
        cases: Sequence[PatchCase],
        plan: SamplingPlan,
        *,
        batch_size: int,
        labels: Labels,
        transforms: Sequence[Transform] = (),
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """Hold what batches are made of; nothing is read yet.

        Args:
            cases: Those of `plan.train`, in any order.
            plan: Patch size, share of foreground, weights of the classes.
            batch_size: Rows of a batch.
            labels: Which classes change places when a patch is mirrored.
            transforms: Augmentation, in the order of application; spatial ones are done together, first.
            seed: Of the run; with the step and the row it decides everything.
            device: Where patches are cut and augmented.

        Raises:
            DataError: a case of the plan is missing, or there is none.
        """
        by_id = {case.case_id: case for case in cases}
        missing = [case_id for case_id in plan.train if case_id not in by_id]
        if missing or not plan.train:
            raise DataError(
                f"training: {'no case is' if not plan.train else f'case {missing[0]} is not'} prepared; expected the "
                "cases of the sampling plan. Run the command again from the ingest stage."
            )
        self.cases, self.plan, self.batch_size, self.seed = by_id, plan, batch_size, seed
        self.transforms = for_labels(transforms, labels)
        self.device = torch.device(device)
        self._sides, self._own = side_table(labels), threading.local()
        self._foreground = Fraction(plan.foreground).limit_denominator(1000)
        self._class_cases = _cases_of_classes(plan, by_id)

    def draws(self, step: int) -> tuple[PatchDraw, ...]:
        """Draw the rows of a step, without reading any voxels but the points of classes."""
        return tuple(self._draw(step, row) for row in range(self.batch_size))

    def batch(self, step: int) -> Batch:
        """Make the batch of a step; safe from several threads.

        Called through `prefetch.InOrder` it is the same to the last bit whatever the number of torch's threads.

        Raises:
            DataError: a case cannot be read; the message names it.
        """
        if self.device.type != "cuda":
            return self._batch(step)
        if not hasattr(self._own, "stream"):
            self._own.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        # On a stream of this thread: on the common one each copy would wait for the training's kernels before it.
        with torch.cuda.stream(self._own.stream):
            batch = self._batch(step)
        self._own.stream.synchronize()
        for tensor in (batch.image_BCDHW, batch.truth, batch.annotated):
            if tensor is not None:  # its memory is not given out again before the training has read it
                tensor.record_stream(torch.cuda.default_stream(self.device))
        return batch

    def _batch(self, step: int) -> Batch:
        draws = self.draws(step)
        frames = [self._frame(draw) for draw in draws]
        rows = [self._make(draw, frame) for draw, frame in zip(draws, frames, strict=True)]
        images, truths = (torch.stack(parts) for parts in zip(*rows, strict=True))
        return Batch(step, images, truths, self._annotated(draws, frames), draws)

    def _annotated(self, draws: Sequence[PatchDraw], frames: Sequence[Frame]) -> Tensor | None:
        """Return (B, K) which classes were labelled in each row; None where all are in all."""
        cases = [self.cases[draw.case_id] for draw in draws]
        rows = [
            case.mirrored if frame.exchanges_sides else case.annotated
            for case, frame in zip(cases, frames, strict=True)
        ]
        width = max((len(row) for row in rows if row is not None), default=0)
        if not width:
            return None
        full = np.ones(width, bool)
        return torch.from_numpy(np.stack([full if row is None else row for row in rows])).to(self.device)

    def _draw(self, step: int, row: int) -> PatchDraw:
        random = generator(self.seed, step, row, stream=0)
        before = (step * self.batch_size + row) * self._foreground
        wants_foreground = int(before + self._foreground) > int(before)
        # Drawn whether needed or not, so that each number keeps its place.
        u_class, u_case, u_place = random.random(), random.random(), random.random(3)
        if wants_foreground and self._class_cases:
            class_index = _weighted(self._class_cases, u_class)
            case_id = _pick(self._class_cases[class_index][1], u_case)
            if self.cases[case_id].classes is None:
                start = self._around(case_id, self._point(case_id, class_index, u_place[0]))
            else:
                start = self._anywhere(case_id, u_place)
        else:
            class_index, case_id = None, _pick(self.plan.train, u_case)
            start = self._anywhere(case_id, u_place)
        drawn = tuple(
            (transform.name, transform.draw(generator(self.seed, step, row, stream=number)))
            for number, transform in enumerate(self.transforms, 1)
        )
        return PatchDraw(step, row, case_id, class_index, start, drawn)

    def _frame(self, draw: PatchDraw) -> Frame:
        spacing_mm = self.cases[draw.case_id].voxels.spacing_mm
        return place(draw.start, self.plan.patch_size, spacing_mm, self.transforms, _parameters(draw))

    def _make(self, draw: PatchDraw, frame: Frame) -> tuple[Tensor, Tensor]:
        case = self.cases[draw.case_id]
        try:
            box = read_box(case.voxels, frame, with_label=case.classes is None)
        except (OSError, RuntimeError, ValueError) as error:
            raise _unreadable(draw.case_id, error) from error
        image, truth = cut(box, case.windows, frame, self._sides, self.device)
        image = change_intensity(self.transforms, _parameters(draw), image)
        if case.classes is not None:
            truth = torch.from_numpy(case.classes).to(self.device)
        assert truth is not None
        return image, truth

    def _point(self, case_id: str, class_index: int, u: float) -> NDArray[np.int32]:
        try:
            points = self.cases[case_id].voxels.points[class_index]
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise _unreadable(case_id, error) from error
        voxel: NDArray[np.int32] = points[int(u * len(points))]
        return voxel

    def _around(self, case_id: str, voxel: NDArray[np.int32]) -> Size:
        """Centre a patch on a voxel, moved so that it stays inside where the volume is large enough."""
        size, shape = self.plan.patch_size, self.cases[case_id].voxels.shape
        starts = [_clamped(int(voxel[axis]) - size[axis] // 2, size[axis], shape[axis]) for axis in range(3)]
        return starts[0], starts[1], starts[2]

    def _anywhere(self, case_id: str, u: NDArray[np.float64]) -> Size:
        """Put a patch anywhere inside; in the middle along axes where the volume is smaller."""
        size, shape = self.plan.patch_size, self.cases[case_id].voxels.shape
        starts = [_clamped(int(u[axis] * (shape[axis] - size[axis] + 1)), size[axis], shape[axis]) for axis in range(3)]
        return starts[0], starts[1], starts[2]


def patch_cases(
    rows: Sequence[IngestedCase],
    opened: Mapping[str, Voxels],
    normalise: Sequence[Normalise],
    labels: Labels,
    class_names: Sequence[str],
    *,
    whole_volume: bool = False,
) -> list[PatchCase]:
    """Put together what training reads of each case.

    Args:
        rows: Training cases.
        opened: Case id -> its prepared volume.
        normalise: Fitted on the training cases, one a channel.
        labels: Regions, which count as labelled where all their members are.
        class_names: What the channels of the logits say.
        whole_volume: Classification: the truth is the class of the case, not its label volume.
    """
    found = []
    for row in rows:
        case, voxels = row.case, opened[row.case.case_id]
        windows = tuple(window(one, stats) for one, stats in zip(normalise, voxels.meta.stats, strict=True))
        classes = np.array([name in case.classes for name in class_names], np.float32) if whole_volume else None
        other = None if case.annotated is None else labels.mirrored(case.annotated)
        annotated, mirrored = (_annotated(names, labels, class_names) for names in (case.annotated, other))
        found.append(PatchCase(voxels, windows, annotated, classes, mirrored))
    return found


def generator(seed: int, step: int, row: int, stream: int) -> np.random.Generator:
    """Return the random numbers of one row of one step; each transform has a stream of its own.

    Changing the options of one transform therefore leaves the draws of all others as they were.
    """
    return np.random.Generator(np.random.Philox(key=[seed, step], counter=[0, 0, stream, row]))


def _parameters(draw: PatchDraw) -> Drawn:
    return tuple(parameters for _, parameters in draw.drawn)


def _unreadable(case_id: str, error: Exception) -> DataError:
    return DataError(
        f"case {case_id}: its prepared voxels cannot be read: {type(error).__name__}: {error}. "
        "Delete its folder in the cache; the next run makes it again."
    )


def _cases_of_classes(plan: SamplingPlan, cases: Mapping[str, PatchCase]) -> dict[int, tuple[float, tuple[str, ...]]]:
    """Return class index -> weight and the cases that have it; classes without weight or case are left out."""
    weights = plan.class_weights or dict.fromkeys(plan.cases_of_class, 1.0)
    found = {}
    for index in sorted(weights):
        having = tuple(
            case_id
            for case_id in plan.cases_of_class.get(index, ())
            if cases[case_id].classes is not None or (cases[case_id].voxels.meta.class_voxels or {}).get(index)
        )
        if having and weights[index] > 0:
            found[index] = (weights[index], having)
    return found


def _weighted(classes: Mapping[int, tuple[float, tuple[str, ...]]], u: float) -> int:
    """Return the class in which the part u of the summed weights lies."""
    left = u * sum(weight for weight, _ in classes.values())
    for index, (weight, _) in classes.items():
        left -= weight
        if left < 0:
            return index
    return list(classes)[-1]


def _pick(case_ids: Sequence[str], u: float) -> str:
    return case_ids[int(u * len(case_ids))]


def _clamped(start: int, size: int, extent: int) -> int:
    return min(max(start, 0), extent - size) if extent >= size else -((size - extent) // 2)


def _annotated(
    annotated: tuple[str, ...] | None, labels: Labels, class_names: Sequence[str]
) -> NDArray[np.bool_] | None:
    if annotated is None:
        return None
    known = {"background", *annotated}
    known |= {region for region, members in labels.regions.items() if known.issuperset(members)}
    return np.array([name in known for name in class_names])
