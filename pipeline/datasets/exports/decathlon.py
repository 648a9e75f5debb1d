"""A data set written out as a folder of the Medical Segmentation Decathlon."""

import logging
from pathlib import Path
from typing import Any

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.exports.files import How, Planned, make_files, whole_cases
from pipeline.datasets.nnunet import DATASET_JSON, SPLITS_JSON
from pipeline.errors import DataError
from pipeline.progress import Progress
from pipeline.workspace import write_json

log = logging.getLogger(__name__)

_ENDING = ".nii.gz"


def export_decathlon(
    manifest: Manifest,
    folder: Path,
    *,
    leave_out: bool = False,
    copy: bool = False,
    workers: int = 1,
    progress: Progress | None = None,
) -> dict[How, int]:
    """Write imagesTr, labelsTr, imagesTs and `dataset.json`; several channels become one 4-D file.

    Label values stay as they are. The layout has no regions and no folds: these are not written.

    Args:
        manifest: The cases; test cases go to imagesTs, without their labels.
        folder: Made, or an unfinished export.
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
    without = [case.case_id for case in cases if case.split != "test" and case.label is None]
    if without or not manifest.labels:
        what = f"case {without[0]} has no label" if without else "nothing says what the label values mean"
        raise DataError(f"export-dataset decathlon: {what}; expected labels of all training cases. Give them.")
    if manifest.labels.regions:
        log.warning("the Decathlon's layout has no regions; only the label values are written")
    made = make_files(
        [one for case in cases for one in _planned(case, manifest, folder)],
        folder, copy=copy, workers=workers, progress=progress or Progress(),
    )  # fmt: skip
    write_json(folder / "dataset.json", _dataset_json(manifest, cases, folder.name))
    return made


def _planned(case: Case, manifest: Manifest, folder: Path) -> list[Planned]:
    is_test = case.split == "test"
    sources = tuple(dict.fromkeys(case.images[channel] for channel in manifest.channels))
    convert = len(sources) > 1 or not sources[0].name.lower().endswith(_ENDING)
    target = folder / ("imagesTs" if is_test else "imagesTr") / f"{case.case_id}{_ENDING}"
    planned = [Planned(target, case.case_id, sources, convert, channels=len(manifest.channels))]
    if case.label is not None and not is_test:
        converts = not case.label.name.lower().endswith(_ENDING)
        target = folder / "labelsTr" / f"{case.case_id}{_ENDING}"
        planned.append(Planned(target, case.case_id, (case.label,), converts, is_label=True))
    return planned


def _dataset_json(manifest: Manifest, cases: list[Case], name: str) -> dict[str, Any]:
    ids = {part: [case.case_id for case in cases if (case.split == "test") == (part == "Ts")] for part in ("Tr", "Ts")}
    hidden = ("columns", "layout", "left_out", DATASET_JSON, SPLITS_JSON)
    said = {key: value for key, value in manifest.metadata.items() if key not in hidden}
    return {"name": name, "tensorImageSize": "3D" if len(manifest.channels) == 1 else "4D"} | said | {
        "modality": {str(number): channel for number, channel in enumerate(manifest.channels)},
        "labels": {str(value): label for value, label in manifest.labels.values.items()},
        "numTraining": len(ids["Tr"]),
        "numTest": len(ids["Ts"]),
        "training": [
            {"image": f"./imagesTr/{case}{_ENDING}", "label": f"./labelsTr/{case}{_ENDING}"} for case in ids["Tr"]
        ],
        "test": [f"./imagesTs/{case}{_ENDING}" for case in ids["Ts"]],
    }  # fmt: skip
