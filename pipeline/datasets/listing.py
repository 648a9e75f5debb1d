"""What importers share: names of volume files, tables and JSON beside them, cases gathered with all their problems."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.manifest import absolute, natural_order
from pipeline.errors import DataError, join_problems
from pipeline.imaging.labels import Labels

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr")
"""Of the volume files that can be read."""
_MOST_NAMED = 10


@dataclass
class Listing:
    """Cases while an importer finds them, and everything that is wrong with what it found."""

    where: Path
    """File or folder that problems are told of."""
    channels: tuple[str, ...] = ("image",)
    optional: tuple[str, ...] = ()
    """Channels that a case may lack."""
    cases: list[Case] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)

    def add(self, case_id: str, images: Mapping[str, Path], label: Path | None = None, **values: Any) -> None:
        """Take in one case; `values` are further fields of `Case`."""
        lacking = [name for name in self.channels if name not in {*images, *self.optional}]
        if lacking:
            self.problems.append(
                f"case {case_id}: no file for channel {', '.join(lacking)}; expected {', '.join(self.channels)}. Add "
                f"it, or let cases lack it with optional_channels=[{', '.join(lacking)}]."
            )
        elif not images:
            self.problems.append(f"case {case_id}: no image; expected at least one of {', '.join(self.channels)}.")
        self.missing += [file for file in (*images.values(), label) if file is not None and not file.exists()]
        images = {name: absolute(images[name]) for name in self.channels if name in images}
        try:
            case = Case(case_id=case_id, images=images, label=label and absolute(label), **values)
        except ValidationError as error:
            self.problems += [_say(case_id, item) for item in error.errors()]
            return
        self.cases.append(case)

    def manifest(self, labels: Labels | None = None, **values: Any) -> Manifest:
        """Return the manifest; `values` are further fields of it.

        Raises:
            DataError: anything is wrong; every problem is named at once.
        """
        ids = [case.case_id for case in self.cases]
        twice = sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []
        self.problems += shortened([_told_twice(name, self.cases) for name in twice], "cases")
        self.problems += shortened([f"{file} is listed but not there." for file in self.missing], "listed files")
        unknown = set(self.optional) - set(self.channels)
        if unknown:
            self.problems.append(
                f"optional_channels: there is no channel {sorted(unknown)[0]!r}; they are {', '.join(self.channels)}."
            )
        if not self.cases and not self.problems:
            self.problems.append("it holds no cases. Check the path, and which data set it is.")
        if self.problems:
            raise DataError(join_problems(str(self.where), self.problems))
        return Manifest(
            cases=tuple(self.cases),
            labels=labels or Labels(),
            channels=self.channels,
            optional_channels=self.optional,
            class_names=tuple(sorted({name for case in self.cases for name in case.classes}, key=natural_order)),
            **values,
        )


def _told_twice(case_id: str, cases: Iterable[Case]) -> str:
    files = [next(iter(case.images.values())).name for case in cases if case.case_id == case_id and case.images]
    return f"case {case_id} is found {len(files)} times, as {' and '.join(files[:3])}; expected once. Rename the files."


def split_ending(name: str) -> tuple[str, str]:
    """Return a volume file's name without its ending, and the ending; an empty one where it is none of ours."""
    for ending in ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)], name[-len(ending) :]
    return name, ""


def safe_id(text: str) -> str:
    """Make a case id of any text: what cannot stand in one becomes `_`.

    A hash follows where letters beyond ASCII are lost, which alone may tell two names apart.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("_.-")
    if text.isascii():
        return plain
    return f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:6]}".lstrip("-")


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return channel names of which none is empty or stands twice; a number is added where one would."""
    found: list[str] = []
    for number, text in enumerate(names):
        name = text.strip() or f"channel_{number}"
        found.append(f"{name}_{number}" if name in found else name)
    return tuple(found)


def shortened(problems: list[str], noun: str) -> list[str]:
    """Return the first few of many problems of one kind, and how many more there are."""
    more = len(problems) - _MOST_NAMED
    return [*problems[:_MOST_NAMED], *([f"so it is with {more} more {noun}."] if more > 0 else [])]


def grouped_by(pattern: str, where: str) -> Callable[[str], str]:
    """Return what finds the patient in a case id: the first group of a regular expression, or all that it matches.

    Without a pattern, or where it does not match, the patient is not known.

    Raises:
        DataError: it is no regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"{where}: {pattern!r} is no regular expression: {error}. Correct it.") from None

    def group(case_id: str) -> str:
        found = compiled.search(case_id) if pattern else None
        return "" if found is None else found[1 if compiled.groups else 0] or ""

    return group


def read_json(path: Path, expected: str) -> Any:
    """Read a JSON file.

    Raises:
        DataError: no such file, or it is not JSON; the message says what was `expected`.
    """
    try:
        return json.loads(path.read_text("utf-8-sig"))  # some editors write a byte order mark
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; expected {expected}. Correct the path.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}; expected JSON. Get the file again.") from error


def warn_number(folder: Path, table: Mapping[str, Any], found: int) -> None:
    """Warn where a `dataset.json` promises another number of training cases than there are."""
    said = table.get("numTraining")
    if isinstance(said, int) and said != found:
        log.warning("%s: dataset.json says numTraining %d; found %d. Is the copy complete?", folder, said, found)


def read_text_table(path: Path, separator: str, expected: str) -> "pd.DataFrame":
    """Read a table as text, with stripped cells and empty ones for nothing.

    Raises:
        DataError: no such file, or no such table; the message says what was `expected`.
    """
    import pandas as pd

    try:
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        )
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file; expected {expected}. Correct the path.") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}; expected {expected}.") from error
    table.columns = [str(column).strip() for column in table.columns]
    stripped: pd.DataFrame = table.fillna("").apply(lambda column: column.str.strip())
    return stripped


def named_values(found: object, problems: list[str]) -> Labels:
    """Return labels written as values and names, `{"0": "background", "1": "liver"}`; note what is wrong."""
    try:
        values = {int(value): str(name).strip() for value, name in dict(found or {}).items()}  # type: ignore[call-overload]
    except (TypeError, ValueError):
        problems.append(f"labels are {found!r}; expected values and names such as {{'0': 'background', '1': 'liver'}}.")
        return Labels()
    if values.get(0, "").lower() == "background":
        values[0] = "background"
    return Labels(values=values)


def _say(case_id: str, error: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if place == "case_id":
        return f"{case_id!r} is no case id; expected letters, digits, '.', '_' and '-'. Rename the file."
    return f"case {case_id}: {place}: {error['msg'].removeprefix('Value error, ')}."
