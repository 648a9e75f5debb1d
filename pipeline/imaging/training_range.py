"""What a network has seen in training: ranges over cases, from the facts of a survey, that travel with its recipe."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from pipeline.imaging.facts import PERCENTILES, CaseFacts, Intensities
from pipeline.plugin import Settings

COMPARED = (5.0, 50.0, 95.0)
"""Percentiles of the intensities that are compared."""
_MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR", "PT": "PT", "PET": "PT"}


class Span(Settings):
    """The lowest and the highest of a figure over the cases of a training."""

    low: float
    high: float

    def widened(self, share: float) -> "Span":
        """Return the span with both ends moved out by a share of themselves."""
        ends = [end * factor for end in (self.low, self.high) for factor in (1 - share, 1 + share)]
        return Span(low=min(ends), high=max(ends))

    def holds(self, value: float) -> bool:
        """Say whether a value lies inside, ends included."""
        return self.low <= value <= self.high


class ChannelRange(Settings):
    """Intensities of one channel over the cases of a training."""

    percentiles: tuple[Span, ...]
    """At `COMPARED`, over all voxels of a case."""
    spread: Span
    """Standard deviation over all voxels of a case."""


class ClassRange(Settings):
    """One class over the cases of a training."""

    present: float
    """Share of the cases that have it."""
    volume_ml: Span
    """Where it is there."""
    components: int
    """Most connected components in a case."""
    touching: float
    """Share of the cases that have it in which it reaches an outer face of the image."""


class TrainingRange(Settings):
    """What a network was trained on."""

    cases: int
    modality: str = ""
    """As DICOM says it (`CT`, `MR`); empty where the data set does not say."""
    spacing_mm: tuple[Span, Span, Span]
    """Voxel size along canonical (D, H, W), in mm."""
    extent_mm: tuple[Span, Span, Span]
    """Field of view along canonical (D, H, W), in mm."""
    channels: dict[str, ChannelRange]
    classes: dict[str, ClassRange] = Field(default_factory=dict)
    """Foreground classes that at least one case has."""


def training_range(facts: Iterable[CaseFacts], modality: str = "") -> TrainingRange | None:
    """Sum up the facts of the cases of a training.

    Args:
        facts: Of the cases that it was trained on, not of those it was validated on.
        modality: Of the data set, as DICOM says it.

    Returns:
        None where there is no case.
    """
    listed = list(facts)
    if not listed:
        return None
    names = dict.fromkeys(name for one in listed for name in one.classes)
    found = {name: _class_range(name, listed) for name in names}
    return TrainingRange(
        cases=len(listed),
        modality=modality,
        spacing_mm=_spans([one.canonical.spacing_mm for one in listed]),
        extent_mm=_spans([one.canonical.extent_mm for one in listed]),
        channels={
            name: _channel_range([one.channels[name].all for one in listed if name in one.channels])
            for name in dict.fromkeys(name for one in listed for name in one.channels)
        },
        classes={name: one for name, one in found.items() if one is not None},
    )


def modality_of(metadata: Mapping[str, Any]) -> str:
    """Return the modality that the metadata of a data set names, as DICOM says it; empty where that is not clear.

    Understood is `modality: MRI`, and `modality: {0: MRI}` as in `dataset.json` of the Decathlon.
    """
    said = metadata.get("modality")
    words = said.values() if isinstance(said, Mapping) else [said]
    found = {_MODALITIES.get(str(word).upper(), "") for word in words}
    return found.pop() if len(found) == 1 else ""


def _spans(rows: Sequence[tuple[float, float, float]]) -> tuple[Span, Span, Span]:
    depth, height, width = (_span(column) for column in zip(*rows, strict=True))
    return depth, height, width


def _span(values: Iterable[float]) -> Span:
    listed = list(values)
    return Span(low=min(listed), high=max(listed))


def _channel_range(found: Sequence[Intensities]) -> ChannelRange:
    return ChannelRange(
        percentiles=tuple(_span(one.percentiles[PERCENTILES.index(at)] for one in found) for at in COMPARED),
        spread=_span(one.std for one in found),
    )


def _class_range(name: str, facts: Sequence[CaseFacts]) -> ClassRange | None:
    there = [(one, one.classes[name]) for one in facts if name in one.classes and one.classes[name].voxels]
    if not there:
        return None
    touching = 0
    for case, found in there:
        assert found.start is not None
        assert found.stop is not None
        touching += min(found.start) == 0 or any(a == b for a, b in zip(found.stop, case.canonical_shape, strict=True))
    return ClassRange(
        present=len(there) / len(facts),
        volume_ml=_span(found.volume_ml for _, found in there),
        components=max(found.components for _, found in there),
        touching=touching / len(there),
    )
