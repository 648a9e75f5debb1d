"""A new package works at once: its own tests pass, and configs know it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.__main__ import main

ROOT = Path(__file__).parents[2]


def python(*words: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=environment, cwd=path, check=False
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dataset", "network"])
def test_its_own_tests_pass(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "package"
    assert main(["new-plugin", kind, "ward_7", "--output", str(folder)]) == 0
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder), path=folder)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_an_entry_point_makes_it_known_everywhere(tmp_path: Path) -> None:
    main(["new-plugin", "network", "entry_net", "--output", str(tmp_path)])
    about = tmp_path / "entry_net-0.1.0.dist-info"  # what pip leaves of an installed package
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: entry_net\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text("[pipeline.plugins]\nentry_net = entry_net\n")
    done = python("-m", "pipeline", "options", "network", "entry_net", path=tmp_path)
    assert "Channels of each convolution" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("name", "part"),
    [("My-Net", "small letters"), ("unet", "called 'unet' already"), ("class", "small letters"), ("json", "module")],
)
def test_names_that_would_not_work_are_refused(
    tmp_path: Path, name: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["new-plugin", "network", name, "--output", str(tmp_path / "new")]) == 2
    assert part in capsys.readouterr().err


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["new-plugin", "network", "some_net", "--output", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
