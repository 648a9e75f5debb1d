"""What the doctor says of label values: unknown ones, fractions, empty labels, classes beyond those annotated."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.datasets.base import Case
from pipeline.doctor.findings import Finding
from pipeline.errors import plural
from pipeline.imaging.examine import Examination, FileFacts
from pipeline.imaging.labels import Labels

_SHOWN = 8


def check_label(case: Case, exam: Examination, labels: Labels) -> Iterator[Finding]:
    """Check the values of a case's label against what they may be.

    Args:
        case: Says which classes were annotated.
        exam: Its files.
        labels: Meaning of the values; empty where nobody says it.
    """
    facts = exam.label
    if facts is None or facts.refused:
        return
    if facts.fractions:
        yield Finding(
            "error",
            case.case_id,
            "label values not whole",
            f"label: found values that are not whole numbers: {listed(facts.fractions)}.",
            "Check that it is the label file; a label that was resampled must be made again with nearest neighbour.",
        )
        return
    if facts.dtype.startswith("float"):
        yield Finding(
            "info",
            case.case_id,
            "label stored as float",
            f"label: whole numbers stored as {facts.dtype}.",
            "Nothing; --fix stores them as whole numbers.",
        )
    yield from _check_values(case, facts, labels)


def unknown_values(facts: FileFacts, labels: Labels) -> dict[int, int]:
    """Return value -> voxels of the values that the labels do not name; empty without labels."""
    known = labels.index_of_value() if labels else dict(facts.counts)
    return {value: count for value, count in facts.counts.items() if value not in known}


def listed(counts: Mapping[Any, int]) -> str:
    """List the most frequent values: `7 (12 voxels), 9 (1 voxel) and 3 more`."""
    most = sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN]
    text = ", ".join(f"{value:g} ({plural(count, 'voxel')})" for value, count in most)
    return text + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def classes_found(facts: FileFacts, labels: Labels) -> dict[str, int]:
    """Return class -> voxels of the named classes that occur, background and `ignore` left out."""
    found: dict[str, int] = {}
    for value, count in facts.counts.items():
        name = labels.values.get(value, "background")
        if name not in ("background", "ignore"):
            found[name] = found.get(name, 0) + count
    return found


def _check_values(case: Case, facts: FileFacts, labels: Labels) -> Iterator[Finding]:
    unknown = unknown_values(facts, labels)
    if unknown:
        known = sorted(labels.index_of_value())
        yield Finding(
            "error",
            case.case_id,
            "unknown label values",
            f"label: found {plural(len(unknown), 'unknown value')}: {listed(unknown)}; the labels name "
            f"{', '.join(map(str, known[:20]))}{' ...' if len(known) > 20 else ''}.",
            "Name them in the labels of the config or manifest (or as 'ignore'), or correct the file.",
        )
    present = classes_found(facts, labels) if labels else {value: n for value, n in facts.counts.items() if value}
    if not present and not unknown:
        yield Finding(
            "warning",
            case.case_id,
            "empty label",
            "label: it has no voxel of any class.",
            "If there is nothing to be seen in this case, all is well; else restore the label, or leave the case out.",
        )
    beyond = [name for name in present if case.annotated is not None and name not in case.annotated]
    if beyond and labels:
        yield Finding(
            "warning",
            case.case_id,
            "not annotated class",
            f"label: it has voxels of {', '.join(map(str, beyond))}, which 'annotated' does not name for this case.",
            "Add the class to 'annotated', or remove it from the label.",
        )
