"""The frames of an enhanced multi-frame file: what its functional groups say of each."""

from dataclasses import replace
from typing import Any

from pipeline.dicom import elements
from pipeline.dicom.plane import PixelData, Plane, Triple

SHARED, PER_FRAME = 0x52009229, 0x52009230


def planes_of(dataset: Any, common: Plane) -> tuple[Plane, ...]:
    """Return one plane a frame; the plane itself where the file has no functional groups.

    Args:
        dataset: Header with both functional group sequences, where the file has them.
        common: What the file says outside of them.
    """
    per_frame, frames = elements.items(dataset, PER_FRAME), common.header.frames
    if not per_frame:
        # What such a file says of a place holds for one frame at most.
        return (replace(common, position=None) if frames > 1 else common,)
    if len(per_frame) != frames and not common.header.pixels.fault:
        fault = PixelData(fault="lying lengths", detail=f"{frames} frames, of which {len(per_frame)} are described")
        common = replace(common, header=replace(common.header, pixels=fault))
    shared = elements.items(dataset, SHARED)
    return tuple(_plane(common, number, [item, *shared[:1]]) for number, item in enumerate(per_frame[: max(1, frames)]))


def _plane(common: Plane, number: int, groups: list[Any]) -> Plane:
    """Fill in a frame; a group of its own goes before the shared one."""
    content, measures = _group(groups, 0x00209111), _group(groups, 0x00289110)
    rescale, echo, diffusion = _group(groups, 0x00289145), _group(groups, 0x00189114), _group(groups, 0x00189117)
    kind = _group(groups, 0x00189226) or _group(groups, 0x00189329) or _group(groups, 0x00189751)
    position = elements.numbers(_group(groups, 0x00209113), 0x00200032)
    return replace(
        common,
        frame=number,
        position=_triple(position) or common.position,
        orientation=elements.numbers(_group(groups, 0x00209116), 0x00200037) or common.orientation,
        pixel_spacing=elements.numbers(measures, 0x00280030) or common.pixel_spacing,
        thickness=elements.number(measures, 0x00180050) or common.thickness,
        spacing_between=elements.number(measures, 0x00180088) or common.spacing_between,
        slope=elements.number_or(rescale, 0x00281053, common.slope),
        intercept=elements.number_or(rescale, 0x00281052, common.intercept),
        image_type=elements.texts(kind, 0x00089007) or common.image_type,
        echo=_text(elements.binary(echo, 0x00189082)) or common.echo,
        temporal=_text(elements.binary(content, 0x00209128)) or common.temporal,
        b_value=_text(elements.binary(diffusion, 0x00189087)) or common.b_value,
        gradient=_gradient(diffusion) or common.gradient,
        kernel=elements.text(_group(groups, 0x00189314), 0x00181210) or common.kernel,
        stack=elements.text(content, 0x00209056),
        acquisition=_text(elements.binary(content, 0x00209156)) or common.acquisition,
        trigger=_text(elements.binary(_group(groups, 0x00189118), 0x00209153)) or common.trigger,
    )


class _Nothing(dict[int, Any]):
    """Stands for a group that a file does not have: every element of it is absent."""

    def get_item(self, tag: int) -> None:
        """Return no element."""


_NOTHING = _Nothing()


def _group(groups: list[Any], tag: int) -> Any:
    for group in groups:
        found = elements.items(group, tag)
        if found:
            return found[0]
    return _NOTHING


def _gradient(diffusion: Any) -> str:
    direction = elements.items(diffusion, 0x00189076)
    return elements.text(direction[0], 0x00189089) if direction else ""


def _triple(values: tuple[float, ...]) -> Triple | None:
    return (values[0], values[1], values[2]) if len(values) == 3 else None


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
