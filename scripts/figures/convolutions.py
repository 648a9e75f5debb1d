"""Draws the pictures of docs/convolutions.md: python -m scripts.figures.convolutions [FOLDER]."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pipeline.datasets.mnist3d_digits import Cloud, digits, make_grids
from pipeline.networks.colours import colour_table

INK, SOFT, FILTER, LINE = "#1b2430", "#e6ebf1", "#0072b2", "#8a94a3"
FOLDER = Path(__file__).parents[2] / "docs" / "pictures"


def main(folder: Path = FOLDER) -> list[Path]:
    """Draw all pictures; return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "2d_3d": filters_over_a_stack, "padding_stride": padding_and_stride, "pooling": pooling, "reshape": reshape,
    }  # fmt: skip
    made = []
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "docs", "font.size": 10, "text.color": INK}):
        for name, draw in pictures.items():
            made.append(folder / f"convolution_{name}.svg")
            draw().savefig(made[-1], metadata={"Date": None, "Creator": None}, facecolor="white")
    return made


def filters_over_a_stack() -> Figure:
    """A 2-D filter that covers all slices beside a 3-D one that moves along them."""
    figure = Figure(figsize=(8, 3.2))
    for place, (title, slices) in enumerate({"2-D, slices as channels": range(6), "3-D": range(2, 5)}.items(), 1):
        area = empty(figure.add_subplot(1, 2, place), title)
        for number in reversed(range(6)):
            x, y = number * 0.45, number * 0.3
            area.add_patch(Rectangle((x, y), 3, 3, facecolor="none", edgecolor=LINE))
            if number in slices:
                area.add_patch(Rectangle((x + 1, y + 1), 1, 1, facecolor=FILTER, alpha=0.75, edgecolor="white"))
        if place == 2:
            area.annotate("", (4.6, 3.4), (2.7, 2.1), arrowprops={"arrowstyle": "<->", "color": INK})
        area.set(xlim=(-0.2, 5.6), ylim=(-0.2, 4.8))
    return figure


def padding_and_stride() -> Figure:
    """Places of a kernel of three on six voxels."""
    figure = Figure(figsize=(8, 3.4))
    rows = (("no padding: 4 places", 0, 1), ("padding 1: 6 places", 1, 1), ("padding 1, stride 2: 3 places", 1, 2))
    for place, (title, padding, stride) in enumerate(rows, 1):
        area = empty(figure.add_subplot(1, 3, place), title)
        count = (6 + 2 * padding - 3) // stride + 1
        for cell in range(-padding, 6 + padding):
            inside = 0 <= cell < 6
            area.add_patch(Rectangle((cell, 7), 0.94, 0.94, facecolor=SOFT if inside else "white", edgecolor=LINE,
                                     linestyle="-" if inside else ":"))  # fmt: skip
        for number in range(count):
            start = number * stride - padding
            area.add_patch(Rectangle((start, 5.6 - number), 2.94, 0.6, facecolor=FILTER, alpha=0.75))
        area.set(xlim=(-1.3, 7.3), ylim=(-0.2, 8.3))
    return figure


def pooling() -> Figure:
    """Sixteen values and the four that max-pooling keeps."""
    figure = Figure(figsize=(6, 2.6))
    values = np.array([[1, 5, 2, 0], [3, 4, 8, 1], [7, 0, 2, 6], [2, 1, 3, 3]])
    pooled = values.reshape(2, 2, 2, 2).max((1, 3))
    for place, table in enumerate((values, pooled), 1):
        area = empty(figure.add_subplot(1, 2, place), "" if place == 1 else "the largest of each window")
        side = 4 // len(table)
        for (row, column), value in np.ndenumerate(table):
            kept = place == 2 or value == pooled[row // 2, column // 2]
            area.add_patch(Rectangle((column * side, (len(table) - 1 - row) * side), side * 0.96, side * 0.96,
                                     facecolor=FILTER if kept else SOFT, alpha=0.8 if kept else 1))  # fmt: skip
            area.text((column + 0.48) * side, (len(table) - 0.52 - row) * side, str(value), ha="center", va="center",
                      color="white" if kept else INK)  # fmt: skip
        area.set(xlim=(-0.1, 4.1), ylim=(-0.1, 4.1))
    return figure


def reshape() -> Figure:
    """A digit, its channel after the axis was moved, and after the reshape of the notebooks."""
    images, labels = digits()
    grid = make_grids(images, [(labels.index(3), 0)], Cloud(16, 4000, 0.0, 0.01), seed=0)[0]
    colours = colour_table("Oranges")[np.minimum((grid * 256).astype(int), 255)]
    shown = {
        "values": grid.max(0),
        "blue channel, axis moved": np.moveaxis(colours, -1, 0)[2].min(0),
        "blue channel, reshaped": colours.reshape(3, 16, 16, 16)[2].min(0),
    }
    figure = Figure(figsize=(8, 2.9))
    for place, (title, picture) in enumerate(shown.items(), 1):
        area = empty(figure.add_subplot(1, 3, place), title)
        area.imshow(picture, cmap="gray_r" if place == 1 else "gray", interpolation="nearest")
    return figure


def empty(area: Any, title: str, hidden: Sequence[str] = ("top", "right", "left", "bottom")) -> Any:
    """Return an area without axes, with cells as wide as high."""
    area.set_title(title, fontsize=10, color=INK)
    area.set_aspect("equal")
    area.set_xticks([])
    area.set_yticks([])
    for side in hidden:
        area.spines[side].set_visible(False)
    return area


if __name__ == "__main__":
    for file in main(*map(Path, sys.argv[1:2])):
        print(file)
