"""Charts of a report as SVG: training curves, distributions of figures, volumes against each other."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_INK, _SOFT, _LINE = "#1b2430", "#5b6675", "#dfe4ea"
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444b57")
"""Okabe and Ito's colours for lines on white; told apart without red and green."""

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Segoe UI", "Helvetica Neue", "Liberation Sans", "Arial", "DejaVu Sans"],
    "font.size": 9.5,
    "text.color": _INK,
    "axes.edgecolor": "#c3cad3",
    "axes.labelcolor": _SOFT,
    "axes.titlecolor": _INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.7,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
}

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Epochs and values; NaN where there is none."""


def curves(panels: Mapping[str, Mapping[str, Curve]], best: Mapping[str, float] | None = None) -> str:
    """Draw training curves, one panel a figure, one line a fold.

    Args:
        panels: Title of the panel -> name of the line -> curve. Lines of one name share a colour.
        best: Name of the line -> epoch that was kept, marked with a ring in the last panel.
    """
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    with canvas(10.4, 3.1) as figure:
        for place, (title, lines) in enumerate(panels.items(), 1):
            area = figure.add_subplot(1, len(panels), place)
            for name, (epochs, values) in lines.items():
                known = np.isfinite(values)
                colour = LINES[names.index(name) % len(LINES)]
                area.plot(epochs[known], values[known], color=colour, linewidth=1.7, label=name, solid_capstyle="round")
                if place == len(panels) and best and name in best and known.any():
                    at = int(np.abs(epochs[known] - best[name]).argmin())
                    area.plot(epochs[known][at], values[known][at], "o", markersize=7, markerfacecolor="white",
                              markeredgecolor=colour, markeredgewidth=1.8)  # fmt: skip
            area.set_title(title)
            area.set_xlabel("epoch")
            area.margins(x=0.02)
            if place == len(panels) and len(names) > 1:
                area.legend(loc="best", ncols=1 if len(names) < 6 else 2)
        return to_svg(figure)


def distributions(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    colours: Mapping[str, str],
    bounds: Mapping[str, tuple[float, float]],
) -> str:
    """Draw every case as a dot beside a box from the first to the third quartile, one line a class.

    Args:
        panels: Title -> class -> figures of its cases; NaN is left out.
        colours: Class -> colour.
        bounds: Title -> ends of the axis, for figures that have some.
    """
    classes = list(next(iter(panels.values())))
    with canvas(10.4, 1.05 + 0.36 * len(classes)) as figure:
        first = None
        for place, (title, table) in enumerate(panels.items(), 1):
            area = figure.add_subplot(1, len(panels), place, sharey=first)
            first = first or area
            for line, name in enumerate(classes):
                _strip(area, line, np.asarray(table[name], float), colours[name])
            area.set_title(title)
            if title in bounds:
                area.set_xlim(*bounds[title])
            area.set_ylim(len(classes) - 0.4, -0.6)
            area.set_yticks(range(len(classes)), classes)
            area.grid(visible=False, axis="y")
            area.spines["left"].set_visible(False)
            area.tick_params(axis="y", labelleft=place == 1, labelcolor=_INK)
        return to_svg(figure)


def volumes(table: Mapping[str, tuple[Sequence[float], Sequence[float]]], colours: Mapping[str, str]) -> str:
    """Draw predicted against true volumes on logarithmic axes.

    Args:
        table: Class -> volumes of the reference and of the prediction, in ml; zeros are left out.
        colours: Class -> colour.
    """
    from matplotlib.ticker import FormatStrFormatter, NullFormatter

    with canvas(4.3, 3.9) as figure:
        area = figure.add_subplot()
        seen = []
        for name, (true, predicted) in table.items():
            pairs = np.array([true, predicted], float)
            pairs = pairs[:, (pairs > 0).all(axis=0)]
            seen.append(pairs.ravel())
            area.plot(pairs[0], pairs[1], "o", color=colours[name], markersize=5, markeredgecolor="#00000055",
                      markeredgewidth=0.5, label=name, linestyle="none")  # fmt: skip
        everything = np.concatenate(seen)
        ends = (everything.min() / 1.3, everything.max() * 1.3) if everything.size else (1.0, 10.0)
        area.plot(ends, ends, color="#8a94a3", linewidth=1, zorder=0)
        area.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
        for axis in (area.xaxis, area.yaxis):
            axis.set_minor_formatter(NullFormatter())  # minor labels of a short range lie on each other
            axis.set_major_formatter(FormatStrFormatter("%g"))
        area.set_xlabel("reference, ml")
        area.set_ylabel("prediction, ml")
        return to_svg(figure)


def _strip(area: Any, line: int, values: NDArray[np.float64], colour: str) -> None:
    values = np.sort(values[np.isfinite(values)])
    if values.size == 0:
        return
    low, middle, high = np.percentile(values, [25, 50, 75])
    area.fill_betweenx([line - 0.27, line + 0.27], low, high, color=colour, alpha=0.28, linewidth=0)
    area.plot([middle, middle], [line - 0.27, line + 0.27], color=_INK, linewidth=1.6, solid_capstyle="butt")
    size = 4.2 if values.size <= 60 else 2.6
    # Neighbours in value lie on different heights, the same in every run.
    heights = line + 0.2 * np.array([0.0, 0.75, -0.75, 0.4, -0.4])[np.arange(values.size) % 5]
    area.plot(values, heights, "o", color=colour, markersize=size, markeredgecolor="#00000066", markeredgewidth=0.5)


@contextmanager
def canvas(width: float, height: float) -> Iterator[Any]:
    """Give an empty figure, in inches, drawn without pyplot and its global state."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.06))


def to_svg(figure: Any) -> str:
    """Return a figure as text."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return stream.getvalue()
