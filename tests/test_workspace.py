"""Files appear whole or not at all; a folder has one owner."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.workspace import atomic_folder, atomic_path, only_owner, remove_leftovers, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="disk"), atomic_path(path) as temporary:
        _fail_half_way(temporary)
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert os.listdir(tmp_path) == ["x.json"]


def _fail_half_way(path: Path) -> None:
    path.write_text("half")
    raise OSError("disk")


def test_the_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.touch()


def test_a_folder_that_appeared_meanwhile_stays(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "entry") as temporary:
        (temporary / "new").touch()
        (tmp_path / "entry").mkdir()
        (tmp_path / "entry" / "old").touch()
    assert os.listdir(tmp_path / "entry") == ["old"]
    assert os.listdir(tmp_path) == ["entry"]


def test_leftovers_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".tmp-1-x").mkdir()
    (tmp_path / ".tmp-2-y").touch()
    (tmp_path / "keep").touch()
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["keep"]


def test_a_second_owner_is_refused_and_a_killed_one_frees_the_folder(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from pipeline.workspace import only_owner
with only_owner(Path({str(tmp_path)!r})):
    print("mine", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(ConfigError, match=f"pid {other.pid}"), only_owner(tmp_path):
            pass
        other.send_signal(signal.SIGKILL)
        other.wait()
    started = time.monotonic()
    with only_owner(tmp_path):
        assert time.monotonic() - started < 5
