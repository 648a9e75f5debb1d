"""What is done with a series that arrived in a watched folder: audited, predicted, and its rows kept."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.batch.record import forget, read_record, record_path
from pipeline.batch.sources import Found, Passed, Source
from pipeline.batch.status import FAILED, StatusTable
from pipeline.batch.watch import STATE, Arrived, Outcome
from pipeline.errors import DataError, plural
from pipeline.workspace import write_json

_PASSED, _CASES = "passed", "cases"


class Arrivals:
    """Predicts what arrived; the `work` of a watcher.

    Args:
        folder: OUT.
        find: Audits files, as `find_exports` does with everything else given.
        predict: Predicts what was found and returns the table; `predict_batch` with its batch.
        finish: Called after each with the table, e.g. to write the page.
    """

    def __init__(
        self,
        folder: Path,
        find: Callable[[Sequence[Path]], Found],
        predict: Callable[[Found], StatusTable],
        finish: Callable[[StatusTable], None] | None = None,
    ) -> None:
        self.folder, self.find, self.predict, self.finish = folder, find, predict, finish

    def __call__(self, arrived: Arrived) -> Outcome:
        """Predict the usable series among the files; say what became of them."""
        try:
            found = self.find(arrived.files)
        except DataError:  # its text would name the file
            raise DataError("a file of it went away while it was looked at") from None
        if arrived.late:
            late = f"re-opened: {plural(arrived.late, 'file')} came after it had been predicted"
            found = Found(tuple(_noted(source, late) for source in found.sources), found.passed)
        self._forget_others(arrived.name, [source.case_id for source in found.sources])
        write_json(self._path(arrived.name), [asdict(one) for one in found.passed])
        table = self.predict(Found(found.sources, self._all_passed()))
        if self.finish is not None:
            self.finish(table)
        return _outcome(found, table)

    def _all_passed(self) -> tuple[Passed, ...]:
        """Return what was passed over since the first start: every table shows all of it."""
        found = sorted((self.folder / STATE / _PASSED).glob("[!.]*.json"))
        return tuple(Passed(**one) for path in found for one in json.loads(path.read_text()))

    def _forget_others(self, name: str, case_ids: Sequence[str]) -> None:
        """Remove results of what arrived that it does not have any more: other parts, or series refused now.

        Which cases it has is kept, since neither a keyed hash nor a study's name leads from it to them.
        """
        path = self.folder / STATE / _CASES / f"{name}.json"
        before = json.loads(path.read_text()) if path.exists() else []
        for case_id in set(before) - set(case_ids):
            if (record := read_record(record_path(self.folder, case_id))) is not None:
                forget(record, self.folder)
        write_json(path, list(case_ids))

    def _path(self, name: str) -> Path:
        return self.folder / STATE / _PASSED / f"{name}.json"


def _noted(source: Source, note: str) -> Source:
    return replace(source, note="; ".join(part for part in (source.note, note) if part))


def _outcome(found: Found, table: StatusTable) -> Outcome:
    rows = [table.rows[source.case_id] for source in found.sources]
    failed = [row.reason for row in rows if row.status == FAILED]
    if failed:
        return Outcome("failed", "; ".join(failed))
    if not rows:
        return Outcome("refused", "; ".join(one.reason for one in found.passed) or "no series in its files")
    return Outcome("done")
