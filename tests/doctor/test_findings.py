"""Findings as a table: by severity, few of many alike on the terminal, all of them in the CSV."""

import csv
import io

import pytest

from pipeline.doctor.findings import Finding, exit_code, in_order, some, summary, to_csv, to_text

ERROR = Finding("error", "b", "damaged file", "image: the file is cut short.", "Copy it again.")
WARNING = Finding("warning", "a", "empty label", "label: it has no voxel of any class.", "Restore it.")
NOTE = Finding("info", "", "size", "images of 12 x 14 x 16 voxels.")


@pytest.mark.parametrize(
    ("findings", "code"), [([], 0), ([NOTE], 0), ([NOTE, WARNING], 1), ([WARNING, ERROR, NOTE], 2)]
)
def test_exit_code(findings, code):
    assert exit_code(findings) == code


def test_order_is_by_severity_and_nothing_stands_twice():
    assert in_order([NOTE, WARNING, ERROR, NOTE]) == [ERROR, WARNING, NOTE]


def test_csv_holds_everything_and_no_formula():
    risky = Finding("info", "c", "series", "=HYPERLINK(1)")
    rows = list(csv.DictReader(io.StringIO(to_csv([ERROR, NOTE, risky]))))
    assert rows[0] == {
        "severity": "error", "case": "b", "kind": "damaged file", "found": "image: the file is cut short.",
        "remedy": "Copy it again.",
    }  # fmt: skip
    assert rows[1]["case"] == ""
    assert rows[2]["found"] == "'=HYPERLINK(1)"


@pytest.mark.parametrize("width", [80, 120, 200])
def test_text_fits_the_terminal(width):
    long = Finding("warning", "a_case_with_a_long_name", "x", "word " * 60, "do this " * 40)
    lines = to_text([ERROR, long, NOTE], width).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].split()[:2] == ["severity", "case"]
    assert sum(line.count("word") for line in lines) == 60


def test_many_alike_are_cut_short_and_counted():
    many = [Finding("error", f"case_{number}", "missing file", f"image: no {number}") for number in range(30)]
    text = to_text(many, 120)
    assert "case_4" in text
    assert "case_5" not in text
    assert "and 25 more: missing file" in text
    assert len(to_csv(many).splitlines()) == 31


def test_summary_and_lists():
    assert summary([ERROR, WARNING, NOTE, NOTE], 71) == "71 cases: 1 error, 1 warning, 2 notes"
    assert some(list("abc")) == "a, b, c"
    assert some(list("abcdefgh")) == "a, b, c, d, e and 3 more"
    assert to_text([]) == ""
