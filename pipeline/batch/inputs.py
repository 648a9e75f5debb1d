"""What to predict among the files that the user names: single ones, folders, or the cases of a manifest."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.batch.sources import Found, Passed, Source
from pipeline.datasets.listing import safe_id
from pipeline.datasets.manifest import absolute, natural_order, read_manifest
from pipeline.errors import ConfigError, join_problems

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr")
_PREAMBLE, _DICOM = 128, b"DICM"
_NUMBERED = re.compile(r"(.+)_(\d{4})")


@dataclass
class _Gathered:
    """What was found so far."""

    optional: frozenset[str] = frozenset()
    sources: dict[str, Source] = field(default_factory=dict)
    passed: list[Passed] = field(default_factory=list)
    twice: set[str] = field(default_factory=set)

    def add(self, source: Source) -> None:
        if source.case_id in self.sources:
            if self.sources[source.case_id].files != source.files:
                self.twice.add(source.case_id)
        else:
            self.sources[source.case_id] = source

    def note_closed(self, error: OSError) -> None:
        """Note a folder that cannot be looked into."""
        name = _clean(Path(str(error.filename)).name)
        why = f"folder {name}: it cannot be looked into ({error.strerror}). Give the right to read it."
        self.passed.append(Passed(name, "unreadable", why))

    def found(self) -> Found:
        passed = [
            Passed(one, "ambiguous", f"case {one}: several inputs have this name; expected one. Use a manifest.")
            for one in sorted(self.twice)
        ]
        clear = tuple(source for source in self.sources.values() if source.case_id not in self.twice)
        return Found(clear, (*self.passed, *passed))


def find_files(
    inputs: Sequence[Path], channels: Sequence[str], optional: Sequence[str] = ()
) -> tuple[Found, tuple[Path, ...]]:
    """Find what can be predicted among files, folders and manifests.

    In a folder, which is looked through whole, every `.nii(.gz)`, `.mha`, `.mhd`, `.nrrd` and `.nhdr` is a case,
    named after the file and the folders between. Channels are files of their own: `NAME_0000`, `NAME_0001` ... in the
    order of the recipe, or `NAME_<channel>`; a file without such an ending holds them all. Hidden files are passed
    over. A `.csv` is a manifest.

    Args:
        inputs: What the user named.
        channels: Of the recipe.
        optional: Those of them that a case may lack.

    Returns:
        The cases, and the inputs that may be a scanner's export: without any such file, or with DICOM files beside.

    Raises:
        ConfigError: an input does not exist; all are named at once.
        DataError: a manifest cannot be used.
    """
    if missing := [str(path) for path in inputs if not path.exists()]:
        raise ConfigError(join_problems("predict", [f"there is no {name}. Check the path." for name in missing]))
    gathered, rest = _Gathered(frozenset(optional)), []
    for path in inputs:
        if path.is_file() and path.suffix.lower() == ".csv":
            _of_manifest(path, channels, gathered)
        elif files := list(_volumes(path, gathered.note_closed)):
            _of_files(path if path.is_dir() else path.parent, files, channels, gathered)
            if path.is_dir() and _holds_dicom(path):
                rest.append(path)
        else:
            rest.append(path)
    return gathered.found(), tuple(rest)


def _of_manifest(path: Path, channels: Sequence[str], gathered: _Gathered) -> None:
    for case in read_manifest(path, need_files=False).cases:
        is_single = len(case.images) == len(channels) == 1  # then the name of the channel does not matter
        images = dict.fromkeys(channels, next(iter(case.images.values()))) if is_single else case.images
        folders = {name: images[name] for name in channels if name in images and images[name].is_dir()}
        if folders:
            _add_series(case.case_id, folders, channels, gathered)
            continue
        _add(case.case_id, images, channels, gathered)


def _of_files(root: Path, files: Iterable[Path], channels: Sequence[str], gathered: _Gathered) -> None:
    """Group the files of a folder by what is before the ending that names the channel."""
    groups: dict[str, dict[str, Path]] = {}
    for file in files:
        stem, channel = _channel_of(_stem(file), channels)
        name = "_".join((*file.parent.relative_to(root).parts, stem))
        groups.setdefault(_clean(name), {}).setdefault(channel, file)
        if groups[_clean(name)][channel] != file:
            gathered.twice.add(_clean(name))
    for case_id, images in sorted(groups.items(), key=lambda item: natural_order(item[0])):
        whole = images.get("")  # one file with all channels
        _add(case_id, images if whole is None else dict.fromkeys(channels, whole), channels, gathered)


def _add(case_id: str, images: Mapping[str, Path], channels: Sequence[str], gathered: _Gathered) -> None:
    absent = [name for name in channels if name not in images and name not in gathered.optional]
    lost = [name for name in channels if name in images and not images[name].exists()]
    there = {name: (absolute(images[name]),) for name in channels if name in images}
    if there and not absent and not lost:
        gathered.add(Source(case_id, there))
        return
    absent = absent or list(channels)
    if lost:
        why = f"case {case_id}: the file of {', '.join(lost)} is not there; expected one. Correct the manifest."
    else:
        number = list(channels).index(absent[0])
        why = (
            f"case {case_id}: no file for channel {', '.join(absent)}; expected {', '.join(channels)}, as the model "
            f"was trained. Name it {case_id}_{number:04d} or {case_id}_{absent[0]}."
        )
    gathered.passed.append(Passed(case_id, "unreadable", why))


def _add_series(case_id: str, folders: Mapping[str, Path], channels: Sequence[str], gathered: _Gathered) -> None:
    """Add a case that a manifest gives as folders of DICOM series, which are audited first."""
    from pipeline.batch.exports import find_folders

    absent = [name for name in channels if name not in folders and name not in gathered.optional]
    found = find_folders(case_id, folders) if not absent else Passed(
        case_id, "unreadable", f"case {case_id}: no folder for channel {', '.join(absent)}; expected one for each, or "
        "files for all."
    )  # fmt: skip
    if isinstance(found, Source):
        gathered.add(found)
    else:
        gathered.passed.append(found)


def _channel_of(stem: str, channels: Sequence[str]) -> tuple[str, str]:
    """Return the case's name and its channel, an empty text where the name says none."""
    numbered = _NUMBERED.fullmatch(stem)
    # A model of one channel takes `_0000` for its number only: `scan_0012` is the name of a case.
    if numbered and int(numbered[2]) < len(channels):
        return numbered[1], channels[int(numbered[2])]
    for channel in channels if len(channels) > 1 else ():
        if stem.endswith(f"_{channel}") and len(stem) > len(channel) + 1:
            return stem[: -len(channel) - 1], channel
    return stem, ""


def _is_no_pipe(folder: str, name: str) -> bool:
    """Whether opening a file would not wait for ever; a link that leads nowhere was a file."""
    file = os.path.join(folder, name)
    return os.path.isfile(file) or not os.path.exists(file)


def _volumes(path: Path, closed: Callable[[OSError], None]) -> Iterator[Path]:
    if path.is_file():
        if path.name.lower().endswith(ENDINGS):
            yield path
        return
    for folder, names, files in os.walk(path, onerror=closed):
        if folder != str(path) and is_output(Path(folder)):
            names.clear()  # masks of an earlier start are no images
            continue
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(ENDINGS) and not name.startswith(".") and _is_no_pipe(folder, name):
                yield Path(folder) / name


def is_output(folder: Path) -> bool:
    """Say whether a folder is one that predictions were written to."""
    try:
        return (folder / "status.csv").is_file() and (folder / "provenance").is_dir()
    except OSError:  # a folder that cannot be looked into
        return False


def _holds_dicom(folder: Path) -> bool:
    """Say whether a DICOM file lies beside the volumes of a folder: what is not looked at must not go unsaid."""
    for parent, names, files in os.walk(folder):
        names[:] = [name for name in names if not name.startswith(".") and not is_output(Path(parent, name))]
        for name in files:
            if name.lower().endswith(ENDINGS) or name.startswith(".") or not _is_no_pipe(parent, name):
                continue
            try:
                with open(os.path.join(parent, name), "rb") as stream:
                    stream.seek(_PREAMBLE)
                    if stream.read(len(_DICOM)) == _DICOM:
                        return True
            except OSError:
                continue
    return False


def _stem(file: Path) -> str:
    ending = next(one for one in ENDINGS if file.name.lower().endswith(one))
    return file.name[: -len(ending)]


def _clean(name: str) -> str:
    """Return a name that is fit for a case, the first a letter or digit."""
    return safe_id(name) or "case"
