"""Ingest: brings every case to one orientation and spacing, and divides the cases into folds."""

import json
import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from pipeline.datasets.base import Case
from pipeline.datasets.folds import make_folds, write_folds_csv
from pipeline.errors import plural
from pipeline.imaging.facts import CaseFacts
from pipeline.imaging.ingest import ingest_case
from pipeline.imaging.prepare import PrepareOptions
from pipeline.imaging.store import CaseMeta
from pipeline.parallel import Failure, Job, failures, map_cases, refuse
from pipeline.provenance import digest
from pipeline.records import CaseTable, DatasetFacts, IngestedCase
from pipeline.stages.base import Stage, StageContext, stages
from pipeline.stages.prepared import ingest_blocks, split_blocks

_BYTES_A_VOXEL = 24
"""Peak memory of preparing a case, a native voxel: input, float working copy, output, label."""
_BASE_BYTES = 300_000_000


@stages.register
class Ingest(Stage, PrepareOptions):
    """Voxel size, crop, and what to do with bad cases."""

    name: Literal["ingest"] = "ingest"
    spacing_mm: tuple[Annotated[float, Field(gt=0)], ...] | Literal["auto"] | None = "auto"  # type: ignore[assignment]
    """Voxel size along (D, H, W) in mm; `auto`: the median of the cases; none: each case keeps its own."""
    on_bad_case: Literal["refuse", "drop"] = "refuse"
    """Whether a bad case stops the run before any work, or is left out and named at the end."""

    uses_seed: ClassVar[bool] = True
    uses: ClassVar[tuple[str, ...]] = ("folds",)
    needs: ClassVar[tuple[str, ...]] = ("survey",)
    gives: ClassVar[type[CaseTable]] = CaseTable

    @property
    def prepare(self) -> PrepareOptions:
        """The part that inference needs too."""
        return PrepareOptions.model_validate({name: getattr(self, name) for name in PrepareOptions.model_fields})

    def run(self, context: StageContext, *, survey: DatasetFacts) -> CaseTable:
        """Prepare every usable case and make the folds.

        Raises:
            DataError: cases cannot be used, all named, and `on_bad_case` is `refuse`; a group is in two folds.
        """
        self._refuse(survey.bad)
        manifest = survey.manifest
        cases = [case for case in manifest.cases if case.case_id in survey.facts]
        folds = make_folds(cases, context.parts.folds, context.seed, label_volumes(survey))
        blocks, single = split_blocks(cases)
        entries = {case.case_id: _entry(case, survey, self.prepare) for case in single}
        root = context.machine.cache / "cases"
        jobs = [
            Job(
                case.case_id,
                (
                    {channel: case.images.get(channel) for channel in manifest.channels},
                    case.label,
                    manifest.labels,
                    case.case_id,
                    self.prepare,
                    root / entries[case.case_id],
                ),
                _memory(survey.facts[case.case_id]),
            )
            for case in single
        ]
        shapes = map_cases(
            ingest_case, jobs, workers=context.machine.worker_count(), memory_bytes=context.machine.memory_bytes(),
            what="prepare cases", progress=context.progress,
        )  # fmt: skip
        bad = failures(shapes)
        self._refuse(bad)
        of_blocks = ingest_blocks(blocks, survey, self.prepare, root)
        cases = [case for case in cases if not isinstance(shapes.get(case.case_id), Failure)]
        write_folds_csv(context.folder / "folds.csv", cases, folds)
        return CaseTable(
            cases=tuple(
                IngestedCase(
                    case=case,
                    fold=folds.get(case.case_id),
                    **of_blocks.get(case.case_id) or {"entry": entries[case.case_id], "shape": shapes[case.case_id]},
                )
                for case in cases
            ),
            labels=manifest.labels,
            channels=manifest.channels,
            optional_channels=manifest.optional_channels,
            class_names=manifest.class_names,
            prepare=self.prepare,
            metadata=manifest.metadata,
            dropped=survey.bad | bad,
        )

    def _refuse(self, bad: dict[str, str]) -> None:
        if bad and self.on_bad_case == "refuse":
            raise refuse(bad, f"Mend {plural(len(bad), 'case')}, or go on without with --set ingest.on_bad_case=drop.")


def label_volumes(survey: DatasetFacts) -> dict[str, dict[str, float]]:
    """Return case id -> volume of each class in ml, as folds are balanced by."""
    return {
        case_id: {name: found.volume_ml for name, found in facts.classes.items()}
        for case_id, facts in survey.facts.items()
    }


def _entry(case: Case, survey: DatasetFacts, prepare: PrepareOptions) -> str:
    """Name the entry of a case by everything that decides its content."""
    facts = survey.facts[case.case_id]
    key = digest(
        [
            CaseMeta.model_fields["format"].default,
            case.case_id,
            [
                [name, facts.channels[name].sha256 if name in facts.channels else None]
                for name in survey.manifest.channels
            ],
            facts.label_sha256,
            json.loads(survey.manifest.labels.model_dump_json()),
            prepare.model_dump(mode="json"),
        ]
    )
    return f"{case.case_id}-{key[:16]}"


def _memory(facts: CaseFacts) -> int:
    return _BASE_BYTES + _BYTES_A_VOXEL * math.prod(facts.geometry.shape) * len(facts.channels)
