"""A small finished run on disk, made without training: cases, labels, predicted masks and their records."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline.datasets.base import Case, Manifest
from pipeline.imaging.facts import survey_case
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import HuWindow
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image, write_mask
from pipeline.machine import Machine
from pipeline.progress import Progress
from pipeline.records import (
    CasePrediction,
    CaseTable,
    DatasetFacts,
    IngestedCase,
    PredictionTable,
    SamplingPlan,
    TrainedModel,
)
from pipeline.stages.base import Parts, StageContext

LABELS = Labels.model_validate({0: "background", 3: "liver", 7: "kidney"})
GEOMETRY = Geometry(shape=(12, 20, 24), spacing_mm=(3.0, 1.5, 1.5), origin=(5.0, -7.0, 11.0))


@dataclass(frozen=True)
class MadeRun:
    """Records and folders of the run."""

    folder: Path
    survey: DatasetFacts
    ingest: CaseTable
    predict: list[PredictionTable]
    train: list[TrainedModel]
    sample: list[SamplingPlan]

    @staticmethod
    def label(number: int) -> np.ndarray:
        """Return the label of a case, in file values."""
        return made_label(number)

    @staticmethod
    def prediction(number: int) -> np.ndarray:
        """Return the predicted mask of a case, in file values."""
        return made_prediction(number)

    def context(self, name: str, **parts: object) -> StageContext:
        """Return what the stage called `name` is given."""
        folder = self.folder / f"{name}-0a1b2c3d"
        folder.mkdir(exist_ok=True)
        return StageContext(
            folder=folder, parts=Parts.model_construct(**parts), machine=Machine(workers=1), seed=0, fold=None,
            progress=Progress(), run_name="tiny", config_yaml="seed: 0\n",
        )  # fmt: skip


def made_label(number: int) -> np.ndarray:
    """Two boxes in file values; case 4 has no kidney."""
    label = np.zeros(GEOMETRY.shape, np.uint8)
    label[2:8, 4:12, 4 : 11 + number] = 3
    if number != 4:
        label[6:10, 13:18, 13:18] = 7
    return label


def made_prediction(number: int) -> np.ndarray:
    """The label moved by as many voxels as the case's number; case 2 misses the kidney."""
    prediction = np.roll(made_label(number), number % 3, axis=1)
    if number == 2:
        prediction[prediction == 7] = 0
    return prediction


@pytest.fixture
def made_run(tmp_path: Path) -> MadeRun:
    """Six cases of four patients in two folds, and a seventh for testing that two models predicted."""
    random = np.random.default_rng(0)
    rows, facts, predictions = [], {}, {"fold0": [], "fold1": [], "test": []}
    for number in range(7):
        case_id = f"case_{number}"
        voxels = (random.normal(0, 30, GEOMETRY.shape) + made_label(number) * 40).astype(np.int16)
        image, label = tmp_path / "data" / f"{case_id}.nii.gz", tmp_path / "data" / f"{case_id}_label.nii.gz"
        write_image(Volume(voxels[None], GEOMETRY), image)
        write_mask(made_label(number), GEOMETRY, label)
        is_test = number == 6
        fold = None if is_test else number % 2
        case = Case(
            case_id=case_id, images={"image": image}, label=label, group=f"p{min(number, 3)}" if not is_test else "p9",
            site="A", split="test" if is_test else "", annotated=("liver",) if number == 5 else None,
        )  # fmt: skip
        rows.append(IngestedCase(case=case, fold=fold, entry=case_id, shape=GEOMETRY.shape))
        facts[case_id] = survey_case(case.images, case.label, LABELS, case_id)
        place = "test" if is_test else f"fold{fold}"
        folder = tmp_path / f"predict-{place}-0a1b2c3d"
        write_mask(made_prediction(number), GEOMETRY, folder / "masks" / f"{case_id}.nii.gz")
        predictions[place].append(CasePrediction(case_id=case_id, fold=fold, mask=f"masks/{case_id}.nii.gz"))
    manifest = Manifest(cases=tuple(row.case for row in rows), labels=LABELS)
    tables = [
        PredictionTable(predictions=tuple(made), ensemble=place == "test").placed(
            tmp_path / f"predict-{place}-0a1b2c3d"
        )
        for place, made in predictions.items()
    ]
    return MadeRun(
        folder=tmp_path,
        survey=_placed(DatasetFacts(manifest=manifest, facts=facts), tmp_path / "survey-0a1b2c3d"),
        ingest=_placed(
            CaseTable.model_construct(
                cases=tuple(rows), labels=LABELS, channels=("image",), class_names=(), dropped={"case_9": "damaged"}
            ),
            tmp_path / "ingest-0a1b2c3d",
        ),
        predict=tables,
        train=[_model(tmp_path, fold) for fold in range(2)],
        sample=[_plan(tmp_path, fold) for fold in range(2)],
    )


def _placed(record, folder: Path):
    folder.mkdir(exist_ok=True)
    (folder / "cost.json").write_text(json.dumps({"seconds": 1.5, "peak_memory_mb": 300.0}))
    return record.placed(folder)


def _model(root: Path, fold: int) -> TrainedModel:
    folder = root / f"train-fold{fold}-0a1b2c3d"
    folder.mkdir()
    epochs = np.arange(1, 5)
    history = {"epoch": epochs, "step": epochs * 5, "rate": 0.01, "loss": 1 / epochs, "gradient_norm": 1.0}
    pd.DataFrame(history | {"dice": [np.nan, 0.5, np.nan, 0.7], "dice_liver": 0.6}).to_csv(
        folder / "history.csv", index=False
    )
    model = TrainedModel.model_construct(
        recipe=SimpleNamespace(normalise=(HuWindow(range_hu=(-100.0, 300.0)),)), history="history.csv", epochs=4,
        steps=20, best_epoch=4, best_score=0.7, seconds=61.0, parameters=1234, ended="steps",
    )  # fmt: skip
    return _placed(model, folder)


def _plan(root: Path, fold: int) -> SamplingPlan:
    plan = SamplingPlan(train=("case_0",), validation=("case_1",), patch_size=(8, 8, 8), foreground=0.5)
    return _placed(plan, root / f"sample-fold{fold}-0a1b2c3d")
