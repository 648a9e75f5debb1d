"""Data sets of the Medical Segmentation Decathlon, read in place."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from pipeline.datasets.base import Case, Dataset, Manifest, datasets
from pipeline.errors import DataError, join_problems
from pipeline.imaging.labels import Labels

_LISTS = ("training", "test")
_MOST_MISSING = 10


@datasets.register
class Decathlon(Dataset):
    """A folder with `dataset.json`, imagesTr, labelsTr and perhaps imagesTs, as the Decathlon hands them out.

    Test images have no labels there: they become cases of the test split, and where imagesTs was never
    unpacked they are passed over. Training files must be there.
    """

    name: Literal["decathlon"] = "decathlon"
    folder: Path
    """Where `dataset.json` lies."""

    def cases(self) -> Manifest:
        """List the cases of `dataset.json`; everything else in it is kept as metadata, word for word."""
        folder = Path.cwd() / self.folder.expanduser()
        table = _read_json(folder / "dataset.json")
        problems: list[str] = []
        channel = _read_channel(table, problems)
        labels = _read_labels(table, problems)
        cases = _training_cases(table, folder, channel, problems) + _test_cases(table, folder, channel, problems)
        ids = [case.case_id for case in cases]
        problems += [f"case {name} is listed twice." for name in sorted({name for name in ids if ids.count(name) > 1})]
        if not cases and not problems:
            problems.append("it lists no cases.")
        if problems:
            raise DataError(join_problems(f"{folder / 'dataset.json'}", problems))
        rest = {key: value for key, value in table.items() if key not in _LISTS}
        return Manifest(cases=cases, labels=labels, channels=(channel,), metadata=rest)


def _training_cases(table: dict[str, Any], folder: Path, channel: str, problems: list[str]) -> tuple[Case, ...]:
    cases, missing = [], []
    for number, entry in enumerate(table.get("training", [])):
        if not isinstance(entry, dict) or not {"image", "label"} <= set(entry):
            problems.append(f"training[{number}] is {entry!r}; expected {{'image': ..., 'label': ...}}.")
            continue
        image, label = folder / entry["image"], folder / entry["label"]
        missing += [str(file) for file in (image, label) if not file.exists()]
        case = _make_case(image, label, "train", channel, problems)
        cases += [case] if case else []
    problems += [f"{file} is listed but not there." for file in missing[:_MOST_MISSING]]
    if len(missing) > _MOST_MISSING:
        problems.append(f"{len(missing) - _MOST_MISSING} more listed files are not there. Unpack the whole archive.")
    return tuple(cases)


def _test_cases(table: dict[str, Any], folder: Path, channel: str, problems: list[str]) -> tuple[Case, ...]:
    entries = [entry["image"] if isinstance(entry, dict) else entry for entry in table.get("test", [])]
    images = [image for entry in entries if (image := folder / str(entry)).exists()]
    cases = [_make_case(image, None, "test", channel, problems) for image in images]
    return tuple(case for case in cases if case)


def _make_case(image: Path, label: Path | None, split: str, channel: str, problems: list[str]) -> Case | None:
    case_id = image.name.removesuffix(".gz").removesuffix(".nii")
    try:
        return Case(case_id=case_id, images={channel: image}, label=label, split=split)
    except ValidationError:
        problems.append(f"{case_id!r} is no case id; expected letters, digits, '.', '_' and '-'. Rename the file.")
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; expected a Decathlon folder. Correct `folder`.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}; expected JSON. Unpack the archive again.") from error
    if not isinstance(table, dict) or not isinstance(table.get("training", []), list):
        raise DataError(f"{path}: expected a mapping with a list 'training'. Is it from the Decathlon?")
    if "channel_names" in table or "file_ending" in table:
        raise DataError(f"{path}: this is an nnU-Net data set, not one of the Decathlon. Use another importer.")
    return table


def _read_channel(table: dict[str, Any], problems: list[str]) -> str:
    """Return the name of the one modality."""
    modality = table.get("modality") or {"0": "image"}
    if not isinstance(modality, dict):
        problems.append(f"modality is {modality!r}; expected a mapping such as {{'0': 'CT'}}.")
        return "image"
    names = [str(name) for _, name in sorted(modality.items(), key=lambda item: int(item[0]))]
    if len(names) > 1:
        problems.append(
            f"its images hold {len(names)} modalities in one 4-D file ({', '.join(names)}); expected one. Split each "
            "into a 3-D file a modality, and list those in a manifest with columns image_<channel>."
        )
    return names[0]


def _read_labels(table: dict[str, Any], problems: list[str]) -> Labels:
    found = table.get("labels")
    try:
        values = {int(value): str(name).strip() for value, name in dict(found or {}).items()}
    except (TypeError, ValueError):
        problems.append(f"labels are {found!r}; expected values and names such as {{'0': 'background', '1': 'liver'}}.")
        return Labels()
    if values.get(0, "").lower() == "background":
        values[0] = "background"
    return Labels(values=values)
