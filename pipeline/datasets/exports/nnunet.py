"""A data set written out as nnU-Net's raw layout."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.exports.files import How, Planned, make_files, whole_cases
from pipeline.datasets.folds import Folds, make_folds
from pipeline.datasets.listing import split_ending
from pipeline.datasets.nnunet import DATASET_JSON, SPLITS, SPLITS_JSON, channels_of, labels_of
from pipeline.errors import DataError
from pipeline.imaging.labels import Labels
from pipeline.progress import Progress
from pipeline.workspace import write_json

_OF_VERSION_1 = ("modality", "labels", "training", "test", "numTest", "tensorImageSize")
_WRITABLE = (".nii.gz", ".nii", ".mha", ".nrrd")


def export_nnunet(
    manifest: Manifest,
    folder: Path,
    *,
    leave_out: bool = False,
    copy: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[How, int]:
    """Write imagesTr, labelsTr, imagesTs, labelsTs, `dataset.json`, and `splits_final.json` where folds are fixed or
    patients have several cases.

    A manifest that was imported from nnU-Net gives an equal `dataset.json` back. Label values are renumbered
    only where nnU-Net asks for it: from 0 on without gaps, the ignore label last.

    Args:
        manifest: The cases; test cases go to imagesTs.
        folder: The data set's own, such as `nnUNet_raw/Dataset004_Hippocampus`; made, or an unfinished export.
        leave_out: Whether cases that lack a channel or are labelled in part are left out; else they are refused.
        copy: Whether files are copied even where a hard link would do.
        workers: Processes.
        progress: Shows a bar.

    Returns:
        How many files were linked, copied, converted, or there.

    Raises:
        DataError: cases that the layout cannot hold, or without a label, or unreadable.
        ConfigError: the folder holds something else.
    """
    cases = whole_cases(manifest, leave_out=leave_out)
    train = [case for case in cases if case.split != "test"]
    without = [case.case_id for case in train if case.label is None]
    if without or not manifest.labels:
        what = f"case {without[0]} has no label" if without else "nothing says what the label values mean"
        raise DataError(f"export-dataset nnunet: {what}; expected labels of all training cases. Give them.")
    ending = _ending(manifest, cases)
    numbers = _numbers(manifest.labels)
    made = make_files(
        [one for case in cases for one in _planned(case, manifest, folder, ending, numbers)],
        folder, copy=copy, workers=workers, progress=progress or Progress(),
    )  # fmt: skip
    if splits := _splits(manifest, train):
        write_json(folder / SPLITS, splits)
    write_json(folder / "dataset.json", dataset_json(manifest, len(train), ending))
    return made


def dataset_json(manifest: Manifest, training: int, ending: str) -> dict[str, Any]:
    """Return `dataset.json`: what the source said as far as it still holds, and the rest anew.

    Args:
        manifest: The data set.
        training: Number of training cases.
        ending: Of all files.
    """
    said = dict(manifest.metadata.get(DATASET_JSON) or {})
    said.pop("dataset", None)  # it lists the places of files, which are others now
    if "channel_names" not in said:  # version 1: it lists its files, which are others now
        said = {key: value for key, value in said.items() if key not in _OF_VERSION_1}
    if "channel_names" not in said or channels_of(said) != manifest.channels:
        said["channel_names"] = {str(number): name for number, name in enumerate(manifest.channels)}
    if "labels" not in said or _numbers(manifest.labels) or labels_of(said, []) != manifest.labels:
        said.pop("regions_class_order", None)
        said |= _labels(manifest.labels)
    said["numTraining"] = training
    said["file_ending"] = ending
    return said


def _ending(manifest: Manifest, cases: Sequence[Case]) -> str:
    """Return the ending of all files: the most frequent one that can be written too."""
    counts = Counter(split_ending(file.name)[1].lower() for case in cases for file in case.images.values())
    counts.update(split_ending(case.label.name)[1].lower() for case in cases if case.label)
    said = dict(manifest.metadata.get(DATASET_JSON) or {}).get("file_ending")
    if set(counts) == {said}:
        return str(said)
    return next((ending for ending, _ in counts.most_common() if ending in _WRITABLE), ".nii.gz")


def _numbers(labels: Labels) -> tuple[int, ...] | None:
    """Return the new value of each class, and of `ignore` last; None where the files have these values already."""
    order = labels.classes
    numbers = (*range(len(order)), len(order))
    is_same = all(number == (numbers[-1] if name == "ignore" else order.index(name))
                  for number, name in labels.values.items())  # fmt: skip
    return None if is_same else numbers


def _planned(
    case: Case, manifest: Manifest, folder: Path, ending: str, numbers: tuple[int, ...] | None
) -> list[Planned]:
    part = "Ts" if case.split == "test" else "Tr"
    planned = []
    for number, channel in enumerate(manifest.channels):
        file = case.images[channel]
        sharing = [name for name in manifest.channels if case.images[name] == file]
        planned.append(
            Planned(
                target=folder / f"images{part}" / f"{case.case_id}_{number:04d}{ending}",
                case_id=case.case_id,
                sources=(file,),
                convert=len(sharing) > 1 or not file.name.lower().endswith(ending),
                channel=sharing.index(channel) if len(sharing) > 1 else None,
                channels=len(sharing),
            )
        )
    if case.label is not None:
        fits = numbers is None and case.label.name.lower().endswith(ending)
        order = numbers or (*range(len(manifest.labels.classes)), len(manifest.labels.classes))
        planned.append(
            Planned(
                target=folder / f"labels{part}" / f"{case.case_id}{ending}",
                case_id=case.case_id,
                sources=(case.label,),
                convert=not fits,
                values=None if fits else (manifest.labels, order),
            )
        )
    return planned


def _labels(labels: Labels) -> dict[str, Any]:
    """Return `labels`, and `regions_class_order` where there are regions: the largest first, as they are painted."""
    order = {name: number for number, name in enumerate(labels.classes)}
    ignore = {"ignore": len(order)} if "ignore" in labels.values.values() else {}
    if not labels.regions:
        return {"labels": order | ignore}
    regions = sorted(labels.regions.items(), key=lambda item: -len(item[1]))
    members = {name: sorted(order[part] for part in parts) for name, parts in regions}
    painted = []
    for at, (name, _) in enumerate(regions):
        later = {value for other, _ in regions[at + 1 :] for value in members[other]}
        painted.append(next((value for value in members[name] if value not in later), members[name][0]))
    return {"labels": {"background": 0} | members | ignore, "regions_class_order": painted}


def _splits(manifest: Manifest, train: Sequence[Case]) -> list[dict[str, list[str]]]:
    """Return the fixed folds (those of the source where they still hold), or grouped ones where there are groups."""
    folds = {case.case_id: case.fold for case in train}
    if not folds:
        return []
    if None in folds.values():
        patients = len({case.patient for case in train})
        if not 1 < patients < len(train):
            return []
        # Patients with several cases: nnU-Net's own folds would deal them out over training and validation.
        folds = {**make_folds([case.model_copy(update={"fold": None}) for case in train], Folds(k=min(5, patients)), 0)}
    said = manifest.metadata.get(SPLITS_JSON)
    if said and {case: number for number, one in enumerate(said) for case in one["val"]} == folds:
        return list(said)
    return [_split(folds, fold) for fold in sorted({fold for fold in folds.values() if fold is not None})]


def _split(folds: Mapping[str, int | None], fold: int) -> dict[str, list[str]]:
    return {
        "train": sorted(case for case, other in folds.items() if other != fold),
        "val": sorted(case for case, other in folds.items() if other == fold),
    }
