"""Charts of classification as SVG (ROC, reliability, confusion), and pictures of volumes as PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.base import ScoreTable
from pipeline.metrics.class_summary import roc_curve
from pipeline.metrics.classification import confidences
from pipeline.stages.report.plots import LINES, canvas, to_svg

_BINS = 10


def curves_and_calibration(table: ScoreTable) -> str:
    """Draw the ROC curve of each class, and beside it how often answers of each confidence are right."""
    with canvas(10.4, 4.2) as figure:
        left, right = figure.subplots(1, 2)
        _draw_roc(left, table)
        _draw_reliability(right, table)
        return to_svg(figure)


def confusion_matrix(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Draw how often each true class (row) was said to be which (column); shaded by the share of the row."""
    names = list(counts)
    values = np.array([[counts[true][said] for said in names] for true in names], float)
    shares = values / np.maximum(values.sum(1, keepdims=True), 1)
    side = max(3.2, 0.46 * len(names) + 1.4)
    with canvas(side + 0.6, side) as figure:
        area = figure.add_subplot()
        area.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        area.grid(visible=False)
        area.set_xticks(range(len(names)), names, rotation=0 if max(map(len, names)) < 6 else 40)
        area.set_yticks(range(len(names)), names)
        area.set_xlabel("said")
        area.set_ylabel("true")
        for row, column in np.ndindex(values.shape):
            if values[row, column]:
                ink = "white" if shares[row, column] > 0.55 else "#1b2430"
                area.text(column, row, f"{values[row, column]:.0f}", ha="center", va="center", color=ink, fontsize=8.5)
        return to_svg(figure)


def volume_sheet(tiles: Sequence[tuple[str, NDArray[Any], Sequence[float]]]) -> bytes:
    """Draw volumes as maximum projections along D, H and W, one volume a row.

    Args:
        tiles: Title, intensities (D, H, W), voxel size along (D, H, W) in mm.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.35 * len(tiles)), dpi=110, facecolor="#0c0f14")
    grid = figure.subplots(len(tiles), 3, squeeze=False)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.24 / (2.35 * len(tiles)), 0.03, 0.16)
    for (title, image, spacing), row in zip(tiles, grid, strict=True):
        low, high = np.percentile(image, [0.5, 99.9])
        for axis, area in enumerate(row):
            flat = image.max(axis)
            step = [each for number, each in enumerate(spacing) if number != axis]
            flat = flat if axis == 0 else flat[::-1]
            area.imshow(flat, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=step[0] / step[1],
                        interpolation="nearest")  # fmt: skip
            area.set_axis_off()
        row[0].set_title(title, color="#c9d1d9", fontsize=9, loc="left", pad=4)
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="#0c0f14", metadata={"Software": None})
    return stream.getvalue()


def _draw_roc(area: Any, table: ScoreTable) -> None:
    names = list(table.class_names)
    shown = [len(names) - 1] if table.exclusive and len(names) == 2 else range(len(names))
    for line, k in enumerate(shown):
        truth = table.truth[:, k]
        if truth.any() and not truth.all():
            false, true = roc_curve(table.probabilities[:, k], truth)
            area.plot(false, true, color=LINES[line % len(LINES)], linewidth=1.5, label=names[k])
    area.plot([0, 1], [0, 1], color="#8a94a3", linewidth=1, zorder=0)
    area.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", title="ROC curve of each class")
    area.set_xlabel("1 − specificity")
    area.set_ylabel("sensitivity")
    area.legend(loc="lower right", ncols=1 if len(names) < 7 else 2)


def _draw_reliability(area: Any, table: ScoreTable) -> None:
    confidence, right = confidences(table)
    bin_of = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    counts = np.bincount(bin_of, minlength=_BINS)
    there = counts > 0
    mean = np.bincount(bin_of, confidence, _BINS)[there] / counts[there]
    share = np.bincount(bin_of, right, _BINS)[there] / counts[there]
    area.plot([0, 1], [0, 1], color="#8a94a3", linewidth=1, zorder=0)
    area.plot(mean, share, color=LINES[0], linewidth=1.5, zorder=1)
    area.scatter(mean, share, s=14 + 160 * counts[there] / counts.max(), color=LINES[0], zorder=2)
    area.set(xlim=(-0.01, 1.03), ylim=(-0.01, 1.03), aspect="equal", title="Reliability")
    area.set_xlabel("confidence; larger dots hold more cases")
    area.set_ylabel("share that is right")
