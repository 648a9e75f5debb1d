"""Names for label values of a data set that does not say what they mean."""

from collections.abc import Iterable

from pipeline.datasets.base import Case
from pipeline.errors import DataError, plural
from pipeline.imaging.examine import Examination, examine_case
from pipeline.imaging.labels import Labels
from pipeline.parallel import Failure, Job, map_cases
from pipeline.progress import Progress

_MOST = 254
"""Classes that a label volume can have beside the background."""
_MEMORY = 1 << 30


def name_values(cases: Iterable[Case], workers: int, progress: Progress) -> Labels:
    """Read every label once and call its values `background` (0) and `label_1`, `label_2`, ...

    Labels that cannot be read, or hold fractions, give no names: the survey of a run tells of each.

    Args:
        cases: Those with a label are looked at.
        workers: Processes.
        progress: Shows a bar.

    Raises:
        DataError: there are more values than classes can be.
    """
    jobs = [Job(case.case_id, ({}, case.label, case.case_id), _MEMORY) for case in cases if case.label]
    found = map_cases(
        examine_case, jobs, workers=workers, memory_bytes=max(1, workers) * _MEMORY, what="read labels",
        progress=progress,
    )  # fmt: skip
    values: set[int] = set()
    for case_id, seen in found.items():
        values |= _values_of(seen)
        if len(values - {0}) > _MOST:
            raise DataError(
                f"case {case_id}: up to this label there are {plural(len(values), 'value')}; expected at most {_MOST} "
                "classes. Is it the label file? Say what the values mean with --labels."
            )
    return Labels(values={0: "background"} | {value: f"label_{value}" for value in sorted(values - {0})})


def _values_of(seen: Examination | Failure) -> set[int]:
    is_read = isinstance(seen, Examination) and seen.label is not None and not seen.label.fractions
    return set(seen.label.counts) if is_read and isinstance(seen, Examination) and seen.label else set()
