"""Sample: decides which patches a training draws, and shows some."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveInt

from pipeline.errors import ConfigError
from pipeline.imaging.labels import IGNORE, Labels
from pipeline.imaging.store import CaseMeta
from pipeline.records import CaseTable, IngestedCase, SamplingPlan
from pipeline.stages.base import Stage, StageContext, stages
from pipeline.stages.prepared import Prepared, open_prepared


@stages.register
class Sample(Stage):
    """Patch size, and how often patches are centred on what."""

    name: Literal["sample"] = "sample"
    patch_size: tuple[PositiveInt, PositiveInt, PositiveInt] | Literal["auto"] = "auto"
    """Voxels of a patch along (D, H, W), also the window of inference; `auto`: the form of the median case."""
    foreground: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the patches that are centred on a labelled voxel; the others lie anywhere. Without masks: share of
    the rows that draw a class first and then a case of it (balanced sampling); the others draw from all cases."""
    balance: Literal["equal", "present", "volume"] = "equal"
    """Which class such a patch is of: each equally often, as often as cases have it, or by volume."""

    version: ClassVar[int] = 2
    per_fold: ClassVar[bool] = True
    uses: ClassVar[tuple[str, ...]] = ("task",)
    needs: ClassVar[tuple[str, ...]] = ("ingest",)
    gives: ClassVar[type[SamplingPlan]] = SamplingPlan

    def run(self, context: StageContext, *, ingest: CaseTable) -> SamplingPlan:
        """Make the plan of one fold.

        Raises:
            ConfigError: nothing is left to train on.
        """
        train, validation = ingest.fold_ids(context.fold)
        rows = ingest.by_id()
        stored = open_prepared(context.machine.cache, [rows[case_id] for case_id in train])
        if context.parts.task.reads_masks:
            train = tuple(case_id for case_id in train if stored[case_id].meta.class_voxels is not None)
        else:
            train = tuple(case_id for case_id in train if context.parts.task.has_truth(rows[case_id].case.classes))
        if not train:
            raise ConfigError(f"fold {context.fold}: no labelled case is left to train on. Use fewer folds.")
        metas = {case_id: stored[case_id].meta for case_id in train}
        if context.parts.task.reads_masks:
            having = _cases_of_class(metas, ingest.labels)
        else:
            having = _cases_of_name([rows[case_id] for case_id in train], ingest.class_names)
        if self.patch_size == "auto":
            raise ConfigError("sample.patch_size: found 'auto'; expected three numbers, which a run fills in.")
        plan = SamplingPlan(
            train=train,
            validation=validation,
            patch_size=self.patch_size,
            foreground=self.foreground if having else 0.0,
            class_weights=self._weights(having, metas),
            cases_of_class=having,
        )
        if context.parts.task.reads_masks:
            _draw_patches(context, plan, stored, ingest.labels)
        return plan

    def _weights(self, having: dict[int, tuple[str, ...]], metas: dict[str, CaseMeta]) -> dict[int, float]:
        """Return the share of each class, summing to 1."""
        if self.balance == "equal":
            raw = dict.fromkeys(having, 1.0)
        elif self.balance == "present":
            raw = {index: float(len(cases)) for index, cases in having.items()}
        elif not any(meta.class_voxels for meta in metas.values()):
            raise ConfigError("sample.balance: found 'volume', but no case has a label volume. Use equal or present.")
        else:
            raw = {
                index: float(sum((metas[c].class_voxels or {})[index] for c in cases))
                for index, cases in having.items()
            }
        total = sum(raw.values())
        return {index: weight / total for index, weight in raw.items()}


def _cases_of_class(metas: dict[str, CaseMeta], labels: Labels) -> dict[int, tuple[str, ...]]:
    """Foreground class index -> the training cases that have a voxel of it."""
    found: dict[int, list[str]] = {}
    for case_id, meta in metas.items():
        for index, count in sorted((meta.class_voxels or {}).items()):
            if index not in (0, IGNORE) and count:
                found.setdefault(index, []).append(case_id)
    return {index: tuple(found[index]) for index in sorted(found)}


def _cases_of_name(rows: Sequence[IngestedCase], class_names: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Class of whole volumes by its place in the names -> the training cases that are of it."""
    found = {
        index: tuple(row.case.case_id for row in rows if name in row.case.classes)
        for index, name in enumerate(class_names)
    }
    return {index: cases for index, cases in found.items() if cases}


def _draw_patches(context: StageContext, plan: SamplingPlan, stored: Mapping[str, Prepared], labels: Labels) -> None:
    """Write `patches.png`: one patch a class, cut at its centre, with the labels on top."""
    from pipeline.stages.pictures import patch_sheet

    tiles = []
    random = np.random.Generator(np.random.Philox(key=[context.seed, (context.fold or 0) + 1]))
    for index, cases in list(plan.cases_of_class.items())[:8]:
        case = stored[cases[int(random.integers(len(cases)))]]
        points = case.points[index]
        tiles.append((labels.classes[index], *_patch(case, points[int(random.integers(len(points)))], plan.patch_size)))
    if tiles:
        (context.folder / "patches.png").write_bytes(patch_sheet(tiles, labels.classes))


def _patch(case: Prepared, centre: Any, size: tuple[int, int, int]) -> tuple[Any, Any, tuple[float, float, float]]:
    start = [int(np.clip(c - n // 2, 0, max(0, full - n))) for c, n, full in zip(centre, size, case.shape, strict=True)]
    stop = [min(begin + n, full) for begin, n, full in zip(start, size, case.shape, strict=True)]
    return case.read(start, stop)[0], case.read_label(start, stop), case.spacing_mm
