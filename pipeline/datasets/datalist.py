"""Lists of cases that other programs train from: a GaNDLF CSV or a MONAI datalist, mapped by column."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.datasets.base import Dataset, Manifest, datasets
from pipeline.datasets.listing import Listing, distinct, named_values, read_json, read_text_table, safe_id, split_ending
from pipeline.errors import DataError
from pipeline.imaging.labels import Labels

_FIELDS = ("case_id", "label", "class", "group", "site", "split", "fold", "annotated")
_USUAL = {
    "case_id": ("case_id", "subjectid", "subject_id", "patientid", "patient_id", "id"),
    "label": ("label", "mask", "segmentation", "seg"),
    "class": ("class", "valuetopredict"),
    **{name: (name,) for name in ("group", "site", "split", "fold", "annotated")},
}
"""Field -> columns that it is found in where nothing is said, in small letters."""
_PATIENT = ("patient", "patientid", "patient_id", "subject", "subjectid", "subject_id")
"""Columns that are the group where they are not the case."""
_LISTS = {"training": ("train", None), "validation": ("train", 0), "testing": ("test", None), "test": ("test", None)}
"""List of a MONAI datalist -> split and fold of its cases."""


@datasets.register
class Datalist(Dataset):
    """A CSV with the columns SubjectID, Channel_0, ..., Label, ValueToPredict, or JSON with lists of `{image, label}`.

    JSON: `training`, `validation` and `test`; a validation list becomes fold 0 and the training list fold 1, so
    that `--folds 0` trains and validates as the list says. Fields `fold` are taken as they are.
    """

    name: Literal["datalist"] = "datalist"
    path: Path
    """The CSV or JSON."""
    folder: Path | None = None
    """What relative paths in it start from; its own folder where absent."""
    columns: dict[str, str | list[str]] = Field(default_factory=dict)
    """Where fields are found under other names, such as `{case_id: scan, image: [t1, t2], label: mask}`;
    `image` is one column, or one for each channel."""
    channels: tuple[str, ...] = ()
    """Names of the channels in the order of the image columns."""
    optional_channels: tuple[str, ...] = ()
    """Channels that a case may lack."""

    def cases(self) -> Manifest:
        """List the cases; columns without a meaning here become `metadata["columns"]`."""
        path = Path.cwd() / self.path.expanduser()
        is_json = path.suffix.lower() == ".json"
        rows, labels, metadata = _read_monai(path) if is_json else (_read_csv(path), Labels(), {})
        mapping = _mapping(rows, self.columns, path)
        listing = Listing(path, self._channels(mapping, rows), self.optional_channels)
        folder = Path.cwd() / self.folder.expanduser() if self.folder else path.parent
        others: dict[str, dict[str, str]] = {}
        ids = _ids(rows, mapping)
        for number, (row, case_id) in enumerate(zip(rows, ids, strict=True)):
            values = _values(row, mapping, f"row {number + 1} ({case_id})", listing.problems)
            listing.add(
                case_id, _images(row, mapping, listing.channels, folder), _label(row, mapping, folder), **values
            )
            for column, text in _others(row, mapping).items():
                others.setdefault(column, {})[case_id] = text
        metadata |= {"columns": others} if others else {}
        return listing.manifest(labels, metadata=metadata)

    def _channels(self, mapping: Mapping[str, list[str]], rows: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
        columns = mapping["image"]
        width = (
            max((len(_listed(row.get(columns[0]))) for row in rows), default=1) if len(columns) == 1 else len(columns)
        )
        if self.channels and len(self.channels) != width:
            raise DataError(f"{self.path}: channels names {len(self.channels)}; the list has {width} image(s) a case.")
        if width == 1:
            return self.channels or ("image",)
        return self.channels or distinct(columns if len(columns) == width else [f"channel_{n}" for n in range(width)])


def _read_csv(path: Path) -> list[dict[str, Any]]:
    table = read_text_table(path, ",", "a CSV with a row for each case")
    return [{str(key): cell for key, cell in row.items()} for row in table.to_dict("records")]


def _read_monai(path: Path) -> tuple[list[dict[str, Any]], Labels, dict[str, Any]]:
    """Return the entries of all lists, with split and fold where the list says them."""
    tree = read_json(path, "a MONAI datalist")
    if not isinstance(tree, dict) or not any(isinstance(tree.get(name), list) for name in _LISTS):
        raise DataError(f"{path}: expected a mapping with the list 'training'. Is it a datalist?")
    problems: list[str] = []
    labels = named_values(tree["labels"], problems) if isinstance(tree.get("labels"), dict) else Labels()
    has_validation = bool(tree.get("validation"))
    rows = []
    for name, (split, fold) in _LISTS.items():
        for entry in tree.get(name) or ():
            row = dict(entry) if isinstance(entry, dict) else {"image": entry}
            row.setdefault("split", split)
            if has_validation and split == "train":
                row.setdefault("fold", 1 if fold is None else fold)
            rows.append(row)
    if problems:
        raise DataError(f"{path}: {problems[0]}")
    return rows, labels, {key: value for key, value in tree.items() if key not in _LISTS}


def _mapping(
    rows: Iterable[Mapping[str, Any]], given: Mapping[str, str | list[str]], path: Path
) -> dict[str, list[str]]:
    """Return field -> columns that it is found in; fields that the list lacks are absent."""
    known = list(dict.fromkeys(key for row in rows for key in row))
    lower = {key.lower(): key for key in reversed(known)}
    numbered = sorted((key for key in known if re.fullmatch(r"channel_\d+", key, re.I)), key=lambda key: int(key[8:]))
    images = numbered or [key for key in known if key.startswith("image_")]
    mapping = {"image": [lower["image"]] if "image" in lower else images}
    for field, names in _USUAL.items():
        found = next((lower[name] for name in names if name in lower), None)
        if found is not None:
            mapping[field] = [found]
    for field, columns in given.items():
        if field not in (*_FIELDS, "image"):
            raise DataError(f"columns: there is no field {field!r}; they are image, {', '.join(_FIELDS)}.")
        mapping[field] = _listed(columns)
    if "group" not in mapping:
        used = {column for columns in mapping.values() for column in columns}
        patient = next((lower[name] for name in _PATIENT if name in lower and lower[name] not in used), None)
        if patient is not None:
            mapping["group"] = [patient]
    absent = [column for columns in mapping.values() for column in columns if column not in known]
    if absent:
        raise DataError(f"{path}: there is no column {absent[0]!r}; found {', '.join(known)}. Correct columns.")
    if not mapping["image"]:
        raise DataError(
            f"{path}: no column holds images; found {', '.join(known) or 'none'}. Say which, such as "
            "--set columns={image: scan, label: mask}."
        )
    return mapping


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _images(row: Mapping[str, Any], mapping: Mapping[str, list[str]], channels: Iterable[str], folder: Path) -> Any:
    found = [part for column in mapping["image"] for part in _listed(row.get(column, ""))]
    return {name: folder / Path(str(part)).expanduser() for name, part in zip(channels, found, strict=False) if part}


def _label(row: Mapping[str, Any], mapping: Mapping[str, list[str]], folder: Path) -> Path | None:
    value = _cell(row, mapping, "label")
    return folder / Path(value).expanduser() if _is_file(value) else None


_OTHER_FILE = re.compile(r"\.(npy|npz|png|tiff?|dcm|gz|mgz|h5|jpe?g)$", re.IGNORECASE)
"""Endings of files that are none of ours: no class is called so."""


def _is_file(value: str) -> bool:
    """Whether a label is a file; numbers and words are classes of the whole volume."""
    return bool(split_ending(Path(value).name)[1]) or "/" in value or bool(_OTHER_FILE.search(value))


def _values(
    row: Mapping[str, Any], mapping: Mapping[str, list[str]], where: str, problems: list[str]
) -> dict[str, Any]:
    label = row.get(mapping["label"][0]) if "label" in mapping else None
    texts = [str(part) for part in _listed(label)] if label not in (None, "") else []
    classes = [text for text in texts if not _is_file(text)] or [_cell(row, mapping, "class")]
    fold = re.fullmatch(r"(\d+)(\.0)?|", _cell(row, mapping, "fold"))
    if fold is None:
        problems.append(f"{where}: fold is {_cell(row, mapping, 'fold')!r}; expected a whole number from 0.")
    split = {"training": "train", "testing": "test"}.get(_cell(row, mapping, "split"), _cell(row, mapping, "split"))
    annotated = _cell(row, mapping, "annotated")
    return {
        "classes": tuple(re.sub(r"\.0$", "", text) for text in classes if text),
        "group": _cell(row, mapping, "group"),
        "site": _cell(row, mapping, "site"),
        "split": split,
        "fold": int(fold[1]) if fold and fold[1] and split != "test" else None,
        "annotated": tuple(part.strip() for part in annotated.split("|") if part.strip()) if annotated else None,
    }


def _cell(row: Mapping[str, Any], mapping: Mapping[str, list[str]], field: str) -> str:
    value = row.get(mapping[field][0]) if field in mapping else None
    return "" if value is None else "|".join(str(part) for part in _listed(value))


def _others(row: Mapping[str, Any], mapping: Mapping[str, list[str]]) -> dict[str, str]:
    used = {column for columns in mapping.values() for column in columns} | {"split", "fold"}
    return {
        key: str(value) for key, value in row.items()
        if key not in used and isinstance(value, str | int | float) and value != ""
    }  # fmt: skip


def _ids(rows: Iterable[Mapping[str, Any]], mapping: Mapping[str, list[str]]) -> list[str]:
    """Return case ids: those of the list, else the image's name, with its folder where names stand twice."""
    if "case_id" in mapping:
        return [safe_id(_cell(row, mapping, "case_id")) for row in rows]
    files = [Path(str(_listed(row.get(mapping["image"][0], ""))[0])) for row in rows]
    stems = [safe_id(split_ending(file.name)[0]) for file in files]
    if len(set(stems)) == len(stems):
        return stems
    return [safe_id(f"{file.parent.name}_{stem}") for file, stem in zip(files, stems, strict=True)]
