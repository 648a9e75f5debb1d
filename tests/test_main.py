"""The command line starts fast and answers bad input with one message."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from pipeline.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
HEAVY = {
    "torch",
    "monai",
    "scipy",
    "numpy",
    "pandas",
    "SimpleITK",
    "pydantic",
    "numba",
    "matplotlib",
    "sklearn",
    "pydicom",
    "blosc2",
}


@pytest.mark.parametrize("words", [["--help"], *[[name, "--help"] for name in COMMANDS]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    code = (
        "import sys\nfrom pipeline.__main__ import main\n"
        f"try: main({words!r})\nexcept SystemExit: pass\n"
        "print('IMPORTED', *sorted(name for name in sys.modules if '.' not in name), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout
    imported = set(done.stderr.rsplit("IMPORTED", 1)[1].split())
    assert not imported & HEAVY


def test_import_of_the_package_is_light() -> None:
    code = "import sys, pipeline; sys.exit(bool({'torch', 'numpy', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["rnu"])
    assert stop.value.code == 2
    assert "rnu" in capsys.readouterr().err


def test_bad_config_gives_one_message_and_code_2(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("dataset: {name: phantom}\nnetwork: {name: unett}\ntrian: {}\n")
    assert main(["run", str(config)]) == 2
    message = capsys.readouterr().err
    assert "2 problems" in message
    assert "did you mean 'unet'" in message
    assert "did you mean 'train'" in message
    assert "Traceback" not in message


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_work_with_its_code(tmp_path, number: int, code: int) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"machine: {{runs: {tmp_path}/runs, cache: {tmp_path}/cache}}\n"
        f"dataset: {{name: phantom, cases: 40, folder: {tmp_path}/phantom}}\n"
        "network: {name: unet}\nsample: {patch_size: [16, 16, 16]}\n"
    )
    command = [sys.executable, "-m", "pipeline", "run", str(config)]
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a background shell hands down a deaf ear
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=heed,  # noqa: PLW1509  the only way
    ) as process:
        while not (tmp_path / "runs" / "c" / ".lock").exists():
            assert process.poll() is None
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(number)
        _, message = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command goes on" in message
    assert "Traceback" not in message


def test_a_place_that_cannot_be_written_gives_one_message_and_code_2(
    tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    config = tmp_path / "c.yaml"
    config.write_text(f"dataset: {{name: phantom}}\nnetwork: {{name: unet}}\nmachine: {{runs: {tmp_path}/file/runs}}\n")
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(config), "--until", "survey"]) == 2
    message = capsys.readouterr().err
    assert "file" in message
    assert "Name another place" in message
    assert "Traceback" not in message
