"""How honest a division into folds is: its balance, and what leaks from one fold into another."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.datasets.base import Case
from pipeline.datasets.folds import Folds, Volumes, annotated_only
from pipeline.errors import DataError, join_problems, listed, plural
from pipeline.imaging.block import member_of
from pipeline.imaging.examine import matches
from pipeline.imaging.facts import CaseFacts, ChannelFacts
from pipeline.provenance import digest

if TYPE_CHECKING:
    import pandas as pd

Contents = Mapping[str, Sequence[str]]
"""case_id -> hash of the voxels of each channel, and what channels that may be the same image have in common."""

_MOST_CASES, _MOST_LEAKS = 6, 20
_ALIKE = "alike "
"""Before a channel and the digest of figures that saving in another type, or turning, leaves as they are."""
_LEAST_VOXELS = 64


@dataclass(frozen=True)
class Leak:
    """Something that lies in several folds, or in training and in test, and should lie in one."""

    kind: Literal["group", "site", "content"]
    """A patient, a site (where folds are to keep these together), or images of equal voxels."""
    name: str
    """Of the group or site; the start of the hash of the voxels."""
    cases: tuple[str, ...]
    parts: tuple[str, ...]
    """`fold 0`, `fold 2`, `test`."""

    def text(self) -> str:
        """Return one line on it."""
        cases = ", ".join(self.cases[:_MOST_CASES]) + (", ..." if len(self.cases) > _MOST_CASES else "")
        if self.kind == "content":
            return f"the same image in {listed(self.parts)}: cases {cases}"
        return f"{self.kind} {self.name} in {listed(self.parts)}: cases {cases}"


def contents_of(facts: Mapping[str, CaseFacts]) -> dict[str, list[str]]:
    """Return what the channels of each case hold; one that is constant is left out, since it says nothing."""
    contents = {}
    for case_id, fact in facts.items():
        telling = {name: one for name, one in fact.channels.items() if one.all.minimum < one.all.maximum}
        alike = [_alike(name, one, fact) for name, one in telling.items() if one.all.voxels >= _LEAST_VOXELS]
        contents[case_id] = [*(one.voxels_sha256 for one in telling.values()), *alike]
    return contents


def find_leaks(cases: Iterable[Case], folds: Mapping[str, int], options: Folds, contents: Contents) -> list[Leak]:
    """Return every group and every image that lies in several folds, or in a fold and in test.

    Args:
        cases: All cases.
        folds: Of the training cases.
        options: `group: site` asks that sites stay together too.
        contents: Of all cases; where empty, only groups are looked at. Images in several parts that may be the same,
            saved in another type or turned, are read and compared.
    """
    part_of, cases = {}, list(cases)
    for case in cases:
        if case.split == "test":
            part_of[case.case_id] = "test"
        elif case.case_id in folds:
            part_of[case.case_id] = f"fold {folds[case.case_id]}"
    members = [case for case in cases if case.case_id in part_of]
    leaks = _straddling("group", members, part_of, lambda case: [case.patient])
    if options.group == "site" or options.leave_one_site_out:
        leaks += _straddling("site", members, part_of, lambda case: [case.site] if case.site else [])
    images = _straddling("content", members, part_of, lambda case: _names(case, contents, is_alike=False))
    images += _saved_anew(members, part_of, contents)
    seen: set[tuple[str, ...]] = set()  # of two channels, both are copied: told once
    for leak in images:
        if leak.cases not in seen:
            seen.add(leak.cases)
            leaks.append(leak)
    return leaks


def refuse_leaks(leaks: Sequence[Leak], options: Folds) -> None:
    """Raise where there are leaks and the config does not allow them.

    Raises:
        DataError: names the leaks.
    """
    if not leaks or options.allow_leakage:
        return
    lines = [f"{leak.text()}." for leak in leaks[:_MOST_LEAKS]]
    if len(leaks) > _MOST_LEAKS:
        lines.append(f"and {len(leaks) - _MOST_LEAKS} more.")
    raise DataError(
        join_problems("folds", lines)
        + "\nScores would be too good, since what is validated was trained on. Give such cases one group, or leave the "
        "copies out; or allow it with --set folds.allow_leakage=true, and the report says so on top."
    )


def fold_balance(
    cases: Iterable[Case], folds: Mapping[str, int], label_volumes: Volumes | None = None
) -> "pd.DataFrame":
    """Return one row a fold, and one for the test split where there is one, to judge the balance by.

    Columns: fold; cases; groups; `class <name>` and `site <name>` (number of cases); for each labelled
    class `with <name>` (cases that have it) and `ml <name>` (its volume in all of them), where it was annotated.
    """
    import pandas as pd

    rows: dict[str, dict[str, object]] = {}
    for fold, members in _by_fold(cases, folds).items():
        volumes = [annotated_only(case, (label_volumes or {}).get(case.case_id, {})) for case in members]
        row: dict[str, object] = {"fold": fold, "cases": len(members), "groups": len({c.patient for c in members})}
        for name in sorted({name for case in members for name in case.classes}):
            row[f"class {name}"] = sum(name in case.classes for case in members)
        for site in sorted({case.site for case in members} - {""}):
            row[f"site {site}"] = sum(case.site == site for case in members)
        for name in dict.fromkeys(name for volume in volumes for name in volume):
            row[f"with {name}"] = sum(volume.get(name, 0) > 0 for volume in volumes)
            row[f"ml {name}"] = round(sum(volume.get(name, 0.0) for volume in volumes), 3)
        rows[fold] = row
    table = pd.DataFrame(list(rows.values()))
    counts = [column for column in table.columns if column != "fold"]
    whole = [column for column in counts if not column.startswith("ml ")]
    table[counts] = table[counts].fillna(0)
    table[whole] = table[whole].astype(int)
    return table


def audit_text(leaks: Sequence[Leak], contents: Contents, groups: int) -> str:
    """Return the result of the audit, one line a leak."""
    looked = f"{plural(groups, 'group')} and the voxels of {plural(len(contents), 'case')} compared"
    if not leaks:
        return f"audit: no group and no image lies in two folds ({looked})"
    return "\n".join([f"audit: {plural(len(leaks), 'leak')} ({looked})", *(f"  {leak.text()}" for leak in leaks)])


def _by_fold(cases: Iterable[Case], folds: Mapping[str, int]) -> dict[str, list[Case]]:
    members: dict[str, list[Case]] = {str(fold): [] for fold in sorted(set(folds.values()))}
    test = []
    for case in cases:
        if case.split == "test":
            test.append(case)
        elif case.case_id in folds:
            members[str(folds[case.case_id])].append(case)
    return members | ({"test": test} if test else {})


def _alike(channel: str, found: ChannelFacts, fact: CaseFacts) -> str:
    """Return a name that images share which hold the same voxels in another type or in another order of axes."""
    figures = [f"{value:.6g}" for value in (found.all.minimum, found.all.maximum, found.all.mean, found.all.std)]
    return f"{_ALIKE}{digest([sorted(fact.canonical_shape), figures])} {channel}"


def _names(case: Case, contents: Contents, *, is_alike: bool) -> list[str]:
    return [name for name in contents.get(case.case_id, []) if name.startswith(_ALIKE) == is_alike]


def _saved_anew(members: Iterable[Case], part_of: Mapping[str, str], contents: Contents) -> list[Leak]:
    """Return the images in several parts whose voxels are equal once types and directions of axes are made so."""
    files: dict[str, dict[str, Path]] = defaultdict(dict)
    for case in members:
        for name in _names(case, contents, is_alike=True):
            key, _, channel = name.removeprefix(_ALIKE).partition(" ")
            path = case.images.get(channel)
            if path is not None and member_of(path) is None and [*case.images.values()].count(path) == 1:
                files[key].setdefault(case.case_id, path)
    leaks = []
    for key, of_case in sorted(files.items()):
        ids = list(of_case)
        if len({part_of[case_id] for case_id in ids}) == 1:
            continue
        same: dict[int, list[int]] = defaultdict(list)
        for at, earlier, _ in matches([of_case[case_id] for case_id in ids]):
            same[earlier].append(at)
        for first, others in same.items():
            found = tuple(ids[at] for at in (first, *others))
            parts = sorted({part_of[case_id] for case_id in found})
            if len(parts) > 1:
                leaks.append(Leak("content", key[:12], found, tuple(parts)))
    return leaks


def _straddling(
    kind: Literal["group", "site", "content"],
    members: Iterable[Case],
    part_of: Mapping[str, str],
    names_of: Callable[[Case], Sequence[str]],
) -> list[Leak]:
    """Return the names whose cases lie in several parts."""
    found: dict[str, list[str]] = defaultdict(list)
    for case in members:
        for name in dict.fromkeys(names_of(case)):
            found[name].append(case.case_id)
    leaks = []
    for name, ids in sorted(found.items()):
        parts = sorted({part_of[case_id] for case_id in ids})
        if len(parts) > 1:
            leaks.append(Leak(kind, name[:12] if kind == "content" else name, tuple(ids), tuple(parts)))
    return leaks
