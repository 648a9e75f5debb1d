"""From the files of a case to its entry in the cache: what a worker process does for ingest."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.imaging.labels import Labels
from pipeline.imaging.prepare import PrepareOptions, prepare
from pipeline.imaging.read import read_case
from pipeline.imaging.store import open_case, write_case
from pipeline.imaging.volume import Volume


def ingest_case(
    images: Mapping[str, Path | None],
    label: Path | None,
    labels: Labels,
    case_id: str,
    options: PrepareOptions,
    folder: Path,
) -> tuple[int, int, int]:
    """Read, prepare and store one case, unless `folder` holds it already.

    Args:
        images: Channel -> file or folder, in the order of the store; None for a channel that the case lacks.
        label: Label file, or None.
        labels: What its values mean.
        case_id: Named in errors.
        options: How to prepare it.
        folder: Entry in the cache; its name stands for all of the above.

    Returns:
        Size (D, H, W) of the prepared volume.

    Raises:
        DataError: the case cannot be used.
    """
    if (folder / "case.json").exists():
        return open_case(folder).shape
    files = {channel: path for channel, path in images.items() if path is not None}
    volumes, indices = read_case(files, label, labels, case_id=case_id)
    first = next(iter(volumes.values()))
    voxels = first.voxels if len(volumes) == 1 else np.concatenate([volume.voxels for volume in volumes.values()])
    made = prepare(
        Volume(voxels, first.geometry),
        None if indices is None else indices.voxels[0],
        options,
        case_id=case_id,
        channels=tuple(images),
        missing=tuple(channel for channel in images if channel not in files),
    )
    write_case(folder, made.voxels, made.label, made.meta)
    return made.shape
