"""A made-up but realistic run to lay out reports from."""

import numpy as np
import pandas as pd
import pytest

from pipeline.metrics.summary import summarise
from pipeline.stages.pictures import colour_of, overlay_figure, patch_sheet
from pipeline.stages.report.data import Baseline, CaseLine, Cost, Overlay, ReportData, Training

CLASSES = ("lung", "liver", "kidney", "spine", "ribs", "vessels", "lesion")
_DICE = (0.972, 0.951, 0.925, 0.934, 0.861, 0.702, 0.548)
_ML = (3900.0, 1550.0, 310.0, 820.0, 260.0, 95.0, 6.0)


@pytest.fixture(scope="session")
def report_data():
    """A three-fold cross-validation of a phantom with seven classes."""
    return made_up()


def made_up(cases=12, seed=0, overlays=None, patches=None):
    random = np.random.default_rng(seed)
    rows, lines = [], []
    for number in range(cases):
        case_id, group, fold = f"phantom_{number:03d}", f"p{number * 2 // 3:02d}", number % 3
        volumes = {}
        for name, dice, volume in zip(CLASSES, _DICE, _ML, strict=True):
            true = volume * random.lognormal(0, 0.25)
            figure = float(np.clip(1 - (1 - dice) * random.lognormal(0, 0.4), 0, 1))
            figures = [
                figure,
                min(1.0, figure + 0.04),
                (1 - figure) * 45 * random.lognormal(0, 0.3),
                true,
                true * random.normal(0.98, 0.05),
            ]
            presence = "both"
            if name == "lesion" and number % 4 == 1:
                presence, figures, true = "absent", [np.nan, np.nan, np.nan, 0.0, 0.0], 0.0
            if name == "lesion" and number % 6 == 2:
                presence, figures = "missed", [0.0, 0.0, np.nan, true, 0.0]
            volumes[name] = true
            error = figures[4] - figures[3]
            rows.append(
                {"case_id": case_id, "group": group, "fold": fold, "class": name, "presence": presence,
                 "dice": figures[0], "nsd_2mm": figures[1], "hd95_mm": figures[2],
                 "volume_ml": figures[4], "reference_ml": figures[3], "volume_error_ml": error,
                 "volume_error_percent": 100 * error / true if true else np.nan}
            )  # fmt: skip
        spacing = (float(random.choice([1.5, 2.5, 4.0])), 1.2, 1.2)
        shape = (int(300 / spacing[0]), 256, int(random.integers(240, 280)))
        lines.append(CaseLine(case_id, group, spacing, shape, volumes, fold, "", "A" if number % 2 else "B"))
    table = pd.DataFrame(rows)
    return ReportData(
        run_name="ct",
        created="2025-03-14 09:26",
        task="segmentation",
        dataset="phantom",
        network="unet",
        class_names=CLASSES,
        class_colours={name: colour_of(index) for index, name in enumerate(CLASSES, 1)},
        cases=tuple(lines),
        rows=table,
        summary=summarise(table, headline=["lung", "liver", "kidney", "spine"]),
        baseline={
            name: Baseline(-100.0, 200.0, mean, cases)
            for name, mean in zip(CLASSES, (0.71, 0.42, 0.18, 0.52, 0.31, 0.12, 0.02), strict=True)
        },
        trainings=tuple(_training(fold, random) for fold in range(3)),
        overlays=tuple(overlays or _overlays()),
        patches=patches or patch_sheet([("liver", *_scene()[:2], (4.0, 2.0, 2.0))], ("background", *CLASSES)),
        costs=(
            Cost("survey", 6.1, 512), Cost("ingest", 9.4, 690), Cost("sample-fold0", 0.4, 420),
            Cost("train-fold0", 121.0, 1410), Cost("predict-fold0", 14.2, 905), Cost("evaluate", 5.7, 610),
        ),
        environment={
            "pipeline": "0.1.0", "python": "3.11.9", "system": "Linux x86_64", "processor": "Some CPU", "cores": 2,
            "libraries": {"torch": "2.13.0", "numpy": "2.4.6", "SimpleITK": "2.5.0"},
        },
        config_yaml="seed: 0\ndataset: {name: phantom, cases: 12}\nlabels: {0: background, 1: lung}\n",
        dropped={"phantom_099": "case phantom_099: found 3 NaN voxels; expected finite ones."},
    )  # fmt: skip


def _training(fold, random):
    epochs = np.arange(1, 31)
    loss = 1.4 * np.exp(-epochs / 7) + 0.25 + random.normal(0, 0.02, 30)
    dice = np.where(epochs % 3 == 0, 0.9 * (1 - np.exp(-epochs / 6)) + random.normal(0, 0.008, 30), np.nan)
    history = pd.DataFrame({"epoch": epochs, "step": epochs * 50, "rate": 1e-3, "loss": loss, "dice": dice})
    best = int(epochs[np.nanargmax(dice)])
    return Training(f"fold {fold}", history, 30, 1500, best, float(np.nanmax(dice)), 120.0 + fold, 1_402_312, "steps")


def _scene():
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 48, 48)), indexing="ij"), axis=-1)
    reference = np.zeros(grid.shape[:3], np.uint8)
    for index, (centre, radius) in enumerate([((0, 0, -0.4), 0.35), ((0.2, 0.1, 0.4), 0.3)], 1):
        reference[((grid - centre) ** 2).sum(-1) < radius**2] = index
    image = np.random.default_rng(0).normal(0, 20, reference.shape) + reference * 60.0
    return image, reference


def _overlays():
    image, reference = _scene()
    for role, shift, score in (("Best", 0, 0.99), ("Median", 1, 0.93), ("Worst", 4, 0.71)):
        picture = overlay_figure(
            image, (4.0, 2.0, 2.0), reference, np.roll(reference, shift, axis=2), class_names=("background", *CLASSES)
        )
        yield Overlay(role, "phantom_00" + str(shift), score, picture)
