"""Where machine code is kept: beside the source, in a folder that was chosen, or nowhere, and never another user's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

from pipeline.imaging.compiled import keep_kernels_in

ROOT = Path(__file__).parents[2]

KERNEL = """
import numpy as np
from pipeline.imaging.compiled import compiled

@compiled()
def double(values):
    for i in range(values.size):
        values[i] *= 2
"""

USE = """
import json, sys
from pathlib import Path
sys.path.insert(0, {source!r})
import numpy as np, tiny_kernel
from pipeline.imaging.compiled import keep_kernels_in
if {chosen!r}:
    keep_kernels_in(Path({chosen!r}))
values = np.arange(4.0)
tiny_kernel.double(values)
stats = tiny_kernel.double.stats
print(json.dumps([values.tolist(), sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]))
"""


def use(source: Path, chosen: Path | None = None, **environment: str) -> tuple[int, int]:
    """Call a kernel in a process of its own; return how often machine code was loaded and how often compiled."""
    source.mkdir(exist_ok=True)
    (source / "tiny_kernel.py").write_text(KERNEL)
    code = USE.format(source=str(source), chosen=str(chosen or ""))
    told: Any = subprocess.run(
        [sys.executable, "-B", "-c", code], check=True, capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    ).stdout  # fmt: skip
    values, loaded, made = json.loads(told)
    assert values == [0, 2, 4, 6]
    return loaded, made


def machine_code(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.nbc"))


@pytest.mark.slow
def test_compiled_once_into_the_chosen_folder_also_after_the_import(tmp_path: Path) -> None:
    assert use(tmp_path / "source", tmp_path / "cache" / "kernels") == (0, 1)
    assert len(machine_code(tmp_path / "cache" / "kernels")) == 1
    assert not machine_code(tmp_path / "source")
    (place,) = (tmp_path / "cache" / "kernels").iterdir()
    assert place.stat().st_mode & 0o077 == 0, "closed to other users"
    assert use(tmp_path / "source", tmp_path / "cache" / "kernels") == (1, 0)


@pytest.mark.slow
def test_beside_the_source_where_nothing_is_chosen(tmp_path: Path) -> None:
    assert use(tmp_path / "source") == (0, 1)
    assert len(machine_code(tmp_path / "source")) == 1
    assert use(tmp_path / "source") == (1, 0)


def test_where_no_folder_can_be_written_each_process_compiles(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for name in ("source/__pycache__", "cache", "home"):
        (tmp_path / name).touch()  # a file where a folder is wanted: that stops root too
    nowhere = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home")}
    assert use(tmp_path / "source", tmp_path / "cache" / "kernels", **nowhere) in {(0, 0), (0, 1)}
    assert not machine_code(tmp_path)


WORKERS = """
import sys
from pathlib import Path
sys.path.insert(0, {source!r})
if __name__ == "__main__":
    import tiny_kernel
    from pipeline.imaging.compiled import keep_kernels_in
    from pipeline.parallel import Job, map_cases
    from pipeline.progress import Progress
    keep_kernels_in(Path({chosen!r}))
    jobs = [Job(name, (4,)) for name in "ab"]
    found = map_cases(tiny_kernel.doubled, jobs, workers=2, memory_bytes=1, what="test", progress=Progress())
    assert found == dict(a=[0, 2, 4, 6], b=[0, 2, 4, 6]), found
"""


@pytest.mark.slow
def test_worker_processes_use_the_chosen_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    calls = "\ndef doubled(n):\n    values = np.arange(n)\n    double(values)\n    return values.tolist()\n"
    (source / "tiny_kernel.py").write_text(KERNEL + calls)
    (source / "main.py").write_text(WORKERS.format(source=str(source), chosen=str(tmp_path / "kernels")))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-B", str(source / "main.py")], check=True, cwd=ROOT, env=environment)
    assert len(machine_code(tmp_path / "kernels")) == 1, "the parent called no kernel"
    assert not machine_code(source)


def test_the_folder_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = numba.config.CACHE_DIR
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    keep_kernels_in(tmp_path / "kernels")
    assert before == numba.config.CACHE_DIR
