"""The audit before any pixel is decoded: which series lie in an export, and what can be done with each."""

import os
import re
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.dicom.duplicates import pixel_hash, settle
from pipeline.dicom.scan import Scan, scan
from pipeline.dicom.series import Series, group, is_uid, number_parts, same_uid
from pipeline.dicom.verdict import Verdict, judge
from pipeline.errors import plural
from pipeline.progress import Progress


@dataclass(frozen=True)
class Judged:
    """A series and the verdict on it."""

    series: Series
    verdict: Verdict


@dataclass(frozen=True)
class Audit:
    """Every series of an export with its verdict."""

    judged: tuple[Judged, ...]
    """Ordered by study, series number and part."""
    counts: dict[str, int]
    """`files` looked at, of them `not DICOM`, `DICOMDIR` and `damaged`."""

    def text(self) -> str:
        """Say how much was looked at, what of it is usable, and what was passed over."""
        usable = sum(one.verdict.is_usable for one in self.judged)
        return (
            f"{len(self.judged)} series, {usable} usable, in {plural(self.counts['files'], 'file')}; "
            f"{self.counts['not DICOM']} not DICOM, {self.counts['DICOMDIR']} DICOMDIR, "
            f"{self.counts['damaged']} damaged"
        )


def audit(
    paths: Iterable[Path], *, workers: int = 1, allow_uneven: bool = False, progress: Progress | None = None
) -> Audit:
    """Look through folders and judge every series in them, from headers alone.

    Args:
        paths: Folders, or files.
        workers: Processes that read headers.
        allow_uneven: Accept uneven steps, which are then resampled to even ones.
        progress: Shows a bar.

    Returns:
        Its series; none where nothing in the folders is DICOM.

    Raises:
        DataError: a path does not exist.
    """
    scanned = scan(paths, workers=workers, progress=progress)
    found = find_series(scanned)
    return Audit(tuple(Judged(series, judge(series, allow_uneven=allow_uneven)) for series in found), scanned.counts)


def find_series(scanned: Scan) -> list[Series]:
    """Group what a scan found, settle duplicates, and number the parts of series that were split."""
    parts: dict[Hashable, list[Series]] = {}
    for series in group(scanned.planes):
        parts.setdefault(same_uid(series), []).extend(settle(series))
    found = [_with_damaged(series, scanned) for together in parts.values() for series in _numbered(together)]
    return sorted(found, key=_place_in_table)


def _numbered(parts: list[Series]) -> tuple[Series, ...]:
    if is_uid(parts[0].header.series_uid):
        return number_parts(parts)
    middle = (series.planes[len(series.planes) // 2] for series in parts)
    return number_parts(
        [replace(one, content=pixel_hash(plane).hex()) for one, plane in zip(parts, middle, strict=True)]
    )


def _with_damaged(series: Series, scanned: Scan) -> Series:
    if not scanned.damaged_folders:
        return series
    folders = {os.path.dirname(plane.header.path) for plane in series.planes}
    return replace(series, damaged_beside=sum(scanned.damaged_folders.get(folder, 0) for folder in folders))


def _place_in_table(series: Series) -> tuple[str, int, str, int]:
    number = series.header.series_number
    place = int(number) if re.fullmatch(r"-?[0-9]{1,12}", number) else 0
    return series.header.study_uid, place, series.case_id, series.part
