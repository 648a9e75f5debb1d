"""`plan`: from a manifest to a configuration that runs, without editing anything."""

from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.config import load_config


@pytest.mark.slow
def test_from_a_manifest_to_a_config(manifest, capsys):
    words = ["plan", "x.csv", "--output", "configs/mine.yaml", "--max-minutes", "3", "--max-memory", "2"]
    assert main(words) == 0
    assert "Predicted for a training step" in capsys.readouterr().out
    config = load_config(Path("configs/mine.yaml"))
    assert config.train.max_minutes == 3
    assert config.machine.max_memory_gb == 2
    assert config.sample.patch_size != "auto"
    assert main(["run", "configs/mine.yaml", "--until", "sample", "--folds", "0"]) == 0


@pytest.mark.slow
def test_a_value_can_be_stated(manifest, capsys):
    assert main(["plan", "x.csv", "--set", "train.batch_size=1", "--set", "sample.patch_size=[8, 16, 8]"]) == 0
    text = capsys.readouterr().out
    assert "  patch_size: [8, 16, 8]" in text
    assert "  batch_size: 1" in text
    assert "Stated. The planner's choice:" in text


def test_a_plan_does_not_overwrite_what_it_reads(manifest, capsys):
    for output in ("x.csv", "x.yaml"):
        before = Path(output).read_text()
        assert main(["plan", "x.csv", "--output", output]) == 2
        assert "Name another one" in capsys.readouterr().err
        assert Path(output).read_text() == before


@pytest.mark.slow
def test_the_plan_trains(manifest, capsys):
    stated = [
        f"--set={text}" for text in ("train.epochs=1", "train.steps_per_epoch=2", "folds.k=2", "train.max_minutes=null")
    ]
    assert main(["plan", "x.csv", "--output", "p.yaml", *stated]) == 0
    assert main(["run", "p.yaml", "--folds", "0"]) == 0
    assert "mean Dice" in capsys.readouterr().out


@pytest.mark.slow
def test_a_leaky_run_says_so_on_top_of_its_report(manifest, capsys):
    rows = [f"c{number},{number // 3}\n" for number in range(6)]
    (manifest / "f.csv").write_text("case_id,fold\n" + "".join(rows))
    stated = ("train.epochs=1", "train.steps_per_epoch=2", "train.max_minutes=null", "folds.allow_leakage=true",
              "folds.file=f.csv")  # fmt: skip
    assert main(["plan", "copies.csv", "--output", "p.yaml", *[f"--set={text}" for text in stated]]) == 0
    assert main(["run", "p.yaml", "--folds", "0"]) == 0
    page = (manifest / "runs" / "p" / "report.html").read_text()
    assert "Figures on this page are too good" in page
    assert "never saw its patient" not in page
