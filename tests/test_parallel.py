"""Work over cases: results in order, failures one by one, within the memory budget."""

import itertools
import os
import time
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.parallel import Failure, Job, failures, map_cases, refuse
from pipeline.progress import Progress


def square(value: int) -> int:
    return value * value


def fail_on_three(value: int) -> int:
    if value == 3:
        raise DataError("case 3: is bad")
    return value


def die_on_two(value: int) -> int:
    if value == 2:
        os._exit(9)
    time.sleep(0.05)
    return value


def crash(value: int) -> int:
    raise ZeroDivisionError(value)


def note_times(value: int, folder: str) -> None:
    started = time.monotonic()
    time.sleep(0.3)
    (Path(folder) / f"{value}").write_text(f"{started} {time.monotonic()}")


def _run(function, values, workers=2, memory_bytes=10, each=1, extra=()):
    jobs = [Job(f"c{value}", (value, *extra), each) for value in values]
    return map_cases(function, jobs, workers=workers, memory_bytes=memory_bytes, what="work", progress=Progress())


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers: int) -> None:
    assert _run(square, [3, 1, 2], workers) == {"c3": 9, "c1": 1, "c2": 4}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_case_is_a_failure_and_the_rest_goes_on(workers: int) -> None:
    results = _run(fail_on_three, [1, 3, 2], workers)
    assert results["c3"] == Failure("c3", "case 3: is bad")
    assert (results["c1"], results["c2"]) == (1, 2)
    assert failures(results) == {"c3": "case 3: is bad"}


@pytest.mark.slow
def test_a_dying_process_is_blamed_on_its_case_alone() -> None:
    results = _run(die_on_two, [1, 2, 3, 4])
    assert "died" in results["c2"].message
    assert [results[name] for name in ("c1", "c3", "c4")] == [1, 3, 4]


def test_a_bug_is_raised_with_the_case_named() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        _run(crash, [1, 2])
    assert any("case c" in note for note in raised.value.__notes__)


@pytest.mark.slow
def test_jobs_too_large_for_the_budget_run_one_after_another(tmp_path: Path) -> None:
    _run(note_times, [1, 2, 3], workers=3, memory_bytes=10, each=6, extra=(str(tmp_path),))
    spans = sorted(tuple(map(float, (tmp_path / str(n)).read_text().split())) for n in (1, 2, 3))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


def test_the_refusal_names_every_case() -> None:
    text = str(refuse({"a": "case a: x", "b": "case b: y"}, "Mend them."))
    assert "2 cases" in text
    assert "case a: x" in text
    assert "case b: y" in text
