"""Evaluate: scores predicted masks against the reference, case by case, and sums up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pipeline.datasets.base import Case, Manifest
from pipeline.errors import ConfigError, DataError
from pipeline.imaging.labels import Labels
from pipeline.machine import Machine
from pipeline.metrics.base import MaskPair, Metric, metrics
from pipeline.metrics.classification import ClassMetric
from pipeline.metrics.columns import is_volume, label_of
from pipeline.metrics.scoring import class_members, score_case
from pipeline.metrics.summary import summarise
from pipeline.metrics.threshold import Load, best_thresholds, reads
from pipeline.metrics.volume import Volume
from pipeline.parallel import Job, failures, map_cases, refuse
from pipeline.postprocess.base import DECISION, PostProcess, postprocesses
from pipeline.progress import Bar, Progress
from pipeline.records import CaseTable, DatasetFacts, Evaluation, PredictionTable
from pipeline.stages.base import Stage, StageContext, stages
from pipeline.stages.choose_postprocess import MendJob, choose_postprocess, usual_candidates
from pipeline.stages.evaluate_classes import ClassOptions, evaluate_classes
from pipeline.workspace import write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

MetricField = Annotated[Metric, metrics]
PostProcessField = Annotated[PostProcess, postprocesses]

OUT_OF_FOLD, TEST, GIVEN = "out_of_fold", "test", "given"
"""Which predictions a row is of: of validation cases, of test cases, or made elsewhere."""

MASK_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")

_BASE_BYTES, _BYTES_PER_VOXEL = 200_000_000, 16
"""Memory to score a case: two masks, and for the largest class two surfaces and a distance map."""


@stages.register
class Evaluate(Stage):
    """Which figures to compute, and what the mean over classes is over."""

    name: Literal["evaluate"] = "evaluate"
    metrics: tuple[MetricField, ...] | None = None
    """Figures of merit, beside volumes; None for the usual ones of the task. The first one ranks the cases."""
    headline: tuple[str, ...] = ()
    """Classes that the mean over classes is over, the others being reported apart; all where empty."""
    threshold_baseline: bool = False
    """Whether to set beside each class what its best intensity window and the largest component reach."""
    postprocess: Literal["auto"] | tuple[PostProcessField, ...] = ()
    """Rules that are tried on out-of-fold masks, class by class, and kept for prediction where they raise the mean
    Dice; `auto` for the largest component and filled holes. The tables stay those of the masks as predicted."""

    calibrate: bool = False
    """Classification: whether probabilities are scaled by a temperature, fitted on predictions of other folds."""
    logistic_baseline: bool = False
    """Classification: whether to set beside it what logistic regression on the same voxels reaches."""
    compare_column: str | None = None
    """Classification: column of the data set whose numbers alone are set beside it, for the last class."""

    uses: ClassVar[tuple[str, ...]] = ("task",)
    needs: ClassVar[tuple[str, ...]] = ("survey", "ingest", "predict")
    gives: ClassVar[type[Evaluation]] = Evaluation

    def run(
        self, context: StageContext, *, survey: DatasetFacts, ingest: CaseTable, predict: list[PredictionTable]
    ) -> Evaluation:
        """Score every prediction that has a reference; those that failed are in no figure.

        Raises:
            ConfigError: `headline` names no class, or no prediction has a reference.
            DataError: a mask cannot be read or lies on another grid.
        """
        if not context.parts.task.reads_masks:
            return self._evaluate_classes(context, ingest, predict)
        known = tuple(class_members(ingest.labels))
        if unknown := [name for name in self.headline if name not in known]:
            raise ConfigError(
                f"evaluate.headline: no class called {', '.join(unknown)}; expected some of {', '.join(known)}."
            )
        chosen = with_volumes(context.parts.task.default_metrics() if self.metrics is None else self.metrics)
        jobs = list(_jobs(ingest, survey, predict))
        if not jobs:
            raise ConfigError(
                "evaluate: no prediction has a reference to be compared with. Give labels, or --until predict."
            )
        rows = score_all(jobs, ingest.labels, chosen, machine=context.machine, progress=context.progress)
        summary = summarise_sets(rows, self.headline)
        if self.threshold_baseline:
            cases = [job.case for job in jobs if job.case.annotated is None]
            summary["threshold_baseline"] = threshold_baseline(cases, ingest.labels, context.progress)
        if self.postprocess:
            summary["postprocess"] = self._choose(context, ingest.labels, jobs)
        return write_tables(context.folder, rows, summary)

    def _choose(self, context: StageContext, labels: Labels, jobs: Sequence[MaskJob]) -> dict[str, Any]:
        """Choose post-processing on the cases of other folds, and write it where prediction finds it."""
        unseen = [
            MendJob(job.case.case_id, job.prediction, job.case.label, job.fold, job.case.annotated, job.voxels)
            for job in jobs
            if job.fold is not None and job.case.label is not None
        ]
        tried = usual_candidates() if self.postprocess == "auto" else self.postprocess
        found = choose_postprocess(unseen, labels, tried, machine=context.machine, progress=context.progress)
        write_json(context.folder / DECISION, found)
        return found

    def _evaluate_classes(self, context: StageContext, ingest: CaseTable, predict: list[PredictionTable]) -> Evaluation:
        """Score whole volumes by their classes."""
        task = context.parts.task
        chosen = task.default_metrics() if self.metrics is None else self.metrics
        options = ClassOptions(self.calibrate, self.logistic_baseline, self.compare_column)
        return evaluate_classes(
            context.folder, context.machine.cache, ingest, predict,
            [metric for metric in chosen if isinstance(metric, ClassMetric)], options, exclusive=task.is_exclusive,
        )  # fmt: skip


@dataclass(frozen=True)
class MaskJob:
    """One predicted mask, the case that it is of, and which predictions it belongs to."""

    case: Case
    prediction: Path
    which: str = GIVEN
    fold: int | None = None
    voxels: int = 0
    """Of the case; 0 where unknown."""


def evaluate_folder(
    predictions: Path,
    manifest: Manifest,
    output: Path,
    metrics: Sequence[Metric],
    *,
    machine: Machine,
    progress: Progress,
) -> tuple[Evaluation, tuple[str, ...]]:
    """Score masks that were made elsewhere, by a peer or a rater, against the labels of a manifest.

    Args:
        predictions: Folder of masks `<case_id>.nii.gz` (or another format), with the label values of the manifest.
        manifest: Cases and the meaning of label values.
        output: Folder for `per_case.csv` and `summary.json`.
        metrics: Figures of merit, beside volumes.
        machine: How many cases at once.
        progress: Shows the bar.

    Returns:
        The evaluation, and the ids of labelled cases without a mask, which are in no figure.

    Raises:
        DataError: no mask fits a case, or some cannot be used.
    """
    found = {case.case_id: _mask_of(predictions, case.case_id) for case in manifest.cases if case.label is not None}
    jobs = [MaskJob(case, mask) for case in manifest.cases if (mask := found.get(case.case_id)) is not None]
    if not jobs:
        raise DataError(
            f"{predictions}: no mask of a labelled case of the manifest; expected files such as "
            f"{next(iter(found), 'CASE_ID')}.nii.gz. Name each mask after its case."
        )
    rows = score_all(jobs, manifest.labels, with_volumes(metrics), machine=machine, progress=progress)
    evaluation = write_tables(output, rows, summarise_sets(rows, ())).placed(output)
    return evaluation, tuple(case_id for case_id, mask in found.items() if mask is None)


def score_all(
    jobs: Sequence[MaskJob], labels: Labels, metrics: Sequence[Metric], *, machine: Machine, progress: Progress
) -> pd.DataFrame:
    """Score many cases in child processes.

    Returns:
        One row a case and class: `case_id, group, site, set, fold, class, presence`, then the columns of the
        metrics, in the order of the jobs and of the classes.

    Raises:
        DataError: some masks cannot be used; all are named.
    """
    import pandas as pd

    masks = [metric for metric in metrics if metric.kind is MaskPair]
    results = map_cases(
        partial(score_case, labels=labels, metrics=masks),
        [
            Job(job.case.case_id, (job.case.case_id, job.prediction, job.case.label, job.case.annotated),
                _BASE_BYTES + _BYTES_PER_VOXEL * job.voxels)
            for job in jobs
        ],
        workers=machine.worker_count(), memory_bytes=machine.memory_bytes(), what="score", progress=progress,
    )  # fmt: skip
    if bad := failures(results):
        raise refuse(bad, "Correct or remove these masks and evaluate again.")
    rows = []
    for job in jobs:
        about = {"group": job.case.patient, "site": job.case.site, "set": job.which, "fold": job.fold}
        rows += [{"case_id": job.case.case_id, **about, **row} for row in results[job.case.case_id]]
    return pd.DataFrame(rows).astype({"fold": "Int64"})


def with_volumes(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """Add volumes and their errors to the figures, last, unless they were named."""
    return tuple(metrics) if any(isinstance(metric, Volume) for metric in metrics) else (*metrics, Volume())


def summarise_sets(rows: pd.DataFrame, headline: Sequence[str]) -> dict[str, Any]:
    """Sum up out-of-fold, test and given predictions, each by itself: they come from different networks."""
    return {str(name): summarise(part, headline=headline) for name, part in rows.groupby("set", sort=False)}


def write_tables(folder: Path, rows: pd.DataFrame, summary: Mapping[str, Any]) -> Evaluation:
    """Write `per_case.csv` and `summary.json`, and pick the figures to show first."""
    write_text(folder / "per_case.csv", rows.to_csv(index=False, float_format="%.6g"))
    write_json(folder / "summary.json", summary)
    headline = {}
    for name, part in summary.items():
        if name in ("threshold_baseline", "postprocess"):
            continue
        prefix = "test, " if name == TEST else ""
        for column, mean in part["classes_mean"].items():
            if mean["mean"] is not None and not is_volume(column):
                headline[f"{prefix}mean {label_of(column)}"] = round(mean["mean"], 4)
    return Evaluation(headline=headline)


def threshold_baseline(cases: Sequence[Case], labels: Labels, progress: Progress) -> dict[str, dict[str, Any]]:
    """Find what the best intensity window of each class and the largest component reach, on native grids.

    The first channel is looked at. Cases in which only some classes were labelled should be left out.

    Returns:
        Class -> `low`, `high`, `mean` Dice and the number `n` of cases that have the class.
    """
    members = class_members(labels)
    with progress.bar(reads(len(cases)), "thresholds") as bar:
        found = best_thresholds([_loader(case, labels, bar) for case in cases], members) if cases else {}
    return {
        name: {
            "low": score.window.low,
            "high": score.window.high,
            "mean": score.mean if score.n else None,
            "n": score.n,
        }
        for name, score in found.items()
    }


def _jobs(ingest: CaseTable, survey: DatasetFacts, tables: Iterable[PredictionTable]) -> Iterator[MaskJob]:
    cases = ingest.by_id()
    for table in tables:
        for row in table.predictions:
            case = cases[row.case_id].case
            if row.failure or not row.mask or case.label is None:
                continue
            depth, height, width = survey.facts[row.case_id].geometry.shape
            which = OUT_OF_FOLD if row.fold is not None else TEST
            yield MaskJob(case, table.path(row.mask), which, row.fold, depth * height * width)


def _mask_of(folder: Path, case_id: str) -> Path | None:
    return next((path for ending in MASK_ENDINGS if (path := folder / f"{case_id}{ending}").is_file()), None)


def _loader(case: Case, labels: Labels, bar: Bar) -> Load:
    from pipeline.imaging.read import read_case

    def load() -> Any:
        volumes, indices = read_case(case.images, case.label, labels, case_id=case.case_id)
        bar.advance(note=case.case_id)
        assert indices is not None
        return next(iter(volumes.values())).voxels[0], indices.voxels[0]

    return load
