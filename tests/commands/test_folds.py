"""`folds` shows the balance and refuses what leaks; so does `run`."""

import json
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.datasets.fold_files import read_folds

CONFIG = """
dataset: {{name: manifest, path: {csv}}}
network: {{name: unet, features: [4, 8]}}
sample: {{patch_size: [8, 8, 8]}}
folds: {{k: 2{more}}}
"""


@pytest.fixture
def config(manifest):
    def write(csv="x.csv", more=""):
        (manifest / "c.yaml").write_text(CONFIG.format(csv=csv, more=more))
        return "c.yaml"

    return write


def test_balance_and_audit(config, capsys):
    assert main(["folds", config(), "--output", "folds.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["fold", "0", "fold", "1"]
    assert lines[1].split()[0] == "cases"
    assert sorted(map(int, lines[1].split()[1:])) == [2, 3]
    assert any(line.startswith("ml liver") for line in lines)
    assert any(line.startswith("audit: no group and no image") for line in lines)
    assert sorted(read_folds(Path("folds.csv"))) == [f"c{number}" for number in range(5)]


def test_a_copy_in_another_fold_is_refused_by_folds_and_by_run(config, manifest, capsys):
    splits = [{"train": ["c3", "c4", "c5"], "val": ["c0", "c1", "c2"]},
              {"train": ["c0", "c1", "c2"], "val": ["c3", "c4", "c5"]}]  # fmt: skip
    (manifest / "splits_final.json").write_text(json.dumps(splits))
    path = config("copies.csv", ", file: splits_final.json")
    assert main(["folds", path]) == 2
    printed = capsys.readouterr()
    assert "audit: 1 leak" in printed.out
    assert "the same image in fold 0 and fold 1: cases c0, c5" in printed.err
    assert main(["run", path, "--until", "ingest"]) == 2
    assert "cases c0, c5" in capsys.readouterr().err
    assert not list((manifest / "runs" / "c").glob("ingest-*/result.json"))


@pytest.mark.slow
def test_it_can_be_allowed(config, manifest, capsys):
    (manifest / "f.csv").write_text("case_id,fold\n" + "".join(f"c{number},{number // 3}\n" for number in range(6)))
    path = config("copies.csv", ", file: f.csv, allow_leakage: true")
    assert main(["folds", path]) == 0
    assert "allowed by folds.allow_leakage" in capsys.readouterr().out
    assert main(["run", path, "--until", "ingest"]) == 0
    first = sorted(folder.name for folder in (manifest / "runs" / "c").glob("ingest-*"))
    (manifest / "f.csv").write_text("case_id,fold\n" + "".join(f"c{number},{number % 2}\n" for number in range(6)))
    assert main(["run", path, "--until", "ingest"]) == 0
    assert len(list((manifest / "runs" / "c").glob("ingest-*"))) == 2, f"another file of folds, but reused {first}"
