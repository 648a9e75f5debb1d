"""A picture of each finished case: three planes of the patient with the outline of what was found."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.batch.sources import Added, Finished
from pipeline.imaging.geometry import apply, canonical_geometry, reorientation_of
from pipeline.workspace import atomic_path


def write_preview(finished: Finished) -> Added | None:
    """Write `previews/<case>.png`; the planes with most of what was found, cut to its surroundings."""
    mask = finished.prediction.mask
    if mask is None:
        return None
    from pipeline.stages.pictures import overlay_figure

    labels, turned = finished.recipe.labels, reorientation_of(finished.volume.geometry)
    picture = overlay_figure(
        apply(finished.volume.voxels[0], turned),
        canonical_geometry(turned).spacing_mm,
        None,
        np.ascontiguousarray(apply(labels.to_index(mask), turned)),
        class_names=labels.classes,
    )
    name = f"previews/{finished.source.case_id}.png"
    with atomic_path(finished.folder / name) as temporary:
        temporary.write_bytes(picture)
    return Added(files=(name,))


def smaller(picture: bytes, width: int = 420) -> bytes:
    """Return a PNG of at most that width, small enough to stand a hundred times on one page."""
    from PIL import Image

    with Image.open(io.BytesIO(picture)) as opened:
        height = max(1, round(opened.height * min(1.0, width / opened.width)))
        made = opened.convert("RGB").resize((min(width, opened.width), height), Image.Resampling.LANCZOS)
    return _png(made.quantize(64))


def grey_png(values: NDArray[np.uint8]) -> bytes:
    """Return grey levels (h, w) as a PNG file."""
    from PIL import Image

    return _png(Image.fromarray(values))


def _png(image: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
