"""Folds from a file: a CSV of cases and folds, or nnU-Net's `splits_final.json`."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pipeline.datasets.listing import read_text_table
from pipeline.errors import ConfigError, DataError, join_problems, plural

_EXPECTED_JSON = 'a list such as [{"train": ["a", "b"], "val": ["c"]}, ...]'


def read_folds(path: Path) -> dict[str, int]:
    """Read case_id -> fold from `x.csv`, or from a `splits_final.json`, by the ending of the name.

    Raises:
        ConfigError: another ending.
        DataError: the file is unreadable, or its folds contradict each other.
    """
    if path.suffix.lower() == ".csv":
        return read_folds_csv(path)
    if path.suffix.lower() == ".json":
        return read_splits_json(path)
    raise ConfigError(f"folds.file: found {path.name}; expected x.csv (case_id,fold) or nnU-Net's splits_final.json.")


def read_folds_csv(path: Path) -> dict[str, int]:
    """Read case_id -> fold from a CSV with these two columns; rows without a fold are left out.

    Raises:
        DataError: no such file or columns, a fold that is no whole number, a case twice.
    """
    table = read_text_table(path, ",", "a table of folds with the columns case_id and fold")
    lacking = [column for column in ("case_id", "fold") if column not in table.columns]
    if lacking:
        found = ", ".join(table.columns)
        raise DataError(f"{path}: no table of folds: found columns {found}; expected case_id and fold, with commas.")
    table = table[table["fold"] != ""]
    odd = [fold for fold in table["fold"] if not re.fullmatch(r"\d{1,4}(\.0)?", fold)]
    if odd:
        raise DataError(f"{path}: fold is {odd[0]!r}; expected a whole number from 0, or nothing. Correct it.")
    folds = {case: int(fold.partition(".")[0]) for case, fold in zip(table["case_id"], table["fold"], strict=True)}
    if len(folds) < len(table):
        twice = table["case_id"][table["case_id"].duplicated()].iloc[0]
        raise DataError(f"{path}: case {twice} stands in it twice; expected each case once. Remove one.")
    return folds


def read_splits_json(path: Path) -> dict[str, int]:
    """Read case_id -> the split in whose `val` it is.

    Splits that are no cross-validation are refused: a case validated twice or never, or one that a split neither
    trains on nor validates, since our folds train on all cases but their own.

    Raises:
        DataError: no such file, no such list, or no cross-validation.
    """
    splits = _splits(path)
    times = Counter(case for split in splits for case in split["val"])
    everyone = {case for split in splits for part in split.values() for case in part}
    problems = [
        f"case {case} is in val of {plural(times[case], 'split')}; expected one."
        for case in sorted(everyone)
        if times[case] != 1
    ]
    for number, split in enumerate(splits):
        both = sorted(set(split["train"]) & set(split["val"]))
        neither = sorted(everyone - set(split["train"]) - set(split["val"]))
        problems += [f"split {number} both trains on and validates case {case}." for case in both]
        problems += [f"split {number} leaves out case {case}; expected it in train or val." for case in neither]
    if problems:
        more = [f"and {len(problems) - 10} more."] if len(problems) > 10 else []
        raise DataError(join_problems(str(path), problems[:10] + more))
    return {case: number for number, split in enumerate(splits) for case in split["val"]}


def _splits(path: Path) -> list[dict[str, list[str]]]:
    try:
        splits: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}; expected {_EXPECTED_JSON}.") from error
    good = isinstance(splits, list) and all(
        isinstance(split, dict)
        and all(
            isinstance(split.get(part), list) and all(isinstance(case, str) for case in split[part])
            for part in ("train", "val")
        )
        for split in splits
    )
    if not good or not splits:
        raise DataError(f"{path}: no list of splits; expected {_EXPECTED_JSON}.")
    return [{part: split[part] for part in ("train", "val")} for split in splits]
