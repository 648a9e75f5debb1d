"""What the doctor says of the list of cases: patients, splits, classes, label values, columns that tell the class."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.folds import Folds, find_straddling
from pipeline.doctor.findings import Finding, counted, note, some
from pipeline.doctor.labels import classes_found
from pipeline.errors import listed, plural
from pipeline.imaging.examine import Examination

_TELLING_AUROC = 0.8


def look_at_list(manifest: Manifest, exams: Sequence[Examination]) -> Iterator[Finding]:
    """Describe who the cases are of, and what their labels and columns hold."""
    yield from _patients(manifest.cases)
    yield from _splits(manifest.cases)
    yield from _straddling(manifest.cases)
    yield from _classes_of_volumes(manifest)
    yield from _columns(manifest)
    yield from _label_values(manifest, exams)
    yield from _missing_labels(manifest.cases)


def _patients(cases: Sequence[Case]) -> Iterator[Finding]:
    if not any(case.group for case in cases):
        yield note(
            "groups",
            "no case names a group: each counts as a patient of its own.",
            "Where a patient has several cases, fill in the column 'group', so that no fold splits them.",
        )
        return
    without = [case.case_id for case in cases if not case.group]
    if without:
        yield note(
            "some groups",
            f"{plural(len(without), 'case')} of {len(cases)} without a group count as patients of their own: "
            f"{some(without)}.",
            "Where they are of a patient who has other cases, fill in the column 'group'.",
        )
    counts = Counter(case.patient for case in cases)
    if len(counts) < len(cases):
        several = sum(count > 1 for count in counts.values())
        yield note(
            "groups",
            f"{len(cases)} cases of {plural(len(counts), 'patient')} (groups); {several} "
            f"{'has' if several == 1 else 'have'} several, "
            f"up to {max(counts.values())}.",
            "Nothing: folds keep a group together (folds: {group: group}).",
        )


def _splits(cases: Sequence[Case]) -> Iterator[Finding]:
    counts = Counter(case.split or "train" for case in cases)
    if counts["test"]:
        yield note("split", f"{counted(counts.most_common(), 'cases')}.")
    sites = Counter(case.site for case in cases if case.site)
    if len(sites) > 1:
        yield note("sites", f"{len(sites)} sites: {counted(sites.most_common(8), 'cases')}.")


def _straddling(cases: Sequence[Case]) -> Iterator[Finding]:
    """Tell groups that the columns `split` and `fold` tear apart."""
    splits = {case.case_id: case.split or "train" for case in cases}
    folds = {case.case_id: f"fold {case.fold}" for case in cases if case.fold is not None}
    for column, part_of in (("split", splits), ("fold", folds)):
        for group, parts in find_straddling(cases, part_of, Folds()).items():
            ids = [case.case_id for case in cases if case.patient == group]
            yield Finding("error", "", "group torn apart", f"group {group} has cases in {listed(parts)}: "
                          f"{some(ids)}. The network would be judged on patients that it was trained on.",
                          f"Mend the column '{column}'.")  # fmt: skip


def _classes_of_volumes(manifest: Manifest) -> Iterator[Finding]:
    counts = Counter(name for case in manifest.cases for name in case.classes)
    if counts:
        yield note("classes", f"classes of whole volumes: {counted(counts.most_common(20), 'cases')}.")


def _columns(manifest: Manifest) -> Iterator[Finding]:
    """Tell columns of the table that separate two classes by themselves: a bar for any network."""
    if len(manifest.class_names) != 2:
        return
    is_second = {case.case_id: case.classes[0] == manifest.class_names[1] for case in manifest.cases if case.classes}
    for column, cells in manifest.metadata.get("columns", {}).items():
        values = {case: number for case, cell in cells.items() if (number := _number(cell)) is not None}
        ids = [case for case in values if case in is_second]
        found = _auroc(np.array([values[case] for case in ids]), np.array([is_second[case] for case in ids], bool))
        if found is not None and max(found, 1 - found) >= _TELLING_AUROC:
            yield note(
                "telling column",
                f"column {column!r} alone tells {manifest.class_names[1]} from "
                f"{manifest.class_names[0]} with an AUROC of {max(found, 1 - found):.2f}.",
                f"Compare the network with it (evaluate: {{compare_column: {column}}}).",
            )


def _label_values(manifest: Manifest, exams: Sequence[Examination]) -> Iterator[Finding]:
    labels = manifest.labels
    seen = [exam for exam in exams if exam.label and exam.label.counts and not exam.label.fractions]
    values = sorted({value for exam in seen if exam.label for value in exam.label.counts} - {0})
    if not seen or not values:
        return
    with_gaps = values != list(range(1, len(values) + 1))
    shown = some([str(value) for value in values], 12)
    yield note(
        "label values",
        f"{plural(len(values), 'label value')} beside 0: {shown}"
        f"{f'; not consecutive, up to {values[-1]}' if with_gaps else ''}.",
        "" if labels else "Say what they mean: 'labels: {0: background, 1: ...}' beside the manifest.",
    )
    if not labels:
        return
    if "background" not in labels.values.values() and labels.values.get(0, "ignore") != "ignore":
        yield Finding(
            "warning",
            "",
            "no background",
            f"value 0 is called {labels.values[0]!r}: it is trained and scored as a class like the others.",
            "Where 0 is what was not labelled, call it 'background'.",
        )
    having = Counter(name for exam in seen if exam.label for name in classes_found(exam.label, labels))
    names = [name for name in labels.classes[1:] if name != "ignore"]
    absent = [name for name in names if not having[name]]
    if absent:
        yield Finding(
            "warning",
            "",
            "class without a case",
            f"{some(absent, 10)}: named in the labels, but no case has a voxel of it.",
            "Check the value in the labels, or leave the class out.",
        )
    rare = [f"{name} in {having[name]}" for name in names if 0 < having[name] * 10 <= len(seen)]
    if rare:
        yield note(
            "rare class",
            f"classes that few of {len(seen)} cases have: {some(rare, 10)}.",
            "Stratify the folds by them (folds: {stratify: [labels]}).",
        )


def _missing_labels(cases: Sequence[Case]) -> Iterator[Finding]:
    without = [case.case_id for case in cases if case.label is None and case.split != "test"]
    if without and len(without) < sum(case.split != "test" for case in cases):
        yield Finding(
            "warning",
            "",
            "case without label",
            f"{plural(len(without), 'training case')} without a label, where others have one: {some(without)}.",
            "Name the label, or make it a test case.",
        )


def _number(text: object) -> float | None:
    try:
        value = float(str(text))
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _auroc(values: NDArray[Any], is_second: NDArray[np.bool_]) -> float | None:
    """Return the area under the ROC curve by ranks (Mann and Whitney), ties counting half; None for one class."""
    from scipy.stats import rankdata

    positive = int(is_second.sum())
    negative = len(values) - positive
    if not positive or not negative:
        return None
    ranks = float(rankdata(values)[is_second].sum())
    return (ranks - positive * (positive + 1) / 2) / (positive * negative)
