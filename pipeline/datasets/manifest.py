"""Cases listed in a CSV of the user's own, with a YAML beside it for what a table cannot hold."""

import difflib
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from pipeline.datasets.base import Case, Dataset, Manifest, datasets
from pipeline.errors import DataError, join_problems
from pipeline.imaging.labels import Labels

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

COLUMNS = ("case_id", "image", "label", "class", "group", "split", "fold", "site", "annotated")
"""Columns with a meaning; `image_<channel>` too. All others are kept as `metadata["columns"]`."""

_YAML_TYPES: dict[str, tuple[type, str]] = {
    "labels": (dict, "mapping of values to names"),
    "regions": (dict, "mapping of names to lists of labels"),
    "mirror_pairs": (list, "list of pairs of labels"),
    "ignore": (int, "label value"),
    "channels": (list, "list of channels"),
    "optional_channels": (list, "list of channels"),
    "class_names": (list, "list of classes"),
    "metadata": (dict, "mapping"),
}
_YAML_KEYS = tuple(_YAML_TYPES)
_MOST_MISSING = 10
_LIKE_LABEL = re.compile(r"(label|mask|seg|segmentation|annotation)s?(_?(path|file|map|mask|volume))?")
SEPARATOR = "|"
"""Between several class names in one cell; alone in `annotated`, it stands for none of them."""


@datasets.register
class ManifestCsv(Dataset):
    """Cases listed in a CSV; data_manifests/README.md explains its columns."""

    name: Literal["manifest"] = "manifest"
    path: Path
    """The CSV."""
    folder: Path | None = None
    """What relative paths in it start from; the CSV's own folder where absent."""

    def cases(self) -> Manifest:
        """Read the CSV, and the YAML beside it."""
        return read_manifest(self.path, self.folder)


def read_manifest(path: Path, folder: Path | None = None, *, need_files: bool = True) -> Manifest:
    """Read `x.csv`, and `x.yaml` beside it where there is one.

    Args:
        path: The CSV, UTF-8, separated by commas.
        folder: What relative paths start from; by default the CSV's own folder.
        need_files: Whether a path that leads nowhere is a problem.

    Returns:
        The cases in the order of the rows, paths absolute. Columns without a meaning here are kept as
        `metadata["columns"] = {column: {case_id: text}}`, without their empty cells.

    Raises:
        DataError: names every problem of the table and of the YAML at once, with the row's line.
    """
    problems: list[str] = []
    beside = _read_beside(path.with_suffix(".yaml"), problems)
    rows = _Rows(_read_table(path), absolute(folder or path.parent), need_files, problems)
    channels = _check_columns(rows.columns, beside, problems)
    optional = _check_optional(channels, beside, problems)
    found = [rows.case(line, cells, channels, optional) for line, cells in rows.cells()]
    cases = tuple(case for case in found if case is not None)
    labels = _check_labels(cases, beside, problems)
    class_names = _check_classes(cases, beside, problems)
    problems += rows.missing[:_MOST_MISSING]
    if len(rows.missing) > _MOST_MISSING:
        more = len(rows.missing) - _MOST_MISSING
        problems.append(f"{more} more files are not there. Check the folder that paths start from: {rows.folder}.")
    if not rows.table.shape[0]:
        problems.append("it lists no cases. Add one row for each.")
    if problems:
        raise DataError(join_problems(f"manifest {path}", problems))
    metadata = {key: value for key, value in (beside.get("metadata") or {}).items() if key != "columns"}
    if rows.others:
        metadata["columns"] = rows.others
    return Manifest(
        cases=cases,
        labels=labels,
        channels=tuple(channels),
        optional_channels=optional,
        class_names=class_names,
        metadata=metadata,
    )


@dataclass
class _Rows:
    """The table while it is read: finds a case in each row and gathers what is wrong."""

    table: "pd.DataFrame"
    folder: Path
    need_files: bool
    problems: list[str]
    missing: list[str] = field(default_factory=list)
    others: dict[str, dict[str, str]] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        return [str(column) for column in self.table.columns]

    def cells(self) -> Iterable[tuple[int, dict[str, str]]]:
        """Yield the line in the file and the cells of each row."""
        for line, row in zip(self.table.index, self.table.itertuples(index=False, name=None), strict=True):
            yield int(line), dict(zip(self.columns, row, strict=True))

    def case(
        self, line: int, cells: dict[str, str], channels: Mapping[str, str], optional: tuple[str, ...] = ()
    ) -> Case | None:
        """Return the case of one row, or None where it has none; `channels` maps a channel to its column."""
        before = len(self.problems)
        case_id = cells.get("case_id", "")
        where = f"line {line}{f' ({case_id})' if case_id else ''}"
        if case_id in self.seen:
            self.problems.append(f"{where}: this case_id stands in line {self.seen[case_id]} already; expected once.")
        elif case_id:
            self.seen[case_id] = line
        images = {
            channel: self._path(where, column, cells[column]) for channel, column in channels.items() if cells[column]
        }
        if channels and not images:
            self.problems.append(f"{where}: it names no image. Fill in {' or '.join(channels.values())}.")
        elif lacking := [column for channel, column in channels.items() if channel not in {*images, *optional}]:
            self.problems.append(
                f"{where}: {lacking[0]} is empty; expected a path. Fill it in, or list "
                f"{lacking[0].removeprefix('image_')!r} under optional_channels in the YAML."
            )
        label = self._path(where, "label", cells["label"]) if cells.get("label") else None
        values = {
            "case_id": case_id,
            "images": images,
            "label": label,
            "classes": _split(cells.get("class", "")),
            "group": cells.get("group", ""),
            "site": cells.get("site", ""),
            "split": cells.get("split", ""),
            "fold": self._fold(where, cells.get("fold", "")),
            "annotated": _split(cells["annotated"]) if cells.get("annotated") else None,
        }
        try:
            case = Case.model_validate(values)
        except ValidationError as error:
            self.problems += [f"{where}: {_say(item)}" for item in error.errors() if _is_own(item, cells)]
            return None
        for column in self.columns:
            if not _has_meaning(column) and cells[column]:
                self.others.setdefault(column, {})[case_id] = cells[column]
        return case if len(self.problems) == before else None

    def _path(self, where: str, column: str, text: str) -> Path:
        try:
            path = absolute(self.folder / Path(text).expanduser())
            is_there = not self.need_files or path.exists()
        except (OSError, RuntimeError) as error:  # a name too long, a home folder of nobody
            self.problems.append(f"{where}: {column} is no path: {error}. Correct it.")
            return self.folder
        if not is_there:
            self.missing.append(f"{where}: {column} {text!r} is not there; looked for {path}.")
        return path

    def _fold(self, where: str, text: str) -> int | None:
        if not text:
            return None
        if not re.fullmatch(r"\d{1,4}(\.0)?", text):  # a spreadsheet may have made 1.0 of 1
            self.problems.append(f"{where}: fold is {text!r}; expected a whole number from 0, or nothing.")
            return None
        return int(text.partition(".")[0])


def _read_table(path: Path) -> "pd.DataFrame":
    """Read the CSV as text; the index holds line numbers, blank lines are left out."""
    import pandas as pd

    try:
        # header=None, because pandas would rename the second of two equal columns without a word.
        raw = pd.read_csv(
            path,
            dtype=str,
            keep_default_na=False,
            header=None,
            encoding="utf-8-sig",
            skip_blank_lines=False,
            index_col=False,
        )
    except FileNotFoundError as error:
        raise DataError(f"manifest {path}: there is no such file. Correct the path.") from error
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        text = " ".join(str(error).split())
        raise DataError(f"manifest {path}: cannot be read: {text}; expected a UTF-8 table with commas.") from error
    raw = raw.fillna("").apply(lambda column: column.str.strip())
    columns = raw.iloc[0].tolist()
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise DataError(f"manifest {path}: column {twice[0]!r} stands in it twice; expected once. Remove one.")
    table = raw.iloc[1:].set_axis(columns, axis="columns").set_axis(range(2, len(raw) + 1), axis="index")
    return pd.DataFrame(table[(table != "").any(axis="columns")])


def _check_columns(columns: list[str], beside: Mapping[str, Any], problems: list[str]) -> dict[str, str]:
    """Return channel -> column, in the order of the channels; note what the header lacks or misspells."""
    for column in columns:
        near = [] if _has_meaning(column) else difflib.get_close_matches(column.lower(), COLUMNS, n=1, cutoff=0.8)
        if near:  # an optional column that is misspelt would otherwise be passed over: without groups, folds leak
            problems.append(f"column {column!r} has no meaning here, did you mean {near[0]!r}? Rename it.")
    if "case_id" not in columns:
        found = ", ".join(columns)
        comma = " Separate the columns by commas." if len(columns) == 1 and re.search(r"[;\t]", found) else ""
        problems.append(f"there is no column 'case_id'; found: {found}.{comma}")
    if "label" not in columns and (named := [name for name in columns if _LIKE_LABEL.fullmatch(name.lower())]):
        log.warning("column %r is not used; label volumes stand in the column 'label'", named[0])
    if "group" not in columns:
        for column in columns:
            if re.fullmatch(r"(patient|subject)(_?id)?", column.lower()):
                log.warning("column %r is not used; folds keep cases together by the column 'group'", column)
    found_channels = {column.removeprefix("image_"): column for column in columns if column.startswith("image_")}
    if "image" in columns:
        if found_channels:
            problems.append("there are both 'image' and 'image_<channel>' columns; expected one kind. Rename 'image'.")
        found_channels = {"image": "image"}
    if "" in found_channels:
        problems.append("column 'image_' names no channel; expected 'image', or 'image_<channel>'. Rename it.")
    if not found_channels:
        problems.append("there is no column 'image' or 'image_<channel>'. Add one with the path of each volume.")
    order = [str(name) for name in beside.get("channels") or ()]
    if order and sorted(order) != sorted(found_channels):
        problems.append(f"the YAML's channels are {order}; the table has {list(found_channels)}. Make them equal.")
        order = []
    return {channel: found_channels[channel] for channel in order or found_channels}


def _check_optional(channels: Mapping[str, str], beside: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    """Return the channels that a case may lack; note names that are no channels."""
    optional = tuple(str(name) for name in beside.get("optional_channels") or ())
    for name in optional:
        if channels and name not in channels:
            problems.append(f"the YAML's optional_channels name {name!r}; the channels are {', '.join(channels)}.")
    return optional


def _check_labels(cases: Iterable[Case], beside: Mapping[str, Any], problems: list[str]) -> Labels:
    """Return what the label values mean; note names that do not exist."""
    values = {value: _as_background(name) for value, name in (beside.get("labels") or {}).items()}
    ignore = beside.get("ignore")
    if ignore is not None and values.get(ignore, "ignore") != "ignore":
        problems.append(f"the YAML's ignore is {ignore}, which labels call {values[ignore]!r}. Name it in one of them.")
    elif ignore is not None:
        values[ignore] = "ignore"
    extra = {key: beside[key] for key in ("regions", "mirror_pairs") if key in beside}
    try:
        labels = Labels.model_validate({**values, **extra})
    except ValidationError as error:
        problems += [f"the YAML's labels: {_say(item)}" for item in error.errors()]
        problems.append("labels are values with names, such as {0: background, 1: liver}; quote names such as 'on'.")
        return Labels()
    for case in cases:
        unknown = [name for name in case.annotated or () if labels and name not in labels.classes]
        if unknown:
            known = ", ".join(labels.classes)
            problems.append(f"case {case.case_id}: annotated names {unknown[0]!r}, which is no label; labels: {known}.")
    return labels


def _as_background(name: object) -> object:
    """Return `background` however it is spelt: as `Background` it would be a class that is trained and scored."""
    return "background" if isinstance(name, str) and name.strip().lower() == "background" else name


def _check_classes(cases: Iterable[Case], beside: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    """Return the order of the classes: that of the YAML, else sorted with 10 behind 9."""
    found = {name for case in cases for name in case.classes}
    order = tuple(str(name) for name in beside.get("class_names") or ())
    unknown = sorted(found - set(order)) if order else []
    if unknown:
        problems.append(f"the class column has {unknown}, which the YAML's class_names lack; they are {list(order)}.")
    return order or tuple(sorted(found, key=natural_order))


def natural_order(text: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `case10` behind `case9`."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.split(r"([0-9]+)", text) if part]


def _read_beside(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.exists():
        return {}
    import yaml

    from pipeline.yaml_text import parse_yaml

    try:
        content = parse_yaml(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError, TypeError) as error:  # the last: a list or mapping as a key
        problems.append(f"{path.name} cannot be read: {' '.join(str(error).split())}.")
        return {}
    if content is None:
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path.name} holds {content!r}; expected a mapping with {', '.join(_YAML_KEYS)}.")
        return {}
    content = {key: value for key, value in content.items() if value is not None}
    for key, (kind, said) in _YAML_TYPES.items():
        if key in content and (not isinstance(content[key], kind) or isinstance(content[key], bool)):
            problems.append(f"{path.name}: {key} is {content.pop(key)!r}; expected a {said}.")
    for key in content:
        if key not in _YAML_KEYS:
            near = difflib.get_close_matches(str(key), _YAML_KEYS, n=1)
            hint = f", did you mean {near[0]!r}" if near else ""
            problems.append(f"{path.name}: there is no key {key!r}{hint}? Known: {', '.join(_YAML_KEYS)}.")
    return content


def labels_beside(csv: Path) -> Labels:
    """Return the labels that the YAML beside a manifest names; empty where there are none, or it cannot be read."""
    problems: list[str] = []
    return _check_labels((), _read_beside(csv.with_suffix(".yaml"), problems), problems)


def is_beside_manifest(path: Path) -> bool:
    """Whether a YAML file may stand beside a manifest: a configuration, for one, has other keys."""
    problems: list[str] = []
    _read_beside(path, problems)
    return not problems


def absolute(path: Path) -> Path:
    """Return the absolute path; `..` is resolved through the folders, and the file's own name stays.

    A file that is a symbolic link may point to a name without the ending that says its format.
    """
    path = Path.cwd() / path.expanduser()
    return path.parent.resolve() / path.name if ".." in path.parts else path


def _has_meaning(column: str) -> bool:
    return column in COLUMNS or column.startswith("image_")


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(SEPARATOR) if part.strip())


def _is_own(error: Mapping[str, Any], cells: Mapping[str, str]) -> bool:
    """Whether a problem is the row's own: that the whole column is lacking is said once."""
    return "case_id" in cells or error["loc"] != ("case_id",)


def _say(error: Mapping[str, Any]) -> str:
    """Put one of pydantic's problems into words."""
    field_name = ".".join(str(part) for part in error["loc"])
    if field_name == "case_id":
        return (
            f"case_id is {error['input']!r}; expected letters, digits, '.', '_' and '-', the first a letter or digit."
            if error["input"]
            else "case_id is empty; expected a name for each case."
        )
    return f"{field_name}: {error['msg'].removeprefix('Value error, ')}."
