"""What makes a finished case one that a person should look at: each doubt in words, with its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from pipeline.batch.exports import series_of
from pipeline.batch.sources import Added, Finished
from pipeline.errors import listed
from pipeline.imaging.facts import Intensities, intensities
from pipeline.imaging.geometry import canonical_geometry, reorientation_of
from pipeline.imaging.labels import Labels
from pipeline.imaging.training_range import COMPARED, ClassRange, Span, TrainingRange
from pipeline.imaging.volume import Geometry, Volume
from pipeline.plugin import Settings

_AXES = ("slices", "rows", "columns")
_FACES = (("inferior", "superior"), ("anterior", "posterior"), ("right", "left"))
"""Ends of the canonical axes (D, H, W): the first index, the last."""
_ALWAYS = 0.95
"""Share of the training cases from which on a class is expected in every case."""


class QualityOptions(Settings):
    """How far a case may be from what the network was trained on before somebody should look."""

    spacing: float = Field(default=0.25, ge=0)
    """Share by which the voxel size may lie outside the range of the training."""
    field_of_view: float = Field(default=0.25, ge=0)
    """Share by which the field of view may lie outside it."""
    intensity: float = Field(default=0.5, ge=0)
    """Share of the range of intensities by which a percentile may lie outside it."""
    volume: float = Field(default=0.2, ge=0)
    """Share by which the volume of a class may lie outside it."""
    pieces: int = Field(default=10, ge=1)
    """Times as many connected components as in any training case."""
    confidence: float = Field(default=0.6, ge=0, le=1)
    """Mean probability of the voxels of a class, or of the class of a whole volume, below which it is in doubt."""


def check_case(finished: Finished, options: QualityOptions | None = None) -> Added:
    """Say what is doubtful about a finished case.

    Where the model has no summary of its training, only what the case itself shows is looked at.
    """
    options = options or QualityOptions()
    seen = range_of(finished.recipe.seen)
    reasons = list(_of_mask(finished, seen, options))
    if seen is not None:
        modalities = {series.header.modality for series in series_of(finished.source)}
        there = finished.source.files  # some channels are optional
        channels = [name for name in finished.recipe.channels if name in there] or finished.recipe.channels
        reasons = [*check_input(finished.volume, channels, seen, options, modalities), *reasons]
    return Added(review=tuple(reasons))


def range_of(seen: Mapping[str, Any]) -> TrainingRange | None:
    """Return the summary of the training that a recipe carries; None where it has none that can be read."""
    try:
        return TrainingRange.model_validate(dict(seen)) if seen else None
    except ValidationError:
        return None


def check_input(
    volume: Volume,
    channels: Sequence[str],
    seen: TrainingRange,
    options: QualityOptions,
    modalities: set[str] | None = None,
) -> Iterator[str]:
    """Name what of an image lies outside what a network was trained on.

    Args:
        volume: The image on its own grid.
        channels: Names of those that it has.
        seen: What the network was trained on.
        options: How far outside is still fine.
        modalities: Of its series; empty where they are not known.
    """
    strange = sorted((modalities or set()) - {seen.modality})
    if seen.modality and strange:
        yield f"modality {', '.join(strange)}; trained on {seen.modality}"
    grid = canonical_geometry(reorientation_of(volume.geometry))
    yield from _outside(grid.spacing_mm, seen.spacing_mm, options.spacing, "voxel size along {}: {} mm")
    yield from _outside(grid.extent_mm, seen.extent_mm, options.field_of_view, "field of view along {}: {} mm")
    for name, voxels in zip(channels, volume.voxels, strict=True):
        if name in seen.channels:
            at = f"intensities of {name}" if len(seen.channels) > 1 else "intensities"
            yield from _strange_intensities(at, intensities(voxels), seen.channels[name].percentiles, options.intensity)


def _outside(values: Sequence[float], spans: Sequence[Span], share: float, words: str) -> Iterator[str]:
    for axis, value, span in zip(_AXES, values, spans, strict=True):
        if not span.widened(share).holds(value):
            yield f"{words.format(axis, _figure(value))}; trained on {_figure(span.low)} to {_figure(span.high)}"


def _strange_intensities(at: str, found: Intensities, spans: Sequence[Span], share: float) -> Iterator[str]:
    room = share * (spans[-1].high - spans[0].low)
    for percent, span in zip(COMPARED, spans, strict=True):
        value = found.percentile(percent)
        if not span.low - room <= value <= span.high + room:
            trained = f"{_figure(span.low)} to {_figure(span.high)}"
            yield f"{at}: percentile {percent:g} is {_figure(value)}; trained on {trained}"
            return


def _of_mask(finished: Finished, seen: TrainingRange | None, options: QualityOptions) -> Iterator[str]:
    prediction, labels = finished.prediction, finished.recipe.labels
    yield from _doubts(prediction.confidence, options)
    if prediction.mask is None:
        yield from _doubts(_strongest(prediction.probabilities), options)
        return
    if not any(prediction.volumes_ml.values()):
        yield "nothing was found in it"
        return
    classes = seen.classes if seen else {}
    yield from _strange_volumes(_class_volumes(finished), classes, options)
    boxes = _boxes(prediction.mask, labels)
    for name, box in boxes.items():
        known = classes.get(name)
        faces = _faces(box, prediction.mask.shape, finished.volume.geometry)
        if faces and (known is None or known.touching < 0.5):
            yield f"{name} reaches {_said(faces)} of the image, and may go on beyond it"
        if known is not None and (pieces := _pieces(prediction.mask, labels, name, box)) > (
            options.pieces * max(1, known.components)
        ):
            yield f"{name} is in {pieces} pieces; at most {known.components} in training"


def _strange_volumes(
    volumes_ml: Mapping[str, float], classes: Mapping[str, ClassRange], options: QualityOptions
) -> Iterator[str]:
    for name, known in classes.items():
        volume, span = volumes_ml.get(name, 0.0), known.volume_ml
        if volume == 0:
            if known.present >= _ALWAYS:
                yield f"no {name}; {known.present:.0%} of the training cases have it"
        elif not span.widened(options.volume).holds(volume):
            yield f"{name}: {_figure(volume)} ml; trained on {_figure(span.low)} to {_figure(span.high)} ml"


def _class_volumes(finished: Finished) -> Mapping[str, float]:
    """Return the volume of each class in ml; a prediction of regions gives those of the regions."""
    mask, labels = finished.prediction.mask, finished.recipe.labels
    if not labels.regions or mask is None:
        return finished.prediction.volumes_ml
    counts = np.bincount(labels.to_index(mask).ravel(), minlength=len(labels.classes))
    voxel_ml = float(np.prod(finished.volume.geometry.spacing_mm)) / 1000
    return {name: float(count) * voxel_ml for name, count in zip(labels.classes, counts, strict=False)}


def _doubts(confidence: Mapping[str, float], options: QualityOptions) -> Iterator[str]:
    for name, value in confidence.items():
        if value < options.confidence:
            yield f"low confidence in {name}: mean probability {value:.2f}; expected {options.confidence:g} or more"


def _said(faces: Sequence[str]) -> str:
    return "every border" if len(faces) == 6 else f"the {listed(faces)} border{'s' if len(faces) > 1 else ''}"


def _strongest(probabilities: Mapping[str, float]) -> dict[str, float]:
    if not probabilities:
        return {}
    name = max(probabilities, key=lambda one: probabilities[one])
    return {name: probabilities[name]}


def _boxes(mask: NDArray[Any], labels: Labels) -> dict[str, tuple[slice, ...]]:
    """Return the box around each class that a mask of label values has."""
    from scipy import ndimage

    indices = labels.to_index(mask)
    boxes = ndimage.find_objects(indices, max_label=len(labels.classes) - 1)
    return {name: box for name, box in zip(labels.classes[1:], boxes, strict=True) if box is not None}


def _faces(box: Sequence[slice], shape: Sequence[int], geometry: Geometry) -> list[str]:
    """Name the sides of the patient at which a box ends with the image."""
    turned = reorientation_of(geometry)
    found = []
    for (low, high), axis, flip in zip(_FACES, turned.axes, turned.flips, strict=True):
        first, last = box[axis].start == 0, box[axis].stop == shape[axis]
        at_low, at_high = (last, first) if flip else (first, last)
        found += [name for name, touches in ((low, at_low), (high, at_high)) if touches]
    return found


def _pieces(mask: NDArray[Any], labels: Labels, name: str, box: tuple[slice, ...]) -> int:
    import cc3d

    inside = labels.to_index(mask[box]) == labels.classes.index(name)
    return int(cc3d.connected_components(np.ascontiguousarray(inside), connectivity=26, return_N=True)[1])


def _figure(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
