"""Raw data sets of nnU-Net, versions 2 and 1, read in place."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pipeline.datasets.base import Dataset, Manifest, datasets
from pipeline.datasets.fold_files import read_splits_json
from pipeline.datasets.listing import ENDINGS, Listing, distinct, grouped_by, named_values, read_json, warn_number
from pipeline.errors import DataError, plural
from pipeline.imaging.labels import Labels

log = logging.getLogger(__name__)

SPLITS = "splits_final.json"
DATASET_JSON, SPLITS_JSON = "dataset_json", "splits_final"
"""Keys of the metadata under which these files are kept."""
_Files = dict[str, dict[int, Path]]
"""Case -> channel number -> file."""


@datasets.register
class NnUnet(Dataset):
    """A folder with `dataset.json`, imagesTr (`CASE_0000.nii.gz`, one file a channel), labelsTr, perhaps imagesTs.

    Regions, the ignore label and the fixed folds of `splits_final.json` are taken over.
    """

    name: Literal["nnunet"] = "nnunet"
    folder: Path
    """Where `dataset.json` lies, such as `nnUNet_raw/Dataset004_Hippocampus`."""
    splits: Path | None = None
    """`splits_final.json`, or the folder that holds it; looked for beside `dataset.json` and in
    `nnUNet_preprocessed` where absent."""
    fixed_folds: bool = True
    """Whether its folds are kept; else new ones are made."""
    test: bool = True
    """Whether imagesTs become cases of the test split, with labels where there is a labelsTs."""
    optional_channels: tuple[str, ...] = ()
    """Channels that a case may lack."""
    group: str = ""
    """Regular expression that finds the patient in a case id, such as `^(patient\\d+)_`; without it cases are apart."""

    def cases(self) -> Manifest:
        """List the cases; `dataset.json` and `splits_final.json` are kept as metadata, word for word."""
        folder = Path.cwd() / self.folder.expanduser()
        table = _read_table(folder / "dataset.json")
        listing = Listing(folder, channels_of(table), self.optional_channels)
        labels = labels_of(table, listing.problems)
        ending = _ending_of(table, listing.problems)
        splits = self._find_splits(folder)
        group = grouped_by(self.group, "group")
        train = _training_files(table, folder, ending, listing.problems)
        warn_number(folder, table, len(train))
        folds = _folds(splits, train) if splits and self.fixed_folds else {}
        for case_id, (files, label) in train.items():
            images = _by_name(case_id, files, listing)
            listing.add(case_id, images, label, split="train", fold=folds.get(case_id), group=group(case_id))
        for case_id, files in _find(folder / "imagesTs", ending).items() if self.test else ():
            label = folder / "labelsTs" / f"{case_id}{ending}"
            images = _by_name(case_id, files, listing)
            listing.add(case_id, images, label if label.exists() else None, split="test", group=group(case_id))
        metadata = {DATASET_JSON: table} | ({SPLITS_JSON: read_json(splits, "fixed folds")} if splits else {})
        return listing.manifest(labels, metadata=metadata)

    def _find_splits(self, folder: Path) -> Path | None:
        if self.splits is not None:
            given = Path.cwd() / self.splits.expanduser()
            return given / SPLITS if given.is_dir() else given
        places = (folder / SPLITS, folder.parent.parent / "nnUNet_preprocessed" / folder.name / SPLITS)
        return next((place for place in places if place.exists()), None)


def channels_of(table: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the channels in their order; those that stand twice get a number.

    Raises:
        DataError: they are not numbered.
    """
    found = table.get("channel_names", table.get("modality"))
    try:
        numbered = {int(number): str(name) for number, name in dict(found or {}).items()}
        return distinct(numbered[number] for number in range(len(numbered)))
    except (TypeError, ValueError, KeyError):
        raise DataError(
            f"dataset.json: channel_names is {found!r}; expected a mapping from 0 on, such as {{'0': 'CT'}}."
        ) from None


def labels_of(table: Mapping[str, Any], problems: list[str]) -> Labels:
    """Return what the label values mean.

    Regions are lists of values there, so the values have no names of their own: they are called `label_N`.
    """
    found = table.get("labels")
    if not isinstance(found, Mapping) or not found:
        problems.append(f"labels are {found!r}; expected a mapping such as {{'background': 0, 'liver': 1}}.")
        return Labels()
    if all(re.fullmatch(r"\d+", str(key)) for key in found):
        return named_values(found, problems)  # version 1 has values first
    try:
        members = {str(name): tuple(_values(value)) for name, value in found.items()}
    except (TypeError, ValueError):
        problems.append(f"labels are {dict(found)!r}; expected whole numbers, or lists of them for regions.")
        return Labels()
    if "regions_class_order" not in table and len({tuple(sorted(part)) for part in members.values()}) < len(members):
        problems.append(f"labels are {dict(found)!r}; two names have one value. Correct dataset.json.")
        return Labels()
    if "regions_class_order" not in table and all(len(values) == 1 for values in members.values()):
        values = {value[0]: name.strip() for name, value in members.items()}
        return Labels(values=values | ({0: "background"} if values.get(0, "").lower() == "background" else {}))
    values = {value: f"label_{value}" for value in sorted({value for part in members.values() for value in part})}
    values |= {0: "background"} | dict.fromkeys(members.get("ignore", ()), "ignore")
    regions = {
        name.strip(): tuple(values[value] for value in part)
        for name, part in members.items()
        if name != "ignore" and part != (0,)
    }
    return Labels(values=dict(sorted(values.items())), regions=regions)


def _values(value: Any) -> list[int]:
    listed: list[Any] = value if isinstance(value, list) else [value]
    if not listed or any(isinstance(one, bool | str) or int(one) != one for one in listed):
        raise ValueError(value)
    return [int(one) for one in listed]


def _read_table(path: Path) -> dict[str, Any]:
    table = read_json(path, "an nnU-Net raw data set")
    if not isinstance(table, dict) or not {"channel_names", "modality"} & set(table):
        raise DataError(f"{path}: expected a mapping with 'channel_names'. Is it an nnU-Net raw data set?")
    return table


def _ending_of(table: Mapping[str, Any], problems: list[str]) -> str:
    ending = str(table.get("file_ending", ".nii.gz"))
    if ending not in ENDINGS:
        problems.append(f"dataset.json: file_ending is {ending!r}; expected one of {', '.join(ENDINGS)}. Convert them.")
    return ending


def _training_files(
    table: Mapping[str, Any], folder: Path, ending: str, problems: list[str]
) -> dict[str, tuple[dict[int, Path], Path]]:
    """Return case -> its files by channel number, and its label: as `dataset` lists them, else as they lie."""
    listed = table.get("dataset")
    if listed is None:
        found = _find(folder / "imagesTr", ending)
        if not found:
            hint = "Check the folder and file_ending." if "channel_names" in table else "Is it of the Decathlon?"
            problems.append(f"imagesTr holds no file CASE_0000{ending}. {hint}")
        images = set(found)
        orphans = sorted(case_id for case_id in _names(folder / "labelsTr", ending) if case_id not in images)
        if orphans:
            problems.append(f"{plural(len(orphans), 'label')} without an image, such as labelsTr/{orphans[0]}{ending}.")
        return {case_id: (files, folder / "labelsTr" / f"{case_id}{ending}") for case_id, files in found.items()}
    if not isinstance(listed, Mapping):
        problems.append(f"dataset.json: dataset is a {type(listed).__name__}; expected a mapping of cases to files.")
        return {}
    cases = {}
    for case_id, entry in listed.items():
        try:
            files = {number: folder / file for number, file in enumerate(entry["images"])}
            cases[str(case_id)] = (files, folder / entry["label"])
        except (TypeError, KeyError):
            problems.append(f"dataset.json: case {case_id} is {entry!r}; expected {{'images': [...], 'label': ...}}.")
    return cases


def _find(folder: Path, ending: str) -> _Files:
    """Return the files `CASE_NNNN.ending` of a folder by case and number, cases in order of their names."""
    cases: _Files = {}
    for name in _names(folder, ending):
        found = re.fullmatch(r"(.+)_(\d{4})", name)
        if found:
            cases.setdefault(found[1], {})[int(found[2])] = folder / f"{name}{ending}"
    return cases


def _names(folder: Path, ending: str) -> list[str]:
    if not folder.is_dir():
        return []
    files = (file.name for file in folder.iterdir() if file.name.endswith(ending) and not file.name.startswith("."))
    return sorted(name.removesuffix(ending) for name in files)


def _by_name(case_id: str, files: Mapping[int, Path], listing: Listing) -> dict[str, Path]:
    beyond = [number for number in files if number >= len(listing.channels)]
    if beyond:
        listing.problems.append(
            f"case {case_id}: it has a file of channel {beyond[0]:04d}; dataset.json names "
            f"{plural(len(listing.channels), 'channel')}. Name it there, or remove the file."
        )
    return {listing.channels[number]: file for number, file in sorted(files.items()) if number not in beyond}


def _folds(path: Path, case_ids: Iterable[str]) -> dict[str, int]:
    """Return case -> the fold that validates it; nothing where the splits are no cross-validation of the cases."""
    try:
        fold_of = read_splits_json(path)
    except DataError as error:
        log.warning("folds are not taken over from %s", error)
        return {}
    without = [case for case in case_ids if case not in fold_of]
    if without:
        log.warning("folds are not taken over: %s lacks %s, such as %s", path, plural(len(without), "case"), without[0])
        return {}
    if len(fold_of) > len(folds := {case: fold_of[case] for case in case_ids}):
        log.warning("%s: %s in it without a file here", path, plural(len(fold_of) - len(folds), "case"))
    return folds
