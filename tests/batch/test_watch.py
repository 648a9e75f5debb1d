"""Watching: one result for each complete series, through late slices, failures, a full disk, and kills."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pipeline
from pipeline.batch import watch as watch_module
from pipeline.batch.watch import QUARANTINE, Arrived, Outcome, Watcher, WatchOptions, watch
from pipeline.dicom.audit import audit
from pipeline.errors import ConfigError, DataError
from pipeline.progress import Progress


class Clock:
    """A clock that only moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Said(Progress):
    """Keeps what was said, but for results."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        if not line.endswith(": done"):
            self.lines.append(line)


class Desk:
    """An incoming folder, a clock, and a record of what was worked on."""

    def __init__(self, tmp_path: Path, **options) -> None:
        self.incoming, self.out, self.clock, self.said = tmp_path / "in", tmp_path / "out", Clock(), Said()
        self.incoming.mkdir(exist_ok=True)
        self.options = WatchOptions(stable_seconds=60, backoff_seconds=10, **options)
        self.worked: list[Arrived] = []
        self.free, self.outcome = 1 << 40, Outcome("done")
        self.restart()

    def restart(self) -> None:
        self.watcher = Watcher(
            self.incoming, self.out, self.work, self.options, progress=self.said, clock=self.clock,
            free_bytes=lambda _: self.free,
        )  # fmt: skip

    def work(self, arrived: Arrived) -> Outcome:
        self.worked.append(arrived)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def look(self, after: float = 0.0) -> int:
        self.clock.now += after
        return self.watcher.look()

    def status(self) -> str:
        (name,) = self.watcher.incoming.names()
        return self.watcher.entry(name).status


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def put(desk: Desk, synthetic, seed: int = 1, slices: slice = slice(None)) -> list[Path]:
    made = synthetic.make(seed, slices=5)
    made.datasets = made.datasets[slices]
    return synthetic.write(made, desk.incoming / f"{seed}-{slices.start or 0}")


def test_series_is_worked_on_once_when_it_is_quiet(desk, synthetic):
    put(desk, synthetic)
    assert [desk.look(), desk.look(59), desk.look(1), desk.look(1000)] == [0, 0, 1, 0]
    assert (len(desk.worked), len(desk.worked[0].files), desk.status()) == (1, 5, "done")


def test_slices_on_their_way_keep_it_waiting(desk, synthetic):
    put(desk, synthetic, slices=slice(0, 3))
    desk.look()
    desk.clock.now += 50
    put(desk, synthetic, slices=slice(3, 5))
    assert [desk.look(), desk.look(50), desk.look(10)] == [0, 0, 1]
    assert len(desk.worked[0].files) == 5


def test_file_that_still_grows_keeps_it_waiting(desk, synthetic):
    (path, *_) = put(desk, synthetic)
    desk.look()
    whole = path.read_bytes()
    path.write_bytes(whole[:900])
    assert desk.look(60) == 0
    path.write_bytes(whole)
    os.utime(path, ns=(1, 1))
    assert [desk.look(30), desk.look(60)] == [0, 1]


def test_late_slices_reopen_it_once_and_say_so(desk, synthetic):
    put(desk, synthetic, slices=slice(0, 3))
    desk.look(), desk.look(60)
    put(desk, synthetic, slices=slice(3, 4))
    assert [desk.look(), desk.look(60)] == [0, 1]
    assert (desk.worked[1].late, len(desk.worked[1].files)) == (1, 4)
    assert "re-opened, 1 file came late" in desk.said.lines[0]
    put(desk, synthetic, slices=slice(4, 5))
    assert [desk.look(), desk.look(60), desk.look(60)] == [0, 0, 0]
    assert "left as it is" in desk.said.lines[1]
    assert len(desk.said.lines) == 2


def test_files_sent_again_are_no_late_slices(desk, synthetic):
    put(desk, synthetic)
    desk.look(), desk.look(60)
    made = synthetic.make(1, slices=5)
    synthetic.write(made, desk.incoming / "again")
    assert [desk.look(), desk.look(60)] == [0, 0]


def test_tidied_folder_is_fine(desk, synthetic):
    paths = put(desk, synthetic)
    desk.look(), desk.look(60)
    for path in paths:
        path.unlink()
    assert desk.look(60) == 0


def test_restart_does_nothing_twice(desk, synthetic):
    put(desk, synthetic)
    desk.look(), desk.look(60)
    desk.restart()
    assert [desk.look(), desk.look(60), desk.look(60)] == [0, 0, 0]


def test_lock_and_marker_hold_it_back(tmp_path, synthetic):
    desk = Desk(tmp_path, marker=".complete")
    (path, *_) = put(desk, synthetic)
    (path.parent / ".lock").touch()
    desk.look()
    assert desk.look(60) == 0
    (path.parent / ".lock").unlink()
    assert desk.look(1) == 0
    (desk.incoming / ".complete").touch()
    assert desk.look(1) == 1


def test_expected_instances_are_waited_for(tmp_path, synthetic):
    desk = Desk(tmp_path, expected="header", patience_seconds=600)
    made = synthetic.make(1, slices=5)
    for one in made.datasets:
        one.NumberOfSeriesRelatedInstances = 5
    late = made.datasets.pop()
    synthetic.write(made, desk.incoming / "a")
    desk.look()
    assert desk.look(100) == 0
    made.datasets = [late]
    synthetic.write(made, desk.incoming / "b")
    assert [desk.look(1), desk.look(60)] == [0, 1]


def test_patience_ends(tmp_path, synthetic):
    desk = Desk(tmp_path, marker=".complete", patience_seconds=600)
    put(desk, synthetic)
    assert [desk.look(), desk.look(599), desk.look(1)] == [0, 0, 1]


def test_whole_studies_can_be_waited_for(tmp_path, synthetic):
    desk = Desk(tmp_path, unit="study")
    for seed in (1, 2):
        made = synthetic.make(seed, slices=5)
        for one in made.datasets:
            one.StudyInstanceUID = "1.2.3"
        synthetic.write(made, desk.incoming / str(seed))
    assert [desk.look(), desk.look(60)] == [0, 1]
    assert (desk.worked[0].name, len(desk.worked[0].files)) == ("1.2.3", 10)


def test_failure_is_tried_again_with_longer_waits_then_quarantined(desk, synthetic):
    put(desk, synthetic)
    desk.outcome = DataError("case x: odd")
    desk.look(), desk.look(60)
    assert desk.status() == "retry"
    assert [desk.look(9), desk.look(1), desk.look(39), desk.look(1), desk.look(159)] == [0, 1, 0, 1, 0]
    assert desk.look(1) == 1
    assert desk.status() == "quarantined"
    (name,) = desk.watcher.incoming.names()
    assert (desk.out / QUARANTINE).read_text() == f"case,attempts,reason\n{name},4,case x: odd\n"
    assert desk.look(1e6) == 0


def test_failure_that_passes_leaves_no_trace(desk, synthetic):
    put(desk, synthetic)
    desk.outcome = OSError(errno.EIO, "Input/output error", "/secret/name")
    desk.look(), desk.look(60)
    assert "secret" not in "".join(desk.said.lines)
    desk.outcome = Outcome("done")
    assert desk.look(10) == 1
    assert desk.status() == "done"
    assert not (desk.out / QUARANTINE).exists()


def test_bug_fails_one_series_only(desk, synthetic):
    put(desk, synthetic)
    desk.outcome = ZeroDivisionError("Secret^Person")
    desk.look(), desk.look(60)
    assert desk.status() == "retry"
    assert "Secret" not in "".join(desk.said.lines)


def test_full_disk_stops_intake_and_goes_on_later(desk, synthetic):
    put(desk, synthetic)
    desk.look()
    desk.free = 1 << 20
    assert [desk.look(60), desk.look(60)] == [0, 0]
    assert len(desk.said.lines) == 1
    desk.free = 1 << 40
    assert desk.look(5) == 1
    assert "going on" in desk.said.lines[1]


def test_disk_that_fills_up_meanwhile_is_no_failure(desk, synthetic):
    put(desk, synthetic)
    desk.outcome = OSError(errno.ENOSPC, "No space left on device")
    desk.look(), desk.look(60)
    assert [desk.look(5), desk.look(5), desk.look(10)] == [0, 0, 0]
    assert len(desk.worked) == 3  # with a pause between, not at every look
    desk.outcome = Outcome("done")
    assert desk.look(10) == 1
    (name,) = desk.watcher.incoming.names()
    entry = desk.watcher.entry(name)
    assert (entry.attempts, entry.deaths) == (0, 0)


def test_state_that_cannot_be_written_ends_no_night(desk, synthetic, monkeypatch):
    put(desk, synthetic)
    desk.look()
    with monkeypatch.context() as broken:
        broken.setattr(watch_module, "write_json", fail)
        assert desk.look(60) == 0
    assert desk.said.lines == [
        "what is done cannot be written down (Stale file handle): nothing new is begun for a while"
    ]
    assert [desk.look(5), desk.look(5)] == [0, 1]


def fail(*_):
    raise OSError(errno.ESTALE, "Stale file handle", "/secret/name")


def test_damaged_file_beside_a_series_is_not_passed_over(desk, synthetic):
    (first, *_) = put(desk, synthetic)
    whole = first.read_bytes()
    first.write_bytes(whole[:140])
    desk.look(), desk.look(60)
    assert len(desk.worked[0].files) == 5
    assert audit(desk.worked[0].files).judged[0].series.damaged_beside == 1
    first.write_bytes(whole)
    assert [desk.look(), desk.look(60)] == [0, 1]
    assert desk.worked[1].late == 1


def test_lock_that_stays_is_told_once(tmp_path, synthetic):
    desk = Desk(tmp_path, patience_seconds=600)
    (path, *_) = put(desk, synthetic)
    (path.parent / ".lock").touch()
    assert [desk.look(), desk.look(599), desk.look(1), desk.look(100)] == [0, 0, 0, 0]
    (line,) = desk.said.lines
    assert line.endswith("unchanged for 600 seconds, but held back: .lock to go")


def test_restart_reads_no_file_again(desk, synthetic, monkeypatch):
    put(desk, synthetic)
    desk.look(), desk.look(60)
    desk.restart()
    monkeypatch.setattr(watch_module, "_content", lambda _: pytest.fail("the files were read again"))
    assert [desk.look(), desk.look(60)] == [0, 0]


def test_folder_must_be_there(tmp_path):
    with pytest.raises(ConfigError, match="there is no such folder"):
        watch(tmp_path / "none", tmp_path / "out", lambda _: Outcome("done"), WatchOptions(), rounds=1)


def test_series_that_kills_the_process_is_quarantined(tmp_path, synthetic):
    desk = Desk(tmp_path, deaths=3)
    put(desk, synthetic)
    desk.outcome = KeyboardInterrupt()
    for _ in range(3):
        desk.look()
        with pytest.raises(KeyboardInterrupt):
            desk.look(60)
        desk.restart()
    desk.look()
    assert desk.look(60) == 0
    assert desk.status() == "quarantined"
    assert "died 3 times" in (desk.out / QUARANTINE).read_text()


def test_names_are_hashed_with_a_key(tmp_path, synthetic):
    desk = Desk(tmp_path)
    desk.watcher = Watcher(desk.incoming, desk.out, desk.work, desk.options, key=b"k" * 16, clock=desk.clock,
                           free_bytes=lambda _: 1 << 40)  # fmt: skip
    put(desk, synthetic)
    desk.look(), desk.look(60)
    assert len(desk.worked[0].name) == 24
    assert [path.stem for path in (desk.out / "watch").glob("*.json")] == [desk.worked[0].name]


def test_out_has_one_owner(tmp_path, synthetic):
    desk = Desk(tmp_path)

    def second(_):
        watch(desk.incoming, desk.out, desk.work, desk.options, rounds=1)

    with pytest.raises(ConfigError, match="owns this folder"):
        watch(desk.incoming, desk.out, desk.work, desk.options, rounds=2, sleep=second)


WATCHING = """
import sys, time
from pathlib import Path
from pipeline.batch.watch import Outcome, WatchOptions, watch
from pipeline.workspace import atomic_path

folder, out = Path(sys.argv[1]), Path(sys.argv[2])


def work(arrived):
    result = out / "masks" / f"{arrived.name}.txt"
    with atomic_path(result) as temporary:
        temporary.write_text(str(len(arrived.files)))
        time.sleep(0.05)
    with (out / "log.txt").open("a") as log:
        log.write(f"{arrived.name}\\n")
    return Outcome("done")


watch(folder, out, work, WatchOptions(stable_seconds=0.2, poll_seconds=0.05, min_free_gb=0))
"""


@pytest.mark.slow
def test_survives_being_killed(tmp_path, synthetic):
    kill_and_check(tmp_path, synthetic, kills=3, series=8)


def kill_and_check(folder: Path, synthetic, *, kills: int, series: int) -> None:
    """Kill a watcher again and again while series arrive; then each has exactly one result and nothing is left."""
    incoming, out = folder / "in", folder / "out"
    incoming.mkdir(parents=True)
    script = folder / "watching.py"
    script.write_text(WATCHING)
    command = [sys.executable, script, incoming, out]
    environment = os.environ | {"PYTHONPATH": str(Path(pipeline.__file__).parents[1])}
    for number in range(kills):
        process = subprocess.Popen(command, env=environment)
        for seed in range(number * series // kills, (number + 1) * series // kills):
            synthetic.write(synthetic.make(100 + seed, slices=3), incoming / str(seed))
        wait_for(lambda: finished(out) > number * series // (2 * kills), 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = subprocess.Popen(command, env=environment)
    wait_for(lambda: done(out) == series, 120)
    process.kill()
    process.wait()
    results = sorted(path.name for path in (out / "masks").iterdir() if not path.name.startswith(".tmp"))
    assert len(results) == series
    assert all((out / "masks" / name).read_text() == "3" for name in results)
    watch(incoming, out, lambda _: pytest.fail("nothing is left to do"), WatchOptions(min_free_gb=0), rounds=1)


def finished(out: Path) -> int:
    return len(list((out / "masks").glob("[!.]*"))) if (out / "masks").exists() else 0


def done(out: Path) -> int:
    return sum('"done"' in path.read_text() for path in (out / "watch").glob("[!.]*.json")) if out.exists() else 0


def wait_for(holds, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
