"""Pictures of volumes with their masks, in the three planes of the patient, as PNG files."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.labels import IGNORE

COLOURS = (
    "#e69f00", "#56b4e9", "#2bb673", "#f0e442", "#cc79a7", "#ff6f3c", "#7f8cff",
    "#b5e853", "#c49a6c", "#5ce0d8", "#ff9da7", "#b07aff",
)  # fmt: skip
"""One a class, repeated where they run out. The first ones follow Okabe and Ito, so that readers who do not see red
and green apart can tell them, with the dark ones lightened for a dark ground."""

_GROUND, _INK, _REFERENCE = "#0c0f14", "#c9d1d9", "#ffffff"
_DPI = 150
_PLANES = ("axial", "coronal", "sagittal")
_SIDES = {"axial": ("R", "L", "A", "P"), "coronal": ("R", "L", "S", "I"), "sagittal": ("A", "P", "S", "I")}
"""What lies at the left, right, top and bottom of each picture."""


def overlay_figure(
    image: NDArray[Any],
    spacing_mm: Sequence[float],
    reference: NDArray[np.uint8] | None,
    prediction: NDArray[np.uint8],
    *,
    class_names: Sequence[str],
    window: tuple[float, float] | None = None,
) -> bytes:
    """Draw one case in three planes: a white line around the reference, a coloured one around the prediction.

    Each plane shows the slice with the most foreground, classes weighing alike whatever their size, cut to
    the surroundings of what is labelled. Axial: anterior is up; coronal and sagittal: superior is up; the
    patient's left is on the viewer's right.

    Args:
        image: (D, H, W) intensities in canonical orientation.
        spacing_mm: Voxel size along (D, H, W), in mm.
        reference: (D, H, W) class indices; None where unknown.
        prediction: (D, H, W) class indices.
        class_names: Names of the indices, the background first.
        window: Intensities shown black and white; None takes the 0.5th and 99.5th percentile.

    Returns:
        PNG file, about 1600 pixels wide.
    """
    truth = np.zeros_like(prediction) if reference is None else np.where(reference == IGNORE, 0, reference)
    where = _slices(truth if truth.any() else prediction)
    box = _surroundings((truth > 0) | (prediction > 0), spacing_mm)
    low, high = window or _window(image)
    volumes = (image, truth, prediction)
    planes = [_plane(axis, where[axis], box, spacing_mm, volumes) for axis in range(3)]
    entries = _entries(class_names, truth, prediction)[reference is None :]
    figure, areas = _canvas(planes, _legend_inches(entries))
    for area, plane in zip(areas, planes, strict=True):
        _draw(area, plane, low, high)
    _legend(figure, entries)
    return _png(figure)


def slice_picture(
    image: NDArray[Any],
    spacing_mm: Sequence[float],
    reference: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    *,
    class_names: Sequence[str],
) -> NDArray[np.uint8]:
    """Draw one axial slice whole: a white line around the reference, a coloured one around the prediction.

    Args:
        image: (H, W) intensities in canonical orientation.
        spacing_mm: Voxel size along (H, W), in mm.
        reference: (H, W) class indices.
        prediction: (H, W) class indices.
        class_names: Names of the indices, the background first.

    Returns:
        (height, width, 3) red, green and blue.
    """
    truth = np.where(reference == IGNORE, 0, reference)
    height, width = image.shape
    plane = _Plane("axial", image, truth, prediction, width * spacing_mm[1], height * spacing_mm[0])
    entries = _entries(class_names, truth, prediction)
    figure, (area,) = _canvas([plane], _legend_inches(entries))
    _draw(area, plane, *_window(image))
    _legend(figure, entries)
    return _pixels(figure)


Tile = tuple[str, NDArray[Any], NDArray[np.uint8], Sequence[float]]
"""A patch: title, intensities (d, h, w), class indices (d, h, w), voxel size along (D, H, W) in mm."""


def patch_sheet(tiles: Sequence[Tile], class_names: Sequence[str]) -> bytes:
    """Draw an axial slice of training patches side by side, with the labels filled in.

    The slice with most of the class that is the tile's title, or the middle one where the title names no class.

    Args:
        tiles: What to show, four in a row.
        class_names: Names of the indices, the background first.

    Returns:
        PNG file.
    """
    from matplotlib.figure import Figure

    columns = min(len(tiles), 4)
    lines = -(-len(tiles) // columns)
    shown = sorted({int(index) for _, _, label, _ in tiles for index in np.unique(label) if 0 < index < IGNORE})
    entries = [(class_names[index], colour_of(index)) for index in shown]
    height = 2.85 * lines + _legend_inches(entries)
    figure = Figure(figsize=(2.7 * columns, height), dpi=_DPI, facecolor=_GROUND)
    figure.subplots_adjust(0.01, _legend_inches(entries) / height, 0.99, 1 - 0.28 / height, 0.04, 0.12)
    for number, tile in enumerate(tiles, 1):
        _draw_tile(figure.add_subplot(lines, columns, number), tile, class_names)
    _legend(figure, entries)
    return _png(figure)


def colour_of(index: int) -> str:
    """Return the colour of a class index, from 1 on."""
    return COLOURS[(index - 1) % len(COLOURS)]


@dataclass(frozen=True, eq=False)
class _Plane:
    """One slice, turned as it is shown: rows from top to bottom, columns from left to right."""

    name: str
    image: NDArray[Any]
    reference: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    width_mm: float
    height_mm: float

    @property
    def extent(self) -> tuple[float, float, float, float]:
        return (0.0, self.width_mm, self.height_mm, 0.0)


def _plane(
    axis: int, index: int, box: Sequence[slice], spacing_mm: Sequence[float], volumes: Sequence[NDArray[Any]]
) -> _Plane:
    rows, columns = (other for other in range(3) if other != axis)
    chosen = [index if other == axis else box[other] for other in range(3)]
    cut = [volume[tuple(chosen)] for volume in volumes]
    if rows == 0:
        cut = [part[::-1] for part in cut]
    height, width = cut[0].shape
    return _Plane(_PLANES[axis], cut[0], cut[1], cut[2], width * spacing_mm[columns], height * spacing_mm[rows])


def _slices(mask: NDArray[np.uint8]) -> tuple[int, int, int]:
    """Return for each axis the slice with the most foreground; each class counts by the share of it there."""
    found = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        score = np.zeros(mask.shape[axis])
        for index in np.unique(mask[mask > 0]):
            area = (mask == index).sum(axis=others)
            score += area / area.max()
        # Of equal slices the middle one, so that a box is not shown at its edge.
        best = np.flatnonzero(score >= score.max() - 1e-9)
        found.append(int(best[best.size // 2]))
    return found[0], found[1], found[2]


def _surroundings(mask: NDArray[np.bool_], spacing_mm: Sequence[float]) -> list[slice]:
    """Return the box around the mask with a margin, at least 15 mm and a quarter of its longest side."""
    if not mask.any():
        return [slice(0, side) for side in mask.shape]
    ends = []
    for axis in range(3):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        ends.append((int(hit[0]), int(hit[-1]) + 1))
    longest = max((stop - start) * step for (start, stop), step in zip(ends, spacing_mm, strict=True))
    margins = [int(np.ceil(max(15.0, longest / 4) / step)) for step in spacing_mm]
    return [
        slice(max(0, start - margin), min(side, stop + margin))
        for (start, stop), margin, side in zip(ends, margins, mask.shape, strict=True)
    ]


def _window(image: NDArray[Any]) -> tuple[float, float]:
    low, high = np.percentile(image.ravel()[:: max(1, image.size // 200_000)], [0.5, 99.5])
    return float(low), float(max(high, low + 1e-6))


def _canvas(planes: Sequence[_Plane], bottom: float) -> tuple[Any, list[Any]]:
    """Lay out areas of one scale side by side, so that a millimetre is as long in each."""
    from matplotlib.figure import Figure

    inches, gap, tallest = 10.8, 0.1, max(plane.height_mm for plane in planes)
    together = sum(plane.width_mm for plane in planes)
    scale = min((inches - gap * (len(planes) + 1)) / together, 4.6 / tallest)
    width, height = max(together * scale + gap * (len(planes) + 1), 5.0), tallest * scale + gap + bottom
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=_GROUND)
    areas, left = [], (width - together * scale - gap * (len(planes) - 1)) / 2
    for plane in planes:
        wide, high = plane.width_mm * scale, plane.height_mm * scale
        lift = bottom + (tallest * scale - high) / 2
        areas.append(figure.add_axes((left / width, lift / height, wide / width, high / height)))
        left += wide + gap
    return figure, areas


def _draw(area: Any, plane: _Plane, low: float, high: float) -> None:
    area.imshow(
        plane.image, cmap="gray", vmin=low, vmax=high, extent=plane.extent, interpolation="bicubic", aspect="auto"
    )
    for index in np.unique(plane.reference[plane.reference > 0]):
        _outline(area, plane.reference == index, plane, _REFERENCE, 2.2)
    for index in np.unique(plane.prediction[plane.prediction > 0]):
        _outline(area, plane.prediction == index, plane, colour_of(int(index)), 1.2)
    area.set_xlim(0, plane.width_mm)
    area.set_ylim(plane.height_mm, 0)
    area.set_axis_off()
    _annotate(area, plane)


def _outline(area: Any, mask: NDArray[np.bool_], plane: _Plane, colour: str, width: float) -> None:
    """Draw the border between voxels in and out of the mask, closed at the edge of the picture."""
    rows, columns = mask.shape
    step_y, step_x = plane.height_mm / rows, plane.width_mm / columns
    y, x = (np.arange(-1, rows + 1) + 0.5) * step_y, (np.arange(-1, columns + 1) + 0.5) * step_x
    area.contour(x, y, np.pad(mask, 1).astype(float), levels=[0.5], colors=[colour], linewidths=[width])


def _fill(label: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the classes of a slice as translucent colours, (h, w, 4)."""
    from matplotlib.colors import to_rgba

    colours = np.zeros((256, 4), np.float32)
    for index in range(1, 255):
        colours[index] = to_rgba(colour_of(index), 0.45)
    return colours[label]


def _annotate(area: Any, plane: _Plane) -> None:
    """Name the plane and its sides, and draw a scale."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground=_GROUND)]
    text = {"color": _INK, "fontsize": 8, "transform": area.transAxes, "path_effects": halo}
    left, right, top, bottom = _SIDES[plane.name]
    area.text(0.015, 0.5, left, ha="left", va="center", **text)
    area.text(0.985, 0.5, right, ha="right", va="center", **text)
    area.text(0.5, 0.985, top, ha="center", va="top", **text)
    area.text(0.5, 0.015, bottom, ha="center", va="bottom", **text)
    area.text(0.015, 0.985, plane.name, ha="left", va="top", **text)
    length = max((step for step in (1, 2, 5, 10, 20, 50, 100) if step <= plane.width_mm / 3), default=1)
    end, height = plane.width_mm * 0.97, plane.height_mm * 0.96
    area.plot([end - length, end], [height, height], color=_INK, linewidth=2, solid_capstyle="butt", path_effects=halo)
    area.text(end - length / 2, height - plane.height_mm * 0.015, f"{length} mm", ha="center", va="bottom",
              color=_INK, fontsize=7, path_effects=halo)  # fmt: skip


def _draw_tile(area: Any, tile: Tile, class_names: Sequence[str]) -> None:
    title, image, label, spacing_mm = tile
    slices = (label == class_names.index(title)).sum(axis=(1, 2)) if title in class_names else np.zeros(len(label))
    best = int(slices.argmax()) if slices.any() else len(label) // 2
    low, high = _window(image[(label > 0) & (label != IGNORE)] if (label > 0).any() else image)
    margin = (high - low) / 2
    extent = (0, image.shape[2] * spacing_mm[2], image.shape[1] * spacing_mm[1], 0)
    area.imshow(image[best], cmap="gray", vmin=low - margin, vmax=high + margin, extent=extent, interpolation="bicubic")
    area.imshow(_fill(label[best]), extent=extent, interpolation="nearest")
    area.set_title(title, color=_INK, fontsize=9, pad=4)
    area.set_axis_off()


_ENTRIES_A_LINE = 9


def _entries(
    class_names: Sequence[str], truth: NDArray[np.uint8], prediction: NDArray[np.uint8]
) -> list[tuple[str, str]]:
    """Return name and colour of what is drawn: the reference first, then the classes that either mask has."""
    present = [index for index in range(1, len(class_names)) if (truth == index).any() or (prediction == index).any()]
    return [("reference", _REFERENCE), *((class_names[index], colour_of(index)) for index in present)]


def _legend_inches(entries: Sequence[tuple[str, str]]) -> float:
    """Return the height that the legend takes."""
    return 0.14 + 0.2 * -(-len(entries) // _ENTRIES_A_LINE)


def _legend(figure: Any, entries: Sequence[tuple[str, str]]) -> None:
    """Explain the colours at the foot, line by line."""
    from matplotlib.lines import Line2D

    if not entries:
        return
    lines = -(-len(entries) // _ENTRIES_A_LINE)
    columns = -(-len(entries) // lines)
    # A legend is filled column by column; readers go line by line.
    order = [entry for column in range(columns) for entry in entries[column::columns]]
    handles = [Line2D([], [], color=colour, linewidth=2.6, label=name) for name, colour in order]
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, labelcolor=_INK, fontsize=8,
                  handlelength=1.4, columnspacing=1.4, borderaxespad=0.1, labelspacing=0.3)  # fmt: skip


def _pixels(figure: Any) -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=_GROUND, metadata={"Software": None})
    return stream.getvalue()
