"""Report: tells the whole run on one self-contained page."""

from typing import ClassVar, Literal

from pydantic import NonNegativeInt

from pipeline.records import CaseTable, DatasetFacts, Evaluation, PredictionTable, Report, SamplingPlan, TrainedModel
from pipeline.stages.base import Stage, StageContext, stages
from pipeline.workspace import write_text


@stages.register
class MakeReport(Stage):
    """What the report shows beside figures."""

    name: Literal["report"] = "report"
    pictures: NonNegativeInt = 3
    """Cases to picture: with 3 the best, the median and the worst; more lie evenly between; 0 for none."""

    uses: ClassVar[tuple[str, ...]] = ("dataset", "task", "network", "folds")
    needs: ClassVar[tuple[str, ...]] = ("survey", "ingest", "sample", "train", "predict", "evaluate")
    gives: ClassVar[type[Report]] = Report

    def run(
        self,
        context: StageContext,
        *,
        survey: DatasetFacts,
        ingest: CaseTable,
        sample: list[SamplingPlan],
        train: list[TrainedModel],
        predict: list[PredictionTable],
        evaluate: Evaluation,
    ) -> Report:
        """Write `report.html`."""
        from pipeline.stages.report.collect import Inputs, collect
        from pipeline.stages.report.layout import build_page
        from pipeline.stages.report.page import render

        inputs = Inputs(survey, ingest, tuple(sample), tuple(train), tuple(predict), evaluate)
        data = collect(context, inputs, pictures=self.pictures)
        write_text(context.folder / "report.html", render(build_page(data)))
        return Report()
