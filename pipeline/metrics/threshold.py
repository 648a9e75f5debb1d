"""What one intensity window and the largest component reach: the table that shows how hard a data set is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.labels import IGNORE

Load = Callable[[], tuple[NDArray[Any], NDArray[np.uint8]]]
"""Reads one case: intensities (D, H, W) and class indices (D, H, W)."""

_QUANTILES = 192
_SAMPLES_PER_CASE = 50_000
_BETAS = (1.0, 0.5, 2.0, 4.0)
"""Weights of what is found against what is too much, in the search before components."""
_LOWS, _HIGHS = (0.01, 0.03, 0.06, 0.1, 0.15, 0.2, 0.3, 0.4), (0.6, 0.75, 0.9, 0.95, 0.98, 1.0)
"""Shares of a class below the ends of further windows: one that is bad by its count of voxels may be the best once
everything but the largest component is gone."""
_SCREENED, _CLIMBS, _FINALISTS = 3, 2, 4
_LARGE = 8_000_000


@dataclass(frozen=True)
class Window:
    """Intensities from `low` to `high`, both included."""

    low: float
    high: float


@dataclass(frozen=True)
class ThresholdScore:
    """What the best window of one class reaches."""

    window: Window
    dice: tuple[float, ...]
    """One for each case, NaN where the class is absent from it."""

    @property
    def n(self) -> int:
        """Number of cases that have the class."""
        return int(np.isfinite(self.dice).sum())

    @property
    def mean(self) -> float:
        """Mean over the cases that have the class; NaN for none."""
        return float(np.nanmean(self.dice)) if self.n else float("nan")


def best_thresholds(cases: Sequence[Load], members: Mapping[str, tuple[int, ...]]) -> dict[str, ThresholdScore]:
    """Find for each class the intensity window that segments it best, followed by the largest component.

    The windows are chosen on the very cases that they are scored on, so the figures are what thresholds could
    reach at best. The best of all pairs of a grid of percentiles by their Dice over all cases together (from
    histograms, under several weightings) and windows made of percentiles of the class are compared by their mean
    Dice after components on three of the cases; so are the neighbours of the best, twice, since one HU may decide
    whether two organs touch. The best few are then scored on all cases.

    Args:
        cases: Readers of the cases; each is called again for each pass, so that only one case is in memory.
        members: Class name -> its indices.

    Returns:
        Class name -> window and Dice of each case. Voxels that are ignored count nowhere.
    """
    edges = _edges(cases, members)
    inside, everywhere = _histograms(cases, members, edges)
    windows = {name: _candidates(inside[name], everywhere, edges) for name in members}
    some = [cases[at] for at in sorted({round(at) for at in np.linspace(0, len(cases) - 1, _SCREENED)})]
    screened = _score(some, members, windows)
    for _ in range(_CLIMBS):
        screened = _score(some, members, {name: _around(scores, edges) for name, scores in screened.items()})
    # The ones that are best by counts are looked at again too: a class may be rare in the cases of the screening.
    finalists = {
        name: list(dict.fromkeys([*(score.window for score in scores[:_FINALISTS]), *windows[name][: len(_BETAS)]]))
        for name, scores in screened.items()
    }
    return {name: scores[0] for name, scores in _score(cases, members, finalists).items()}


def reads(cases: int) -> int:
    """Return how often `best_thresholds` reads a case in all, for a progress bar."""
    return 3 * cases + (1 + _CLIMBS) * min(_SCREENED, cases)


def segment(image: NDArray[Any], window: Window) -> NDArray[np.bool_]:
    """Return the largest 26-connected component of the voxels inside a window; (D, H, W)."""
    mask = (image >= window.low) & (image <= window.high)
    largest: NDArray[np.bool_] = cc3d.largest_k(mask, k=1, connectivity=26) > 0
    return largest


def _edges(cases: Sequence[Load], members: Mapping[str, tuple[int, ...]]) -> NDArray[np.float64]:
    """Return the intensities between which is decided: percentiles of the images and of each class."""
    samples: dict[str, list[NDArray[np.float64]]] = {name: [] for name in ("", *members)}
    ends = []
    for load in cases:
        image, indices = load()
        ends += [float(image.min()), float(image.max())]
        samples[""].append(_thin(image[indices != IGNORE]))
        for name, wanted in members.items():
            samples[name].append(_thin(image[np.isin(indices, wanted)]))
    shares = np.linspace(0, 1, _QUANTILES // min(len(samples), 8))
    pooled = [np.concatenate(parts) for parts in samples.values() if sum(part.size for part in parts)]
    return np.unique(np.concatenate([ends, *(np.quantile(values, shares) for values in pooled)]))


def _thin(values: NDArray[Any]) -> NDArray[np.float64]:
    return values[:: max(1, values.size // _SAMPLES_PER_CASE)].astype(np.float64)


def _histograms(
    cases: Sequence[Load], members: Mapping[str, tuple[int, ...]], edges: NDArray[np.float64]
) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    """Count voxels between successive edges: of each class, and of all that count."""
    inside = {name: np.zeros(edges.size, np.int64) for name in members}
    everywhere = np.zeros(edges.size, np.int64)
    for load in cases:
        image, indices = load()
        # Bin i holds edges[i] <= value < edges[i + 1]; the last one, the greatest value.
        bins = np.searchsorted(edges, image.ravel(), side="right") - 1
        known = indices.ravel() != IGNORE
        counts = np.bincount(
            indices.ravel()[known].astype(np.intp) * edges.size + bins[known], minlength=256 * edges.size
        ).reshape(256, edges.size)
        everywhere += counts.sum(axis=0)
        for name, wanted in members.items():
            inside[name] += counts[list(wanted)].sum(axis=0)
    return inside, everywhere


def _candidates(
    inside: NDArray[np.int64], everywhere: NDArray[np.int64], edges: NDArray[np.float64]
) -> tuple[Window, ...]:
    """Return windows that are worth a look, from the counts alone."""
    hits, chosen = _sums(inside), _sums(everywhere)
    found = []
    for beta in _BETAS:
        score = (1 + beta**2) * hits / np.maximum(chosen + beta**2 * inside.sum(), 1)
        low, high = np.unravel_index(int(np.argmax(np.triu(score))), score.shape)
        found.append((int(low), int(high)))
    shares = np.cumsum(inside) / max(int(inside.sum()), 1)
    lows, highs = (np.searchsorted(shares, ends).clip(max=edges.size - 1) for ends in (_LOWS, _HIGHS))
    found += [(int(low), int(high)) for low in lows for high in highs if low <= high]
    return tuple(dict.fromkeys(_window(edges, low, high) for low, high in found))


def _around(scores: Sequence[ThresholdScore], edges: NDArray[np.float64]) -> list[Window]:
    """Return the two best windows and those with one end a few bins off the best."""
    best = scores[0].window
    low, high = (int(np.searchsorted(edges, end, side="right")) - 1 for end in (best.low, best.high))
    steps = (-3, -2, -1, 1, 2, 3)
    ends = [*((low + step, high) for step in steps), *((low, high + step) for step in steps)]
    moved = [_window(edges, a, b) for a, b in ends if 0 <= a <= b < edges.size]
    return list(dict.fromkeys([*(score.window for score in scores[:2]), *moved]))


def _window(edges: NDArray[np.float64], low: int, high: int) -> Window:
    """Return the window from bin `low` to bin `high`, both included."""
    top = np.nextafter(edges[high + 1], -np.inf) if high + 1 < edges.size else edges[-1]
    return Window(float(edges[low]), float(top))


def _sums(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sum from bin i to bin j, both included, for every pair (i, j); nonsense below the diagonal."""
    total = np.cumsum(counts)
    return np.asarray(total[None, :] - (total - counts)[:, None])


def _score(
    cases: Sequence[Load], members: Mapping[str, tuple[int, ...]], windows: Mapping[str, Sequence[Window]]
) -> dict[str, list[ThresholdScore]]:
    """Return for each class its windows with their Dice after components, the best by the mean first.

    Of volumes of more than eight million voxels, only every second voxel along each axis is looked at.
    """
    dice: dict[str, list[list[float]]] = {name: [] for name in members}
    for load in cases:
        image, indices = load()
        if image.size > _LARGE:
            image, indices = image[::2, ::2, ::2], indices[::2, ::2, ::2]
        counted = indices != IGNORE
        for name in members:
            truth = np.isin(indices, members[name])
            dice[name].append([_dice(segment(image, window) & counted, truth) for window in windows[name]])
    found = {}
    for name, rows in dice.items():
        columns = zip(*rows, strict=True) if rows else [()] * len(windows[name])
        scores = [ThresholdScore(window, column) for window, column in zip(windows[name], columns, strict=True)]
        found[name] = sorted(scores, key=lambda score: -np.nan_to_num(score.mean))
    return found


def _dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    true = np.count_nonzero(truth)
    if true == 0:
        return float("nan")
    return 2 * np.count_nonzero(prediction & truth) / (np.count_nonzero(prediction) + true)
