"""What becomes of arrivals: every table shows all that was passed over, late files are noted, old parts go."""

from types import SimpleNamespace

import pytest

from pipeline.batch.arrivals import Arrivals
from pipeline.batch.record import CaseRecord, read_records
from pipeline.batch.sources import Found, Passed, Source
from pipeline.batch.status import Row
from pipeline.batch.watch import Arrived, Outcome
from pipeline.errors import DataError


@pytest.fixture
def desk(tmp_path):
    """An OUT whose `find` gives what is set, and whose `predict` remembers what it got."""
    made = SimpleNamespace(found=Found(), got=[], status="done", pages=0)

    def predict(found):
        made.got.append(found)
        rows = {one.case_id: Row(one.case_id, made.status, "odd" if made.status == "failed" else "")
                for one in found.sources}  # fmt: skip
        return SimpleNamespace(rows=rows)

    def finish(_):
        made.pages += 1

    made.work, made.folder = Arrivals(tmp_path, lambda _: made.found, predict, finish), tmp_path
    return made


def test_outcomes(desk):
    assert desk.work(Arrived("1", ())) == Outcome("refused", "no series in its files")
    desk.found = Found((Source("1", {}),))
    assert desk.work(Arrived("1", ())) == Outcome("done")
    desk.status = "failed"
    assert desk.work(Arrived("1", ())) == Outcome("failed", "odd")
    assert desk.pages == 3


def test_every_table_shows_all_that_was_passed_over(desk):
    desk.found = Found((), (Passed("1", "refused", "missing slices: 2"),))
    assert desk.work(Arrived("1", ())) == Outcome("refused", "missing slices: 2")
    desk.found = Found((Source("2", {}),))
    desk.work(Arrived("2", ()))
    assert [one.case_id for one in desk.got[1].passed] == ["1"]
    desk.found = Found((Source("1", {}),))
    desk.work(Arrived("1", (), late=2))
    assert desk.got[2].passed == ()
    assert desk.got[2].sources[0].note == "re-opened: 2 files came after it had been predicted"


def keep(desk, *names):
    for name in names:
        CaseRecord(case_id=name, key="", input={}, model={}, options={}, environment={}).write(desk.folder)


def test_results_of_parts_that_are_no_more_go(desk):
    keep(desk, "1-1", "1-2", "11")
    desk.found = Found((Source("1-1", {}), Source("1-2", {})))
    desk.work(Arrived("1", ()))
    assert set(read_records(desk.folder)) == {"1-1", "1-2", "11"}
    desk.found = Found((Source("1", {}),))
    desk.work(Arrived("1", (), late=1))
    assert set(read_records(desk.folder)) == {"11"}


def test_result_of_a_series_that_is_refused_now_goes_whatever_it_is_called(desk):
    keep(desk, "0a1b", "77")
    desk.found = Found((Source("0a1b", {}), Source("77", {})))
    desk.work(Arrived("study", ()))
    desk.found = Found((Source("77", {}),), (Passed("0a1b", "refused", "missing slices: 1"),))
    desk.work(Arrived("study", (), late=1))
    assert set(read_records(desk.folder)) == {"77"}


def test_file_that_goes_away_is_not_named(desk):
    def find(_):
        raise DataError("/in/Secret^Person/1: there is no such file")

    desk.work.find = find
    with pytest.raises(DataError, match=r"^a file of it went away"):
        desk.work(Arrived("1", ()))
