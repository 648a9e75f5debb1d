"""Data sets in the Brain Imaging Data Structure (BIDS), read in place."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from pipeline.datasets.base import Dataset, Manifest, datasets
from pipeline.datasets.listing import Listing, distinct, read_json, read_text_table, safe_id, split_ending
from pipeline.datasets.patterns import files_below
from pipeline.errors import DataError
from pipeline.imaging.labels import Labels

log = logging.getLogger(__name__)

_NOTHING = ("", "n/a", "N/A")
_Scan = tuple[str, str, str]
"""Subject, session and run; the latter two may be empty."""


@datasets.register
class Bids(Dataset):
    """Subjects and sessions (`sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz`), labels from `derivatives/`.

    A session is a case, its subject the group. `participants.tsv` gives site, class and further columns.
    """

    name: Literal["bids"] = "bids"
    folder: Path
    """Where `sub-*` lie."""
    suffixes: tuple[str, ...] = ()
    """Kinds of images, such as `[T1w, FLAIR]`: the channels in this order; the only kind there is where empty."""
    datatypes: tuple[str, ...] = ("anat", "ct")
    """Folders of a session that hold the images."""
    entities: dict[str, str] = Field(default_factory=dict)
    """What the names of the images must say, such as `{acq: highres}`."""
    labels_in: Path = Path("derivatives")
    """Where labels lie, such as `derivatives/manual`; relative paths start from the folder."""
    label_suffix: str = "dseg"
    """Kind of the label files, such as `dseg` or `mask`."""
    label_entities: dict[str, str] = Field(default_factory=dict)
    """What the names of the labels must say, such as `{desc: tumour}`."""
    site: str = "site"
    """Column of `participants.tsv` with the site, where there is one."""
    class_column: str = ""
    """Column of `participants.tsv` with the class of the whole volume; none where empty."""
    optional_channels: tuple[str, ...] = ()
    """Kinds of images that a case may lack."""

    def cases(self) -> Manifest:
        """List the sessions; the other columns of `participants.tsv` become `metadata["columns"]`."""
        folder = Path.cwd() / self.folder.expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder; expected a BIDS data set. Correct the path.")
        images = [one for one in _files(folder, "sub-*") if one.folder in self.datatypes and one.says(self.entities)]
        suffixes = self.suffixes or _only_kind(images, folder)
        listing = Listing(folder, distinct(suffixes), self.optional_channels)
        by_scan = _by_scan([one for one in images if one.suffix in suffixes], listing.problems)
        labels_in = folder / self.labels_in.expanduser()
        labels = _label_files(labels_in, self.label_suffix, self.label_entities) if labels_in.is_dir() else []
        people = _People.read(folder / "participants.tsv", self.site, self.class_column)
        columns: dict[str, dict[str, str]] = {}
        for scan, files in by_scan.items():
            case_id = safe_id("_".join(part for part in scan if part))
            label = _label_of(scan, labels, by_scan, listing.problems)
            listing.add(case_id, files, label, group=safe_id(scan[0]), **people.known(scan[0], listing.problems))
            for column, value in people.others(scan[0]).items():
                columns.setdefault(column, {})[case_id] = value
        if listing.cases and all(case.label is None for case in listing.cases):
            _say_no_labels(labels_in, self.label_suffix)
        meaning = _read_names(labels_in, listing.problems)
        return listing.manifest(meaning, metadata=_metadata(folder, columns))


@dataclass(frozen=True)
class _File:
    """A volume file and what its name says."""

    path: Path
    folder: str
    entities: Mapping[str, str]
    suffix: str

    def says(self, wanted: Mapping[str, str]) -> bool:
        return all(self.entities.get(key) == str(value) for key, value in wanted.items())

    @property
    def scan(self) -> _Scan:
        named = {key: f"{key}-{self.entities[key]}" if key in self.entities else "" for key in ("sub", "ses", "run")}
        return named["sub"], named["ses"], named["run"]


def _files(root: Path, subjects: str) -> list[_File]:
    """Return the volume files of all subjects below a folder."""
    found = []
    for subject in sorted(root.glob(subjects)):
        for name in files_below(subject) if subject.is_dir() else ():
            stem, ending = split_ending(name.rpartition("/")[2])
            *pairs, suffix = stem.split("_")
            entities = dict(pair.split("-", 1) for pair in pairs if "-" in pair)
            if ending and entities.get("sub"):
                found.append(_File(subject / name, name.split("/")[-2] if "/" in name else "", entities, suffix))
    return found


def _only_kind(images: Iterable[_File], folder: Path) -> tuple[str, ...]:
    counts = Counter(one.suffix for one in images)
    if len(counts) == 1:
        return tuple(counts)
    if not counts:
        raise DataError(f"{folder}: no images sub-*/[ses-*/]anat/sub-*_SUFFIX.nii.gz. Check the path and datatypes.")
    listed = ", ".join(f"{suffix} ({count})" for suffix, count in counts.most_common())
    raise DataError(f"{folder}: suffixes: found {listed}; expected which to take, such as suffixes=[{min(counts)}].")


def _by_scan(images: Iterable[_File], problems: list[str]) -> dict[_Scan, dict[str, Path]]:
    """Return scan -> its files by kind."""
    found: dict[_Scan, dict[str, Path]] = defaultdict(dict)
    for one in images:
        other = found[one.scan].setdefault(one.suffix, one.path)
        if other != one.path:
            problems.append(
                f"case {'_'.join(filter(None, one.scan))}: {one.suffix} is both {other.name} and {one.path.name}; "
                "expected one. Say which with entities, such as entities={acq: highres}."
            )
    return dict(sorted(found.items()))


def _label_files(root: Path, suffix: str, entities: Mapping[str, str]) -> list[_File]:
    """Return the labels of one derivative, or of all of them."""
    return [
        one
        for place in ("sub-*", "*/sub-*")
        for one in _files(root, place)
        if one.suffix == suffix and one.says(entities)
    ]


def _label_of(scan: _Scan, labels: Iterable[_File], scans: Iterable[_Scan], problems: list[str]) -> Path | None:
    """Return the label of a scan: that of its run, or of its session where that has one run."""
    alone = sum(other[:2] == scan[:2] for other in scans) == 1
    fits = [one for one in labels if one.scan == scan or (alone and one.scan == (*scan[:2], ""))]
    if len(fits) > 1:
        problems.append(
            f"case {'_'.join(filter(None, scan))}: {len(fits)} labels fit, {fits[0].path.name} and "
            f"{fits[1].path.name}; expected one. Say which with labels_in or label_entities={{desc: ...}}."
        )
    return fits[0].path if fits else None


def _say_no_labels(root: Path, suffix: str) -> None:
    """Tell which kinds of files there are, where none of the labels that are looked for fits."""
    kinds = Counter(one.suffix for place in ("sub-*", "*/sub-*") for one in _files(root, place))
    if kinds:
        found = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common())
        log.warning("no label *_%s fits an image; %s holds %s: say which with label_suffix", suffix, root, found)


@dataclass(frozen=True)
class _People:
    """What `participants.tsv` says of each subject."""

    rows: Mapping[str, Mapping[str, str]]
    site: str
    class_column: str

    @classmethod
    def read(cls, path: Path, site: str, class_column: str) -> "_People":
        if not path.exists():
            if class_column:
                raise DataError(f"class_column: there is no {path} to take {class_column!r} from.")
            return cls({}, site, class_column)
        table = read_text_table(path, "\t", "a table of subjects")
        lacking = [name for name in ("participant_id", class_column) if name and name not in table.columns]
        if lacking:
            raise DataError(f"{path}: there is no column {lacking[0]!r}; found {', '.join(table.columns)}.")
        rows = [{str(key): str(cell) for key, cell in row.items()} for row in table.to_dict("records")]
        ids = [f"sub-{row['participant_id'].removeprefix('sub-')}" for row in rows]
        twice = [subject for subject, count in Counter(ids).items() if count > 1]
        if twice:
            raise DataError(f"{path}: {twice[0]} stands in it twice; expected each subject once. Remove one row.")
        return cls(dict(zip(ids, rows, strict=True)), site, class_column)

    def known(self, subject: str, problems: list[str]) -> dict[str, Any]:
        row = self.rows.get(subject, {})
        label = row.get(self.class_column, "")
        if self.class_column and label in _NOTHING:
            problems.append(f"participants.tsv: {subject} has no {self.class_column}; expected a class. Fill it in.")
        site = row.get(self.site, "")
        return {
            "site": "" if site in _NOTHING else site,
            "classes": (label,) if self.class_column and label not in _NOTHING else (),
        }

    def others(self, subject: str) -> dict[str, str]:
        used = ("participant_id", self.site, self.class_column)
        row = self.rows.get(subject, {})
        return {name: value for name, value in row.items() if name not in used and value not in _NOTHING}


def _read_names(root: Path, problems: list[str]) -> Labels:
    """Return the label names of a `dseg.tsv` (columns index and name), where there is just one."""
    tables = [*root.glob("*dseg.tsv"), *root.glob("*/*dseg.tsv")]
    if len(tables) != 1:
        return Labels()
    table = read_text_table(tables[0], "\t", "a table of label names")
    try:
        values = {int(index): str(name) for index, name in zip(table["index"], table["name"], strict=True)}
    except (KeyError, ValueError):
        problems.append(f"{tables[0].name}: expected columns 'index', with whole numbers, and 'name'.")
        return Labels()
    return Labels(values={0: "background"} | values)


def _metadata(folder: Path, columns: dict[str, dict[str, str]]) -> dict[str, Any]:
    path = folder / "dataset_description.json"
    found = {"dataset_description": read_json(path, "a description")} if path.exists() else {}
    return found | ({"columns": columns} if columns else {})
