"""All figures of one case: each class of a predicted mask against the reference, on the reference's grid."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, DataError
from pipeline.imaging.labels import IGNORE, Labels
from pipeline.metrics.base import MaskPair, Metric, Spacing

Row = dict[str, Any]
"""One line of `per_case.csv`: case_id, class, presence, then the columns of the metrics."""

BOTH, MISSED, FALSE_POSITIVE, ABSENT, NOT_ANNOTATED = "both", "missed", "false_positive", "absent", "not_annotated"
PRESENCES = (BOTH, MISSED, FALSE_POSITIVE, ABSENT, NOT_ANNOTATED)
"""Where a class was: in both masks; in the reference only; in the prediction only; in neither; not labelled."""


def score_case(
    case_id: str,
    prediction: Path,
    reference: Path,
    annotated: Sequence[str] | None = None,
    *,
    labels: Labels,
    metrics: Sequence[Metric],
) -> list[Row]:
    """Read two masks and score every class; made for child processes.

    Args:
        case_id: Named in rows and messages.
        prediction: Mask with the label values of `labels`.
        reference: Mask on the same grid.
        annotated: Classes that were labelled in the reference; None for all. A region counts as labelled
            where all its members were.
        labels: Meaning of the values of both files.
        metrics: Those whose `kind` is `MaskPair`.

    Returns:
        One row a class, as `score_masks`.

    Raises:
        DataError: a file is unreadable, or the two lie on different grids.
    """
    from pipeline.imaging.geometry import difference
    from pipeline.imaging.read import read_label

    truth, guess = read_label(reference, labels, case_id=case_id), read_label(prediction, labels, case_id=case_id)
    differences = difference(guess.geometry, truth.geometry)
    if differences:
        raise DataError(
            f"case {case_id}: prediction and reference grids differ: {'; '.join(differences)}; expected one grid. "
            "Predict again on the reference's image, or resample the prediction to its grid."
        )
    if annotated is not None:
        annotated = [*annotated, *(name for name, parts in labels.regions.items() if set(parts) <= set(annotated))]
    rows = score_masks(
        guess.voxels[0],
        truth.voxels[0],
        truth.geometry.spacing_mm,
        members=class_members(labels),
        metrics=metrics,
        annotated=annotated,
    )
    return [{"case_id": case_id, **row} for row in rows]


def class_members(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Return what is scored: name -> the class indices that belong to it (several for a region)."""
    index = {name: number for number, name in enumerate(labels.classes)}
    if labels.regions:
        return {region: tuple(index[name] for name in names) for region, names in labels.regions.items()}
    return {name: (index[name],) for name in labels.foreground}


def score_masks(
    prediction: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    spacing_mm: Spacing,
    *,
    members: Mapping[str, tuple[int, ...]],
    metrics: Sequence[Metric],
    annotated: Sequence[str] | None = None,
) -> list[Row]:
    """Score every class of one case.

    Args:
        prediction: (D, H, W) class indices.
        reference: (D, H, W) class indices; where it is `IGNORE`, neither mask counts.
        spacing_mm: Voxel size along (D, H, W), in mm.
        members: Class name -> its indices.
        metrics: Those whose `kind` is `MaskPair`.
        annotated: Names that were labelled in the reference; None for all.

    Returns:
        One row a class: `class`, `presence` (one of `PRESENCES`) and the columns of the metrics, all NaN
        where the class was not labelled.
    """
    ignored = reference == IGNORE
    if ignored.any():
        prediction, reference = (np.where(ignored, np.uint8(0), mask) for mask in (prediction, reference))
    boxes = [_boxes(mask) for mask in (prediction, reference)]
    rows = []
    for name, indices in members.items():
        box = _around([found[index] for found in boxes for index in indices if index in found])
        pair = MaskPair(_mask(prediction[box], indices), _mask(reference[box], indices), spacing_mm)
        presence = _presence(pair) if annotated is None or name in annotated else NOT_ANNOTATED
        row: Row = {"class": name, "presence": presence}
        for metric in metrics:
            figures = metric.score(pair)
            if taken := sorted(row.keys() & figures.keys()):
                raise ConfigError(
                    f"metric {metric.name}: it writes the column {taken[0]!r}, which is taken; expected names of its "
                    "own. Rename it, or leave one metric out."
                )
            row |= dict.fromkeys(figures, float("nan")) if presence == NOT_ANNOTATED else figures
        rows.append(row)
    return rows


def _presence(pair: MaskPair) -> str:
    predicted, true = bool(pair.prediction.any()), bool(pair.reference.any())
    return {(True, True): BOTH, (False, True): MISSED, (True, False): FALSE_POSITIVE, (False, False): ABSENT}[
        predicted, true
    ]


def _mask(indices: NDArray[np.uint8], wanted: tuple[int, ...]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = indices == wanted[0]
    for index in wanted[1:]:
        mask |= indices == index
    return mask


def _boxes(indices: NDArray[np.uint8]) -> dict[int, tuple[slice, ...]]:
    """Return the bounding box of every class in one pass, so that small classes do not cost a whole volume each."""
    from scipy.ndimage import find_objects

    return {number: box for number, box in enumerate(find_objects(indices), 1) if box is not None}


def _around(boxes: Sequence[tuple[slice, ...]]) -> tuple[slice, ...]:
    """Return the smallest box that holds all of them; an empty one for none."""
    if not boxes:
        return (slice(0, 0),) * 3
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides)) for sides in zip(*boxes, strict=True)
    )
