"""The one preprocessing, of training cases and of new ones: orientation, crop, voxel size and stored type."""

import math
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat

from pipeline.errors import DataError
from pipeline.imaging.crop import Box, body_box, cover, middle, nonzero_box, whole_box
from pipeline.imaging.encoding import Encoding, choose_encoding, common_type, estimate_noise
from pipeline.imaging.geometry import apply, canonical, cropped_geometry, resampled_geometry
from pipeline.imaging.normalise import Distribution, IntensityStats, body_threshold, measure
from pipeline.imaging.placement import Placement
from pipeline.imaging.resample import Order, Thick, resample, resample_label
from pipeline.imaging.store import CaseMeta, LoadedCase, count_classes
from pipeline.imaging.volume import Geometry, Shape, Spacing, Volume
from pipeline.plugin import Settings

MOST_VOXELS = 2**32
"""Of a case to work on: whole bodies at half a millimetre have a tenth; beyond, its voxel size is wrong."""

T = TypeVar("T")
_ABSENT = -(2.0**15)
"""Intensity of a channel that a case lacks: below all that is measured, and exact in every stored type."""
ABSENT = IntensityStats(
    minimum=_ABSENT, maximum=_ABSENT, body=Distribution(count=0, mean=0.0, std=-_ABSENT, quantiles=(_ABSENT, -_ABSENT))
)
"""Figures of such a channel, with which every normalisation gives its background: the lower end of a window, and one
standard deviation below the mean where each case has its own."""


class PrepareOptions(Settings):
    """What is done to every case before training or inference. Part of the recipe."""

    spacing_mm: Spacing | None = None
    """Voxel size along (D, H, W), in mm; None keeps each case's own."""
    crop: Literal["none", "body", "nonzero"] = "body"
    """Bounding box to keep: all, the largest bodies above the air, or all voxels that are not 0."""
    margin_mm: NonNegativeFloat = 5.0
    """Added to the box on all sides, as far as there are voxels."""
    middle_mm: Spacing | None = None
    """Extent along (D, H, W), in mm, of the middle of that box which alone is kept, labelled or not; None for all."""
    resize: Shape | None = None
    """Voxels (D, H, W) that every volume is brought to, in place of a voxel size; None where `spacing_mm` decides."""
    order: Order = 3
    """Interpolation of images: 3 cubic B-spline, 1 linear, 0 nearest."""
    thick: Thick = "linear"
    """Interpolation along axes whose voxels are more than 3 times the smallest: a spline overshoots there."""
    antialias: bool = False
    """Average over the new voxel where voxels grow."""
    label_order: Literal[0, 1] = 1
    """Interpolation of labels: 1 argmax of linear votes, 0 nearest."""


def prepare(
    volume: Volume,
    label: NDArray[np.uint8] | None,
    options: PrepareOptions,
    *,
    case_id: str = "case",
    channels: Sequence[str] = ("image",),
    missing: Sequence[str] = (),
    threads: int | None = None,
) -> LoadedCase:
    """Bring a case to the working grid and the stored type.

    The result holds the numbers that the store gives back, to the bit, so that inference sees what training saw.

    Args:
        volume: As read, any orientation; finite.
        label: (D, H, W) class indices on the same grid; its labelled voxels are never cropped away.
        options: From the config or the recipe.
        case_id: Key of the random draw of voxels, and the name in messages.
        channels: Names of the channels.
        missing: Those of them that the case lacks; `volume` holds the others. They become constant, at the level
            of the background.
        threads: One a core where None, but one in a worker process; they do not change the numbers.

    Raises:
        ValueError: label or channel names do not fit the volume.
        DataError: at the voxel size to work on it would be absurdly large.
    """
    there = [channel not in missing for channel in channels]
    if sum(there) != volume.channels or (label is not None and label.shape != volume.geometry.shape):
        raise ValueError(f"channels {tuple(channels)} or the label do not fit voxels {volume.voxels.shape}")
    upright, reorientation = canonical(volume)
    label = None if label is None else apply(label, reorientation)
    box = _box(upright, label, options)
    native = Volume(_small(upright.voxels[(slice(None), *box.slices)]), cropped_geometry(upright.geometry, *box))
    label = None if label is None else np.ascontiguousarray(label[box.slices])

    stats = tuple(measure(channel, label) for channel in native.voxels)
    spacing = _spacing(native.geometry, options)
    working = resampled_geometry(native.geometry, spacing)
    if math.prod(working.shape) > MOST_VOXELS:
        size, found = (" x ".join(f"{n:g}" for n in sides) for sides in (working.shape, native.geometry.spacing_mm))
        raise DataError(
            f"case {case_id}: with voxels of {found} mm it would become {size} voxels to work on; expected at most "
            f"{MOST_VOXELS:g}. Correct the voxel size in its header, or its unit."
        )
    encodings = _encodings(native, stats, exact=working == native.geometry or options.order == 0)
    image = resample(
        native, spacing, order=options.order, thick=options.thick, antialias=options.antialias, encodings=encodings,
        threads=threads,
    )  # fmt: skip
    if label is not None:
        label = resample_label(label, native.geometry, spacing, order=options.label_order, threads=threads)
    placement = Placement(reorientation=reorientation, start=box.start, stop=box.stop, working=working)
    meta = CaseMeta(
        case_id=case_id,
        channels=tuple(channels),
        placement=placement,
        encodings=_spread(encodings, there, Encoding(dtype=encodings[0].dtype)),
        stats=_spread(stats, there, ABSENT),
        class_voxels=None if label is None else count_classes(label),
    )
    return LoadedCase(meta, image.voxels if all(there) else _with_absent(image.voxels, there), label)


def _spread(found: Sequence[T], there: Sequence[bool], absent: T) -> tuple[T, ...]:
    """Put what was found where a channel is, and `absent` where none is."""
    rest = iter(found)
    return tuple(next(rest) if is_there else absent for is_there in there)


def _with_absent(voxels: NDArray[Any], there: Sequence[bool]) -> NDArray[Any]:
    filled = np.full((len(there), *voxels.shape[1:]), _ABSENT, voxels.dtype)
    filled[np.flatnonzero(there)] = voxels
    return filled


def _spacing(native: Geometry, options: PrepareOptions) -> Spacing:
    if options.resize is None:
        return options.spacing_mm or native.spacing_mm
    depth, height, width = (extent / n for extent, n in zip(native.extent_mm, options.resize, strict=True))
    return depth, height, width


def _box(upright: Volume, label: NDArray[np.uint8] | None, options: PrepareOptions) -> Box:
    if options.crop == "none":
        box = whole_box(upright.geometry.shape)
    else:
        find = body_box if options.crop == "body" else nonzero_box
        box = find(upright, options.margin_mm)
        box = box if label is None else cover(box, label)
    return box if options.middle_mm is None else middle(box, upright.geometry.spacing_mm, options.middle_mm)


def _small(voxels: NDArray[Any]) -> NDArray[Any]:
    """Return contiguous voxels as int16 where they are whole numbers that fit, else as float32.

    Many files hold whole numbers as float, because of a scale factor of 1, or as int32.
    """
    if voxels.dtype != np.int16 and not _fits_int16(voxels):
        return np.ascontiguousarray(voxels, np.float32)
    return np.ascontiguousarray(voxels, np.int16)


def _fits_int16(voxels: NDArray[Any]) -> bool:
    bounds = np.iinfo(np.int16)
    return all(
        float(part.min()) >= bounds.min
        and float(part.max()) <= bounds.max
        and (part.dtype.kind != "f" or bool(np.array_equal(part, np.rint(part))))
        for channel in voxels
        for part in channel
    )


def _encodings(native: Volume, stats: tuple[IntensityStats, ...], *, exact: bool) -> tuple[Encoding, ...]:
    whole = native.voxels.dtype == np.int16
    return common_type(
        tuple(
            choose_encoding(
                one.minimum,
                one.maximum,
                noise=estimate_noise(channel, body_threshold(one.minimum)),
                spread=one.body.std,
                whole=whole,
                exact=exact,
            )
            for channel, one in zip(native.voxels, stats, strict=True)
        )
    )
