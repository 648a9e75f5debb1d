"""Folds from files: our CSV, and nnU-Net's splits."""

import json
from pathlib import Path

import pytest

from pipeline.datasets.base import Case
from pipeline.datasets.fold_files import read_folds, read_folds_csv
from pipeline.datasets.folds import Folds, make_folds
from pipeline.errors import ConfigError, DataError

SPLITS = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a"], "val": ["b", "c"]}]


def cases(*names: str) -> list[Case]:
    return [Case(case_id=name, images={}) for name in names]


def test_nnunet_splits(tmp_path: Path) -> None:
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps(SPLITS))
    assert read_folds(file) == {"a": 0, "b": 1, "c": 1}
    assert make_folds(cases("c", "a", "b"), Folds(file=file, k=5), 0) == {"c": 1, "a": 0, "b": 1}
    with pytest.raises(DataError, match="1 training case without a fold, such as d"):
        make_folds(cases("a", "b", "c", "d"), Folds(file=file), 0)


def test_a_file_comes_before_the_column(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_text("case_id,fold\na,1\nb,0\n")
    given = [case.model_copy(update={"fold": number}) for number, case in enumerate(cases("a", "b"))]
    assert make_folds(given, Folds(file=file), 0) == {"a": 1, "b": 0}
    assert make_folds(given, Folds(), 0) == {"a": 0, "b": 1}


@pytest.mark.parametrize(
    ("splits", "part"),
    [
        ([{"train": ["b"], "val": ["a"]}, {"train": [], "val": ["a", "b"]}], "case a is in val of 2 splits"),
        ([{"train": ["b", "c"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}], "case c is in val of 0 splits"),
        ([{"train": ["b"], "val": ["a"]}, {"train": [], "val": ["b"]}], "split 1 leaves out case a"),
        ([{"train": ["a", "b"], "val": ["a"]}, {"train": ["a"], "val": ["b"]}], "both trains on and validates case a"),
        ([], "no list of splits"),
        ({"train": [], "val": []}, "no list of splits"),
        ([{"train": [1], "val": []}], "no list of splits"),
    ],
)
def test_what_is_no_cross_validation_is_refused(tmp_path: Path, splits: object, part: str) -> None:
    file = tmp_path / "splits_final.json"
    file.write_text(json.dumps(splits))
    with pytest.raises(DataError, match=part):
        read_folds(file)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected x\.csv"):
        read_folds(tmp_path / "folds.txt")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        read_folds(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", *(f"case_id,fold\na,0\n{row}\n" for row in ("a,1", "b,x", "b,-1"))])
def test_bad_fold_csv(tmp_path: Path, text: str) -> None:
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(DataError, match=r"folds\.csv"):
        read_folds_csv(tmp_path / "folds.csv")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("case_id;fold\na;0\n", "expected case_id and fold, with commas"),
        ("case_id,fold\na,x\n", "fold is 'x'"),
        ("case_id,fold\na,-1\n", "fold is '-1'"),
        ("case_id,fold\na,0\na,1\n", "case a stands in it twice"),
    ],
)
def test_tables_that_are_none_are_refused(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(DataError, match=part):
        read_folds_csv(tmp_path / "f.csv")


def test_folds_that_a_spreadsheet_saved_as_decimals(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("case_id,fold\na,1.0\nb,\n")
    assert read_folds_csv(tmp_path / "f.csv") == {"a": 1}
