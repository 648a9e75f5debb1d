"""Predict: applies trained models to the cases that they were not trained on."""

import time
from collections.abc import Sequence
from typing import ClassVar, Literal

from pipeline.errors import PipelineError
from pipeline.imaging.block_store import BlockCase
from pipeline.imaging.write import write_mask
from pipeline.learning.classify import classify_blocks, fits_one_window
from pipeline.learning.precision import choose_device, ran_out_of_memory
from pipeline.learning.predictor import Prediction, PredictOptions, Predictor, load_trained
from pipeline.machine import peak_memory_mb
from pipeline.progress import Bar
from pipeline.records import CasePrediction, CaseTable, IngestedCase, PredictionTable, TrainedModel
from pipeline.stages.base import Stage, StageContext, stages
from pipeline.stages.prepared import open_prepared
from pipeline.workspace import write_text


@stages.register
class Predict(Stage, PredictOptions):
    """How windows cover a volume and how models are combined."""

    name: Literal["predict"] = "predict"

    per_fold: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("ingest", "train")
    gives: ClassVar[type[PredictionTable]] = PredictionTable

    def run(self, context: StageContext, *, ingest: CaseTable, train: list[TrainedModel]) -> PredictionTable:
        """Predict the validation cases of a fold, or with no fold the test cases, by all models together.

        Every mask lies on the grid of its input. A case that fails is a row with its reason.
        """
        case_ids = ingest.test_ids if context.fold is None else ingest.fold_ids(context.fold)[1]
        predictor = Predictor(
            [load_trained(model) for model in train],
            self,
            device=choose_device(context.machine.device),
            memory_limit=context.machine.memory_bytes() // 2,
            scratch=context.folder,
        )
        rows = ingest.by_id()
        with context.progress.bar(len(case_ids), "predict") as bar:
            at_once = _predict_blocks(context, predictor, [rows[case_id] for case_id in case_ids], bar)
            made = []
            for case_id in case_ids:
                if case_id in at_once:
                    made.append(at_once[case_id])
                    continue
                made.append(_predict_case(context, predictor, rows[case_id]))
                bar.advance(note=case_id)
        return PredictionTable(predictions=tuple(made), ensemble=context.fold is None)


def _predict_blocks(
    context: StageContext, predictor: Predictor, rows: Sequence[IngestedCase], bar: Bar
) -> dict[str, CasePrediction]:
    """Return the rows of the cases that share a file with others, many in one pass."""
    opened = open_prepared(context.machine.cache, [row for row in rows if row.index is not None])
    cases = [case for case in opened.values() if isinstance(case, BlockCase) and fits_one_window(predictor, case)]
    if not cases:
        return {}
    started = time.perf_counter()
    probabilities = classify_blocks(predictor, cases, bar.advance)
    seconds = round((time.perf_counter() - started) / len(cases), 6)
    return {
        case.case_id: CasePrediction(
            case_id=case.case_id, fold=context.fold, probabilities=tuple(row.tolist()), seconds=seconds
        )
        for case, row in zip(cases, probabilities, strict=True)
    }


def _predict_case(context: StageContext, predictor: Predictor, row: IngestedCase) -> CasePrediction:
    """Return the row of one case, from disk where an interrupted run made it."""
    case_id = row.case.case_id
    note = context.folder / "rows" / f"{case_id}.json"
    if note.exists():
        return CasePrediction.model_validate_json(note.read_text())
    started = time.perf_counter()
    try:
        prediction = predictor.predict(row.case.images, case_id)
    except PipelineError as error:
        return CasePrediction(case_id=case_id, fold=context.fold, failure=str(error))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not ran_out_of_memory(error):
            raise
        failure = f"case {case_id}: memory ran out while it was predicted. Allow smaller windows, or free some memory."
        return CasePrediction(case_id=case_id, fold=context.fold, failure=failure)
    made = CasePrediction(
        case_id=case_id,
        fold=context.fold,
        mask=_write(context, prediction),
        probabilities=tuple(prediction.probabilities.values()),
        seconds=round(time.perf_counter() - started, 3),
        peak_memory_mb=round(prediction.peak_memory_mb or peak_memory_mb(), 1),
    )
    write_text(note, made.model_dump_json())
    return made


def _write(context: StageContext, prediction: Prediction) -> str:
    if prediction.mask is None:
        return ""
    name = f"masks/{prediction.case_id}.nii.gz"
    write_mask(prediction.mask, prediction.geometry, context.folder / name)
    return name
