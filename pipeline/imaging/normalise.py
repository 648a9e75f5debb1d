"""From stored intensities to network input: statistics of a case, and the normalisations made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Discriminator, Field, Tag

from pipeline.errors import ConfigError
from pipeline.imaging.labels import IGNORE
from pipeline.plugin import Settings

QUANTILES = 1001
"""Points of the quantile function that are kept of each distribution: every 0.1 %."""
_HU_BODY = -500.0
_SAMPLE = 2_000_000
_UNBOUNDED = 3.0e38  # finite in float32, so that one clip serves every normalisation


class Distribution(Settings):
    """Intensities of a set of voxels; all zero and no quantiles where the set is empty."""

    count: int
    mean: float
    std: float
    quantiles: tuple[float, ...]
    """Value at 0, 0.1, ..., 100 %."""

    def percentile(self, percent: float) -> float:
        """Return the intensity below which `percent` of the voxels lie; linear between the kept quantiles."""
        return float(np.interp(percent / 100, np.linspace(0, 1, len(self.quantiles)), self.quantiles))


class IntensityStats(Settings):
    """What normalisation needs to know of one channel of one case, measured on the native voxels in the crop."""

    minimum: float
    """Smallest intensity; volumes smaller than a patch are padded with it."""
    maximum: float
    body: Distribution
    """Voxels above `body_threshold(minimum)`; all voxels where none is."""
    foreground: Distribution | None = None
    """Labelled voxels, `ignore` not counted; None without a label or where all is background."""


class HuWindow(Settings):
    """Map a fixed range of intensities to -1..1 and clip the rest: for CT."""

    name: Literal["hu_window"] = "hu_window"
    range_hu: tuple[float, float] = (-160.0, 240.0)
    """Lower and upper end, in Hounsfield units."""


class ZScore(Settings):
    """Mean 0 and standard deviation 1 over the body voxels of each case: for MR."""

    name: Literal["zscore"] = "zscore"


class Percentile(Settings):
    """Map a range of percentiles of each case's body voxels to -1..1 and clip the rest."""

    name: Literal["percentile"] = "percentile"
    lower: float = Field(default=0.5, ge=0, le=100)
    """Percentile that becomes -1."""
    upper: float = Field(default=99.5, ge=0, le=100)
    """Percentile that becomes 1."""


class TrainingZScore(Settings):
    """Clip and z-score with numbers of the training cases' labelled voxels: nnU-Net's scheme for CT (Isensee 2021)."""

    name: Literal["training_zscore"] = "training_zscore"
    clip: tuple[float, float] = (0.5, 99.5)
    """Percentiles of the pooled foreground to which intensities are clipped."""
    fitted: tuple[float, float, float, float] | None = None
    """Lower and upper intensity, mean and standard deviation; filled in by `fit`, not in a config."""


Normalise = Annotated[HuWindow | ZScore | Percentile | TrainingZScore, Field(discriminator="name")]
"""How intensities become network input; a closed union, told apart by `name`."""


def _tag(value: Any) -> str | None:
    """Return the kind of normalisation that a config means; `channels` for a mapping channel -> normalisation."""
    if isinstance(value, Mapping):
        value = value.get("name", "channels")
        return value if isinstance(value, str) else "channels"
    return getattr(value, "name", None)


NormaliseField = Annotated[
    Annotated[HuWindow, Tag("hu_window")]
    | Annotated[ZScore, Tag("zscore")]
    | Annotated[Percentile, Tag("percentile")]
    | Annotated[TrainingZScore, Tag("training_zscore")]
    | Annotated[dict[str, Normalise], Tag("channels")],
    Discriminator(_tag),
    BeforeValidator(lambda value: {"name": value} if isinstance(value, str) else value),
]
"""What a config says: one normalisation for all channels, or `{T1: {name: zscore}, CT: {name: hu_window}}`."""


@dataclass(frozen=True)
class Window:
    """An affine map behind a clip: y = (clip(x, lower, upper) - shift) * scale."""

    lower: float
    upper: float
    shift: float
    scale: float
    background: float
    """y of the smallest raw intensity: what pads a volume that is smaller than a patch."""

    def apply(self, voxels: NDArray[Any]) -> NDArray[np.float32]:
        """Return the normalised intensities, float32, of the same shape."""
        clipped = np.clip(voxels.astype(np.float32), np.float32(self.lower), np.float32(self.upper))
        clipped -= np.float32(self.shift)
        clipped *= np.float32(self.scale)
        return clipped


def fit(normalise: Normalise, stats: Sequence[IntensityStats]) -> Normalise:
    """Put numbers of the training cases into a normalisation; those made per case come back as they are.

    Every case counts the same, whatever the number of its labelled voxels, as in nnU-Net.

    Args:
        normalise: From the config.
        stats: One channel of each training case of the fold.

    Raises:
        ConfigError: `training_zscore`, and no case has labelled voxels.
    """
    if not isinstance(normalise, TrainingZScore):
        return normalise
    parts = [one.foreground for one in stats if one.foreground is not None]
    if not parts:
        raise ConfigError(
            "normalise: training_zscore takes its numbers from labelled voxels, and no training case has any. "
            "Choose zscore, percentile or hu_window."
        )
    mean = float(np.mean([part.mean for part in parts]))
    square = float(np.mean([part.std**2 + part.mean**2 for part in parts]))
    lower, upper = np.percentile(np.concatenate([part.quantiles for part in parts]), normalise.clip)
    numbers = (float(lower), float(upper), mean, max(square - mean**2, 0.0) ** 0.5)
    return normalise.model_copy(update={"fitted": numbers})


def fit_channels(
    normalise: Normalise | Mapping[str, Normalise], channels: Sequence[str], stats: Sequence[Sequence[IntensityStats]]
) -> tuple[Normalise, ...]:
    """Fit the normalisation of every channel.

    Args:
        normalise: One for all channels, or one for each by name.
        channels: Names, in the order of the store.
        stats: Of each training case, its channels.

    Returns:
        One fitted normalisation a channel, in the order of `channels`.

    Raises:
        ConfigError: the mapping does not name exactly the channels.
    """
    if isinstance(normalise, Mapping):
        if set(normalise) != set(channels):
            raise ConfigError(
                f"normalise: found channels {sorted(normalise)}; expected {sorted(channels)}. Name each channel once."
            )
        chosen = [normalise[channel] for channel in channels]
    else:
        chosen = [normalise] * len(channels)
    return tuple(fit(one, [case[index] for case in stats]) for index, one in enumerate(chosen))


def window(normalise: Normalise, stats: IntensityStats) -> Window:
    """Return the map from raw intensities of one channel of one case to network input.

    Raises:
        ConfigError: a `training_zscore` that was not fitted.
    """
    lower, upper, shift, scale = _numbers(normalise, stats)
    background = (min(max(stats.minimum, lower), upper) - shift) * scale
    return Window(lower, upper, shift, scale, background)


def body_threshold(minimum: float) -> float:
    """Return the intensity above which a voxel is body.

    -500 HU where the smallest intensity is below that (CT: air outside and table padding fall away, and so
    do lungs, which a bounding box keeps); else the smallest intensity itself (MR: zero outside the head).
    """
    return _HU_BODY if minimum < _HU_BODY else minimum


def measure(voxels: NDArray[Any], label: NDArray[np.uint8] | None = None) -> IntensityStats:
    """Measure one channel.

    Integers of up to 16 bits are counted exactly; of other types the quantiles come from an even sample of
    two million voxels.

    Args:
        voxels: (D, H, W), not empty, finite.
        label: (D, H, W) class indices; its labelled voxels give `foreground`.
    """
    if voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2:
        return _measure_integers(voxels, label)
    low, high = float(voxels.min()), float(voxels.max())
    body = voxels[voxels > body_threshold(low)]
    labelled = voxels[_is_foreground(label)] if label is not None else voxels[:0]
    return IntensityStats(
        minimum=low,
        maximum=high,
        body=_of_sample(body if body.size else voxels.ravel()),
        foreground=_of_sample(labelled) if labelled.size else None,
    )


def _numbers(normalise: Normalise, stats: IntensityStats) -> tuple[float, float, float, float]:
    """Return lower, upper, shift, scale."""
    if isinstance(normalise, ZScore):
        return -_UNBOUNDED, _UNBOUNDED, stats.body.mean, _one_over(stats.body.std)
    if isinstance(normalise, TrainingZScore):
        if normalise.fitted is None:
            raise ConfigError("normalise: training_zscore has no numbers yet; fit it on the training cases first.")
        lower, upper, mean, std = normalise.fitted
        return lower, upper, mean, _one_over(std)
    if isinstance(normalise, HuWindow):
        lower, upper = normalise.range_hu
    else:
        lower, upper = stats.body.percentile(normalise.lower), stats.body.percentile(normalise.upper)
    return lower, upper, (lower + upper) / 2, _one_over((upper - lower) / 2)


def _one_over(width: float) -> float:
    """Return 1/width; 1 where all intensities are equal, so that a constant channel becomes zero."""
    return 1 / width if width > 0 else 1.0


def _is_foreground(label: NDArray[np.uint8]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = (label > 0) & (label != IGNORE)
    return mask


def _measure_integers(voxels: NDArray[Any], label: NDArray[np.uint8] | None) -> IntensityStats:
    bounds = np.iinfo(voxels.dtype)
    counts = np.zeros(bounds.max - bounds.min + 1, np.int64)
    labelled = counts.copy()
    for index in range(voxels.shape[0]):  # slice by slice: bincount makes an int64 copy
        counts += np.bincount(voxels[index].ravel().astype(np.int64) - bounds.min, minlength=counts.size)
        if label is not None and (mask := _is_foreground(label[index])).any():
            labelled += np.bincount(voxels[index][mask].astype(np.int64) - bounds.min, minlength=counts.size)
    values = np.arange(bounds.min, bounds.max + 1, dtype=np.float64)
    low, high = values[np.flatnonzero(counts)[[0, -1]]]
    body = np.where(values > body_threshold(low), counts, 0)
    return IntensityStats(
        minimum=low,
        maximum=high,
        body=_of_histogram(values, body if body.any() else counts),
        foreground=_of_histogram(values, labelled) if labelled.any() else None,
    )


def _of_histogram(values: NDArray[np.float64], counts: NDArray[np.int64]) -> Distribution:
    total = int(counts.sum())
    mean = float(values @ counts / total)
    variance = float((values - mean) ** 2 @ counts / total)
    ranks = np.rint(np.linspace(0, total - 1, QUANTILES)).astype(np.int64)
    quantiles = values[np.searchsorted(np.cumsum(counts), ranks, side="right")]
    return Distribution(count=total, mean=mean, std=variance**0.5, quantiles=tuple(quantiles.tolist()))


def _of_sample(values: NDArray[Any]) -> Distribution:
    sample = values[:: -(-values.size // _SAMPLE)].astype(np.float64)
    quantiles = np.quantile(sample, np.linspace(0, 1, QUANTILES))
    return Distribution(
        count=int(values.size),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        quantiles=tuple(quantiles.tolist()),
    )
