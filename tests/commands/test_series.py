"""The command: its table, its CSV, and no word of a patient in either."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main


@pytest.fixture
def synthetic():
    """The generator of the tests of `dicom/`."""
    name = "tests_dicom_synthetic"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "dicom" / "synthetic.py"
        spec = importlib.util.spec_from_file_location(name, path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def export(tmp_path, synthetic):
    synthetic.write(synthetic.make(1), tmp_path / "in" / "a")
    made = synthetic.make_broken("one slice missing", 2)
    for one in made.datasets:
        one.SeriesDescription = "=HYPERLINK(1)"
    synthetic.write(made, tmp_path / "in" / "b")
    return tmp_path


def read(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_prints_and_writes_the_table(export, capsys, synthetic):
    out = export / "series.csv"
    assert main(["series", str(export / "in"), "--csv", str(out)]) == 0
    printed = capsys.readouterr().out
    rows = sorted(read(out), key=lambda row: row["verdict"])
    assert [row["verdict"] for row in rows] == ["refused", "usable"]
    assert rows[0]["kind"] == "missing slices"
    assert rows[0]["description"] == "'=HYPERLINK(1)"
    assert (rows[1]["slices"], rows[1]["step_mm"], rows[1]["orientation"]) == ("10", "2.5", "LPS")
    assert "2 series, 1 usable, in 19 files" in printed
    kept = (printed + out.read_text()).lower()
    assert not any(word in kept for word in synthetic.PRIVATE_WORDS)


def test_key_hides_the_uids(export, capsys, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef0123456789abcdef")
    out = export / "series.csv"
    assert main(["series", str(export / "in"), "--csv", str(out), "--key", str(key)]) == 0
    assert all(len(row["series"]) == 24 for row in read(out))
    assert "1.2.826" not in capsys.readouterr().out
    key.write_bytes(b"short")
    assert main(["series", str(export / "in"), "--key", str(key)]) == 2


def test_tells_what_rules_choose(export, capsys, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules:\n  - {name: liver, modality: CT, description: venous}\n")
    assert main(["series", str(export / "in"), "--rules", str(rules)]) == 0
    assert "[liver]" in capsys.readouterr().out


def test_empty_folder(tmp_path, capsys):
    assert main(["series", str(tmp_path)]) == 0
    assert "0 series, 0 usable, in 0 files" in capsys.readouterr().out
