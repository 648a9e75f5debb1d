"""Batches of whole small volumes that lie in memory, drawn and made a batch at a time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError
from pipeline.imaging.block_store import BlockCase
from pipeline.imaging.compiled import compiled
from pipeline.imaging.labels import Labels
from pipeline.learning import gather
from pipeline.learning.augment import change_intensity
from pipeline.learning.patches import Batch, PatchCase, PatchDraw, PatchSource
from pipeline.learning.turns import turns_of
from pipeline.records import SamplingPlan
from pipeline.transforms.base import Transform
from pipeline.transforms.spatial import for_labels


def source_of(
    cases: Sequence[PatchCase],
    plan: SamplingPlan,
    *,
    batch_size: int,
    labels: Labels,
    transforms: Sequence[Transform],
    seed: int,
    device: torch.device,
) -> "PatchSource | VolumeSource":
    """Return what makes the batches of a training.

    Where every case is a volume of a block and is as large as a patch there is no place to draw, and thousands of
    them come a second: `VolumeSource`. All else: `PatchSource`.
    """
    whole = all(isinstance(case.voxels, BlockCase) and case.voxels.shape == plan.patch_size for case in cases)
    kind = VolumeSource if cases and whole and all(case.classes is not None for case in cases) else PatchSource
    return kind(
        cases, plan, batch_size=batch_size, labels=labels, transforms=transforms, seed=seed, device=device
    )  # fmt: skip


class VolumeSource:
    """Draws and makes batches of whole volumes: as `PatchSource`, but all rows of a step from one generator.

    That generator is keyed with (seed, step), so a batch is a pure function of both. Of all rows, the share
    `plan.foreground` draws a class by `plan.class_weights` and then one of its cases; the others draw a case.
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
        """Put the volumes side by side.

        Args:
            cases: Volumes of blocks, with their classes.
            plan: Its patch size is that of the volumes.
            batch_size: Rows of a batch.
            labels: Which classes change places when a volume is mirrored.
            transforms: Augmentation, in the order of application; spatial ones are done together, first.
            seed: Of the run; with the step it decides everything.
            device: Where batches go.

        Raises:
            DataError: there is no case, or one has no class.
        """
        if not cases:
            raise DataError("training: no case is prepared; expected some. Run again from the ingest stage.")
        self.case_ids = [case.case_id for case in cases]
        self.voxels = np.concatenate([case.voxels.read((0, 0, 0), case.voxels.shape)[None] for case in cases])
        self.windows = np.array(
            [[(w.lower, w.upper, w.shift, w.scale, w.background) for w in case.windows] for case in cases], np.float32
        )  # (N, C, 5)
        self.truth = np.stack([_classes(case) for case in cases])
        self.size, self.batch_size, self.seed = plan.patch_size, batch_size, seed
        self.transforms = for_labels(transforms, labels)
        self.device = torch.device(device)
        self.foreground = plan.foreground
        self.weights, self.members = _members(plan, self.case_ids)

    def batch(self, step: int) -> Batch:
        """Make the batch of a step; safe from several threads."""
        random = np.random.Generator(np.random.Philox(key=[self.seed, step]))
        rows, classes = self._rows(random)
        drawn = [[transform.draw(random) for transform in self.transforms] for _ in rows]
        image = torch.from_numpy(self._cut(rows, drawn))
        if not all(transform.spatial for transform in self.transforms):
            for number, changes in enumerate(drawn):
                change_intensity(self.transforms, tuple(changes), image[number])
        return Batch(
            step, image.to(self.device), torch.from_numpy(self.truth[rows]).to(self.device), None,
            tuple(self._note(step, number, row, classes[number], drawn[number]) for number, row in enumerate(rows)),
        )  # fmt: skip

    def _rows(self, random: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw which cases, and the class that each was drawn for; -1 for none."""
        u = random.random((3, self.batch_size))
        rows = (u[0] * len(self.case_ids)).astype(np.int64)
        classes = np.full(self.batch_size, -1)
        if self.foreground and self.members:
            classes = np.where(u[1] < self.foreground, np.searchsorted(self.weights, u[2], side="right"), -1)
            for number in np.flatnonzero(classes >= 0):
                members = self.members[min(classes[number], len(self.members) - 1)]
                rows[number] = members[int(u[0, number] * len(members))]
        return rows, classes

    def _cut(self, rows: NDArray[np.int64], drawn: Sequence[Sequence[Any]]) -> NDArray[np.float32]:
        """Normalise the volumes, then turn them; (B, C, D, H, W)."""
        numbers = self.windows[rows]
        lower, upper, shift, scale, _ = np.moveaxis(numbers, -1, 0)[..., None, None, None]
        image = np.clip(self.voxels[rows].astype(np.float32, copy=False), lower, upper)
        image -= shift
        image *= scale
        matrices = turns_of(self.transforms, drawn)
        if matrices is None:
            return image
        half = (np.array(self.size) - 1) / 2
        turned = np.empty_like(image)
        _turn_rows(image, matrices, half - matrices @ half, np.ascontiguousarray(numbers[:, :, 4]), turned)
        return turned

    def _note(self, step: int, number: int, row: int, index: int, drawn: Sequence[Any]) -> PatchDraw:
        names = tuple((transform.name, each) for transform, each in zip(self.transforms, drawn, strict=True))
        return PatchDraw(step, number, self.case_ids[row], None if index < 0 else int(index), (0, 0, 0), names)


@compiled()
def _turn_rows(
    images: NDArray[np.float32],
    matrices: NDArray[np.float64],
    offsets: NDArray[np.float64],
    backgrounds: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Interpolate each row of (B, C, D, H, W) at its own places."""
    for row in range(len(images)):
        gather.gather_image(images[row], matrices[row], offsets[row], backgrounds[row], out[row])


def _classes(case: PatchCase) -> NDArray[np.float32]:
    if case.classes is None:
        raise DataError(f"case {case.case_id}: has no class; expected one. Fill in the manifest's column 'class'.")
    return case.classes


def _members(plan: SamplingPlan, case_ids: Sequence[str]) -> tuple[NDArray[np.float64], list[NDArray[np.int64]]]:
    """Return the summed weights of the classes, ending with 1, and the cases of each."""
    place = {case_id: row for row, case_id in enumerate(case_ids)}
    weights = plan.class_weights or dict.fromkeys(plan.cases_of_class, 1.0)
    chosen = [index for index in sorted(plan.cases_of_class) if weights.get(index, 0) > 0]
    summed = np.cumsum([weights[index] for index in chosen])
    members = [np.array([place[case_id] for case_id in plan.cases_of_class[index]]) for index in chosen]
    return summed / summed[-1] if chosen else summed, members


def as_tensor(case: PatchCase) -> Tensor:
    """Return one case whole and normalised, (C, D, H, W) float32."""
    raw = case.voxels.read((0, 0, 0), case.voxels.shape)
    return torch.from_numpy(np.stack([one.apply(channel) for one, channel in zip(case.windows, raw, strict=True)]))
