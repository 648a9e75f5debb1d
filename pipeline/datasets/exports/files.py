"""Files of an exported data set: linked or copied byte for byte where they fit, converted where they do not."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.datasets.base import Case, Manifest
from pipeline.errors import ConfigError, DataError, plural
from pipeline.imaging.block import member_of
from pipeline.imaging.labels import Labels
from pipeline.imaging.read import read_case_images, read_label
from pipeline.imaging.write import write_image, write_mask
from pipeline.parallel import Job, failures, map_cases, refuse
from pipeline.progress import Progress
from pipeline.provenance import digest
from pipeline.workspace import atomic_path, write_json

RECORD = ".export.json"
"""Says what an export is of, so that an unfinished one goes on and another is not mixed into it."""
How = Literal["linked", "copied", "converted", "there"]
_MEMORY = 2 << 30


@dataclass(frozen=True)
class Planned:
    """One file to make."""

    target: Path
    case_id: str
    sources: tuple[Path, ...]
    """One file whose bytes are taken as they are, or the channels that become one file."""
    convert: bool = False
    channel: int | None = None
    """Which channel of a file that holds several is taken; None for all."""
    channels: int = 1
    """How many channels the source holds."""
    values: tuple[Labels, tuple[int, ...]] | None = None
    """For labels that are renumbered: what the values mean, and the new value of each class, `ignore` last."""
    is_label: bool = False
    """Whether it holds label values that stay as they are; one of a single value is fine then."""


def make_files(
    planned: Sequence[Planned], folder: Path, *, copy: bool, workers: int, progress: Progress
) -> dict[How, int]:
    """Make the files of an export; what an earlier, interrupted call of the same export made is kept.

    Args:
        planned: What to make, below `folder`.
        folder: The exported data set.
        copy: Whether bytes are copied even where a hard link would do.
        workers: Processes.
        progress: Shows a bar.

    Returns:
        How many files were linked, copied and converted, and how many were there.

    Raises:
        ConfigError: the folder holds something else.
        DataError: files cannot be read; all are named.
    """
    _claim(folder, planned)
    jobs = [Job(str(one.target.relative_to(folder)), (one, copy), _MEMORY) for one in planned]
    memory = max(1, workers) * _MEMORY
    done = map_cases(make_file, jobs, workers=workers, memory_bytes=memory, what="export files", progress=progress)
    if bad := failures(done):
        raise refuse(bad, "Mend them, or leave these cases out of the manifest.")
    ways: tuple[How, ...] = ("linked", "copied", "converted", "there")
    return {way: sum(how == way for how in done.values()) for way in ways}


def make_file(planned: Planned, copy: bool) -> How:
    """Make one file: link it, copy it or convert it.

    Raises:
        DataError: its source cannot be read.
    """
    if planned.target.exists():
        return "there"
    planned.target.parent.mkdir(parents=True, exist_ok=True)
    if planned.convert:
        _convert(planned)
        return "converted"
    source = planned.sources[0].resolve()
    if not copy:
        try:
            os.link(source, planned.target)
        except OSError:
            pass  # another disk, or a file system without hard links
        else:
            return "linked"
    with atomic_path(planned.target) as temporary:
        shutil.copyfile(source, temporary)
    return "copied"


def _convert(planned: Planned) -> None:
    case = planned.case_id
    if planned.is_label:
        _convert_label(planned)
        return
    if planned.values is None:
        names = [
            str(number) for number in range(planned.channels if len(planned.sources) == 1 else len(planned.sources))
        ]
        files = planned.sources * len(names) if len(planned.sources) == 1 else planned.sources
        image = read_case_images(dict(zip(names, files, strict=True)), case_id=case)
        if planned.channel is not None:
            image = image.with_voxels(image.voxels[planned.channel : planned.channel + 1])
        write_image(image, planned.target)
        return
    labels, numbers = planned.values
    label = read_label(planned.sources[0], labels, case_id=case)
    table = np.zeros(256, np.uint8)
    table[: len(numbers) - 1] = numbers[:-1]
    table[255] = numbers[-1]
    write_mask(table[label.voxels[0]], label.geometry, planned.target)


def _convert_label(planned: Planned) -> None:
    """Write a label file in the format of the target, through SimpleITK: the values are not looked at."""
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(planned.sources[0]))
    except RuntimeError:
        raise DataError(f"case {planned.case_id}: label: the file cannot be read. Export it again.") from None
    with atomic_path(planned.target) as temporary:
        sitk.WriteImage(image, str(temporary), True)


def _claim(folder: Path, planned: Sequence[Planned]) -> None:
    plan = [[str(one.target), [str(file) for file in one.sources], str(one.values)] for one in planned]
    record, key = folder / RECORD, digest(plan)
    if record.exists() and key in record.read_text("utf-8"):
        return
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            f"--output {folder}: it holds something else already; expected an empty folder. Name another."
        )
    write_json(record, {"plan": key})


def whole_cases(manifest: Manifest, *, leave_out: bool) -> list[Case]:
    """Return the cases that other layouts can hold: with all channels, labelled in full, in files of their own.

    Raises:
        DataError: there are others and they are not to be left out.
    """
    names = set(manifest.labels.classes[1:])
    whole: list[Case] = []
    partial: list[Case] = []
    for case in manifest.cases:
        is_whole = set(case.images) == set(manifest.channels) and (
            case.annotated is None or names <= set(case.annotated)
        )
        (whole if is_whole else partial).append(case)
        if any(member_of(file) or file.is_dir() for file in case.images.values()):
            raise DataError(
                f"case {case.case_id}: its image is a folder of slices or one of many in a file; expected a volume "
                "file. Convert it first."
            )
    if partial and not leave_out:
        some = ", ".join(case.case_id for case in partial[:10])
        raise DataError(
            f"{plural(len(partial), 'case')} labelled in part or without a channel ({some}"
            f"{', ...' if len(partial) > 10 else ''}): other programs would take what is missing for background. "
            "Leave them out with --leave-out."
        )
    return whole
