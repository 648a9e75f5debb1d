"""Which case is validated in which fold: grouped, balanced, and the same every time."""

import hashlib
import logging
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pipeline.datasets.base import Case
from pipeline.datasets.fold_files import read_folds
from pipeline.errors import ConfigError, DataError, join_problems, plural
from pipeline.plugin import Settings
from pipeline.workspace import write_text

log = logging.getLogger(__name__)

Volumes = Mapping[str, Mapping[str, float]]
"""case_id -> {class: ml}."""

_MOST_NAMED = 5


class Folds(Settings):
    """How the training cases are divided for cross-validation.

    `file` comes first, then `leave_one_site_out`, then a `fold` column of the data set, then `k` new folds. Cases of
    the test split are in no fold.
    """

    k: int = Field(default=3, ge=2)
    """Number of folds."""
    group: Literal["group", "site"] = "group"
    """What must not straddle folds: the patient (the case itself where the data set names none), or the site."""
    stratify: tuple[Literal["class", "site", "labels", "label_volume"], ...] = ("labels",)
    """What is spread evenly: classes, sites, which labels a case has, or their volumes in ml."""
    leave_one_site_out: bool = False
    """One fold a site, in the order of their names, instead of `k` folds."""
    file: Path | None = None
    """Folds that are given: a CSV with the columns case_id and fold, or nnU-Net's `splits_final.json`."""
    allow_leakage: bool = False
    """Whether to go on where a group, or the same image, lies in two folds; the report then says so on top."""

    @model_validator(mode="after")
    def _one_source(self) -> "Folds":
        if self.file is not None and self.leave_one_site_out:
            raise ValueError("both file and leave_one_site_out are given; expected one of them")
        return self


def make_folds(
    cases: Iterable[Case], options: Folds, seed: int, label_volumes: Volumes | None = None
) -> dict[str, int]:
    """Give every case outside the test split the fold in which it is validated.

    One variable is stratified by scikit-learn's StratifiedGroupKFold; several, or volumes, by a greedy
    assignment of whole groups, largest first. Variables that are equal for all cases are left out.

    Args:
        cases: All cases, in any order: the result does not depend on it.
        options: What is grouped and balanced.
        seed: Draws one of the equally good divisions.
        label_volumes: Volume in ml of each class in each labelled case.

    Returns:
        case_id -> fold from 0, in the order of `cases`; empty where there are only test cases.

    Raises:
        DataError: a group lies in two folds or in train and test, and `allow_leakage` is false; the given folds are
            unreadable, have gaps or lack cases.
        ConfigError: fewer groups, or sites, than folds.
    """
    everyone = list(cases)
    cases = [case for case in everyone if case.split != "test"]
    _refuse_test_leaks(everyone, options)
    if not cases:
        return {}
    if options.file is not None:
        folds = _checked(cases, read_folds(options.file), options, str(options.file))
    elif options.leave_one_site_out:
        folds = _site_folds(cases, options)
    elif any(case.fold is not None for case in cases):
        given = {case.case_id: case.fold for case in cases if case.fold is not None}
        folds = _checked(cases, given, options, "fold column")
    else:
        folds = _new_folds(sorted(cases, key=lambda case: case.case_id), options, seed, label_volumes or {})
    return {case.case_id: folds[case.case_id] for case in cases}


def group_of(case: Case, options: Folds) -> str:
    """Return the name of what must stay together with `case`."""
    return case.patient if options.group == "group" else case.site or case.case_id


def find_straddling(cases: Iterable[Case], part_of: Mapping[str, object], options: Folds) -> dict[str, list[str]]:
    """Return the groups whose cases lie in several parts (folds, or train and test), with these parts."""
    parts: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if case.case_id in part_of:
            parts[group_of(case, options)].add(str(part_of[case.case_id]))
    return {group: sorted(found) for group, found in sorted(parts.items()) if len(found) > 1}


def annotated_only(case: Case, volumes: Mapping[str, float]) -> dict[str, float]:
    """Return the volumes of the classes that were annotated in a case; those of others say nothing."""
    return {name: ml for name, ml in volumes.items() if case.annotated is None or name in case.annotated}


def write_folds_csv(path: Path, cases: Iterable[Case], folds: Mapping[str, int]) -> None:
    """Write case_id, group, site, split and fold of every case; the fold of a test case is empty."""
    import pandas as pd

    rows = [
        {
            "case_id": case.case_id,
            "group": case.patient,
            "site": case.site,
            "split": case.split or "train",
            "fold": str(folds.get(case.case_id, "")),
        }
        for case in cases
    ]
    write_text(path, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def _refuse_test_leaks(cases: Sequence[Case], options: Folds) -> None:
    split = {case.case_id: case.split or "train" for case in cases}
    leaks = find_straddling(cases, split, options)
    if leaks and not options.allow_leakage:
        raise DataError(f"split: {_name(leaks)} has cases in train and in test; expected one. Mend the split column.")


def _checked(cases: Sequence[Case], given: Mapping[str, int], options: Folds, where: str) -> dict[str, int]:
    """Return the given folds of these cases, where all have one and nothing is amiss."""
    folds = {case.case_id: given[case.case_id] for case in cases if case.case_id in given}
    problems = []
    without = [case.case_id for case in cases if case.case_id not in given]
    if without:
        problems.append(f"{plural(len(without), 'training case')} without a fold, such as {without[0]}. Fill in all.")
    found = sorted(set(folds.values()))
    if found != list(range(len(found))) or len(found) < 2:
        problems.append(f"folds are {found}; expected at least two, 0, 1, ... without a gap.")
    straddling = {} if options.allow_leakage else find_straddling(cases, folds, options)
    if straddling:
        problems.append(
            f"{_name(straddling)} has cases in several folds; expected one. Correct the folds, or allow it with "
            "--set folds.allow_leakage=true."
        )
    if problems:
        raise DataError(join_problems(where, problems))
    log.info("%s taken from the %s", plural(len(found), "fold"), where)
    return folds


def _site_folds(cases: Sequence[Case], options: Folds) -> dict[str, int]:
    without = [case.case_id for case in cases if not case.site]
    if without:
        raise DataError(f"leave_one_site_out: {plural(len(without), 'case')} without a site, such as {without[0]}.")
    sites = sorted({case.site for case in cases})
    if len(sites) < 2:
        raise ConfigError(f"folds.leave_one_site_out: all cases are of site {sites[0]!r}; expected two or more sites.")
    folds = {case.case_id: sites.index(case.site) for case in cases}
    straddling = find_straddling(cases, folds, options)
    if straddling and not options.allow_leakage:
        raise DataError(f"leave_one_site_out: {_name(straddling)} was at several sites; expected one.")
    return folds


def _new_folds(cases: Sequence[Case], options: Folds, seed: int, volumes: Volumes) -> dict[str, int]:
    groups = [group_of(case, options) for case in cases]
    if len(set(groups)) < options.k:
        raise ConfigError(
            f"folds.k: {options.k} folds of {plural(len(set(groups)), 'group')}; expected no more folds than groups. "
            f"Set folds.k to {len(set(groups))} or less, or name more groups."
        )
    variables = _variables(cases, options, volumes)
    numbers: NDArray[np.int64] | None = None
    if len(variables) == 1 and "label_volume" not in variables:
        numbers = _stratify(next(iter(variables.values())), groups, options.k, seed)
    if numbers is None:
        numbers = _assign_greedily(list(variables.values()), groups, options.k, seed)
    return {case.case_id: int(fold) for case, fold in zip(cases, numbers, strict=True)}


def _variables(cases: Sequence[Case], options: Folds, volumes: Volumes) -> dict[str, NDArray[np.float64]]:
    """Return (cases, columns) of what is to be spread evenly, for each variable that differs between cases."""
    names = sorted({name for case in cases for name in volumes.get(case.case_id, {})})
    volumes = {case.case_id: annotated_only(case, volumes.get(case.case_id, {})) for case in cases}
    ml = np.array([[volumes.get(case.case_id, {}).get(name, 0.0) for name in names] for case in cases], float)
    classes = sorted({name for case in cases for name in case.classes})
    sites = sorted({case.site for case in cases})
    tables = {
        "class": np.array([[name in case.classes for name in classes] for case in cases], float),
        "site": np.array([[site == case.site for site in sites] for case in cases], float),
        "labels": (ml > 0).astype(float),
        "label_volume": ml,
    }
    wanted = {name: tables[name] for name in options.stratify}
    return {name: table for name, table in wanted.items() if table.size and (table != table[0]).any()}


def _stratify(table: NDArray[np.float64], groups: Sequence[str], k: int, seed: int) -> NDArray[np.int64] | None:
    """Divide by scikit-learn; None where it leaves a fold empty or every value is too rare for it."""
    from sklearn.model_selection import StratifiedGroupKFold

    values = np.unique(table, axis=0, return_inverse=True)[1].ravel()
    if np.bincount(values).max() < k:
        return None
    numbers = np.full(len(groups), -1)
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a value rarer than the folds is no fault of the user
        for fold, (_, validation) in enumerate(splitter.split(values, values, np.asarray(groups))):
            numbers[validation] = fold
    return numbers if np.unique(numbers).size == k else None


def _assign_greedily(
    variables: Sequence[NDArray[np.float64]], groups: Sequence[str], k: int, seed: int
) -> NDArray[np.int64]:
    """Put each group, largest first, into the fold where it lowers the summed imbalance most.

    The imbalance is the sum, over columns, of the folds' squared shares of that column; every variable
    weighs as much as the number of cases does. A group adds g to a fold that holds x, so it changes the
    sum by 2 x.g + g.g, and the best fold is the one with the least x.g. Empty folds are filled first,
    since their x is zero. Ties are broken by a hash of the group's name.
    """
    names = sorted(set(groups))
    row_of = {name: row for row, name in enumerate(names)}
    shares = []
    for table in (np.ones((len(groups), 1)), *variables):
        summed = np.zeros((len(names), table.shape[1]))
        np.add.at(summed, [row_of[name] for name in groups], table)
        used = summed[:, summed.sum(0) > 0]
        shares.append(used / used.sum(0) / np.sqrt(used.shape[1]))
    weight = np.concatenate(shares, axis=1)
    size = np.round(np.linalg.norm(weight, axis=1), 12)
    loads, fold_of = np.zeros((k, weight.shape[1])), {}
    for row in sorted(range(len(names)), key=lambda row: (-size[row], _hash(seed, names[row]))):
        cost = np.round(loads @ weight[row], 12)
        fold = min(range(k), key=lambda fold: (cost[fold], _hash(seed, names[row], fold)))
        loads[fold] += weight[row]
        fold_of[names[row]] = fold
    return np.array([fold_of[name] for name in groups])


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _name(straddling: Mapping[str, Sequence[str]]) -> str:
    """Return `group a (0, 2)`, or the first few of several groups."""
    named = [f"{group} ({', '.join(parts)})" for group, parts in list(straddling.items())[:_MOST_NAMED]]
    more = len(straddling) - len(named)
    return f"group {'; '.join(named)}{f' and {more} more' if more else ''}"
