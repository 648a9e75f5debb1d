"""Survey: looks at every case once and remembers what it saw, by content."""

import json
from collections.abc import Sequence
from typing import ClassVar, Literal

from pipeline.datasets.base import Case, Dataset, Manifest, write_files_of
from pipeline.datasets.dicom_series import refused_folders
from pipeline.errors import ConfigError, PipelineError, join_problems
from pipeline.imaging.facts import CaseFacts, survey_case
from pipeline.imaging.labels import Labels
from pipeline.parallel import Failure, Job, failures, map_cases
from pipeline.provenance import FileHashes, digest
from pipeline.records import DatasetFacts
from pipeline.stages.base import Stage, StageContext, stages
from pipeline.stages.prepared import split_blocks, survey_blocks
from pipeline.workspace import write_text

_BYTES_PER_FILE_BYTE = 40
"""Peak memory while a case is looked at, against the size of its compressed files."""
_BASE_BYTES = 300_000_000


@stages.register
class Survey(Stage):
    """Grid, intensities, label volumes and content of each case."""

    name: Literal["survey"] = "survey"
    uses: ClassVar[tuple[str, ...]] = ("dataset", "labels", "task")
    gives: ClassVar[type[DatasetFacts]] = DatasetFacts

    def run(self, context: StageContext) -> DatasetFacts:
        """Look at every case; unusable ones are listed with their reasons, not raised."""
        manifest = _with_labels(context.parts.dataset.cases(), context.parts.labels, context.parts.task.reads_masks)
        _make_files(context, manifest)
        blocks, single = split_blocks(manifest.cases)
        refused = refused_folders(single)
        single = [case for case in single if case.case_id not in refused]
        keys = _keys(context, manifest.labels, single)
        cached = {case_id: _read(context, key) for case_id, key in keys.items()}
        jobs = [
            Job(case.case_id, (case.images, case.label, manifest.labels, case.case_id), _memory(case))
            for case in single
            if cached[case.case_id] is None
        ]
        found = map_cases(
            survey_case, jobs, workers=context.machine.worker_count(), memory_bytes=context.machine.memory_bytes(),
            what="look at cases", progress=context.progress,
        )  # fmt: skip
        found |= survey_blocks(blocks)
        for case_id, facts in found.items():
            if case_id in keys and not isinstance(facts, Failure):
                write_text(context.machine.cache / "facts" / f"{keys[case_id]}.json", facts.model_dump_json())
        seen = {case_id: facts for case_id, facts in (cached | found).items() if isinstance(facts, CaseFacts)}
        return DatasetFacts(manifest=manifest, facts=seen, bad=failures(found) | refused)


def _with_labels(manifest: Manifest, labels: Labels, reads_masks: bool) -> Manifest:
    """Let the config's labels replace those of the data set; a task on masks needs some."""
    if labels:
        problems = [
            f"case {case.case_id}: annotated names {name!r}, which is no label of the config; labels: "
            f"{', '.join(labels.classes)}. Name it there, or correct the case."
            for case in manifest.cases
            for name in case.annotated or ()
            if name not in labels.classes
        ]
        if problems:
            raise ConfigError(join_problems("labels", problems))
        return manifest.model_copy(update={"labels": labels})
    if not manifest.labels and reads_masks:
        raise ConfigError(
            "labels: neither the config nor the data set says what the label values mean; expected for example "
            "'labels: {0: background, 1: liver}'. Add it to the config, or to the YAML beside the manifest."
        )
    return manifest


def _make_files(context: StageContext, manifest: Manifest) -> None:
    dataset: Dataset = context.parts.dataset
    if not dataset.makes_files:
        return
    blocks, single = split_blocks(manifest.cases)
    cases = [*single, *{block.file: members[0][0] for block, members in blocks.items()}.values()]
    made = map_cases(
        write_files_of, [Job(case.case_id, (dataset, case)) for case in cases],
        workers=context.machine.worker_count(), memory_bytes=context.machine.memory_bytes(),
        what="make volumes", progress=context.progress,
    )  # fmt: skip
    for message in failures(made).values():
        raise PipelineError(message)


def _keys(context: StageContext, meaning: Labels, cases: Sequence[Case]) -> dict[str, str]:
    """Case id -> what its facts depend on: the contents of its files and the meaning of its labels."""
    hashes = FileHashes(context.machine.cache / "hashes")
    labels = meaning.model_dump(mode="json")
    return {
        case.case_id: digest(
            [
                Survey.version,
                {channel: [path.name, hashes.sha256(path)] for channel, path in case.images.items()},
                [case.label.name, hashes.sha256(case.label)] if case.label else None,
                labels,
            ]
        )
        for case in cases
    }


def _read(context: StageContext, key: str) -> CaseFacts | None:
    try:
        return CaseFacts.model_validate(json.loads((context.machine.cache / "facts" / f"{key}.json").read_text()))
    except (OSError, ValueError):
        return None


def _memory(case: Case) -> int:
    files = [*case.images.values(), *([case.label] if case.label else [])]
    size = sum(file.stat().st_size for file in files if file.is_file())
    return _BASE_BYTES + _BYTES_PER_FILE_BYTE * size
