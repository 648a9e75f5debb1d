"""An unattended batch put together from its parts: what is found, how it is read, what follows a mask, the page."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.batch.arrivals import Arrivals
from pipeline.batch.child import DEFAULT_MEMORY_BYTES, DEFAULT_SECONDS, Child
from pipeline.batch.exports import Exports, find_exports, read_key
from pipeline.batch.page import Listed, list_series, write_page
from pipeline.batch.previews import write_preview
from pipeline.batch.quality import check_case
from pipeline.batch.segments import name_study, write_dicom_seg
from pipeline.batch.sources import Added, After, Finished, Found
from pipeline.batch.status import StatusTable
from pipeline.batch.watch import WatchOptions, watch
from pipeline.dicom.audit import Judged
from pipeline.dicom.codes import SegmentCode, parse_codes
from pipeline.dicom.rules import parse_rules
from pipeline.dicom.seg import Algorithm
from pipeline.errors import ConfigError
from pipeline.machine import core_count
from pipeline.plugin import did_you_mean
from pipeline.progress import Progress
from pipeline.provenance import digest


@dataclass(frozen=True)
class Unattended:
    """What a user asks for beyond masks, as the command line has it."""

    channels: tuple[str, ...] = ("image",)
    """Of the model."""
    model: str = ""
    """The model as the rules call it."""
    rules: Path | None = None
    key: Path | None = None
    codes: Path | None = None
    """YAML of codes by class name, where SNOMED's are not to be looked up."""
    dicom_seg: bool = False
    previews: bool = True
    map_back: bool = False
    allow_uneven: bool = False
    memory_bytes: int = DEFAULT_MEMORY_BYTES
    """What reading one case may allocate; a case that the machine has room for must not be refused."""
    seconds: float = DEFAULT_SECONDS
    """How long reading one case may take."""

    def find(self, paths: Sequence[Path], progress: Progress | None = None) -> Exports:
        """Audit folders and files, and choose.

        Raises:
            ConfigError: rules or key cannot be used.
            DataError: a path does not exist.
        """
        from pipeline.config import read_yaml

        rules = parse_rules(read_yaml(self.rules), str(self.rules)) if self.rules else None
        return find_exports(
            paths,
            channels=self.channels,
            rules=rules,
            model=self.model,
            key=self.key_bytes(),
            workers=core_count(),
            allow_uneven=self.allow_uneven,
            progress=progress,
        )

    def key_bytes(self) -> bytes | None:
        """Return the key that case ids are hashed with; None where UIDs are shown."""
        return read_key(self.key) if self.key else None

    def child(self) -> Child:
        """Return the process in which files are decoded; close it at the end."""
        return Child(memory_bytes=self.memory_bytes, seconds=self.seconds)

    def hooks(self, algorithm: Algorithm, classes: Sequence[str]) -> tuple[After, ...]:
        """Return what follows each mask.

        Args:
            algorithm: Named in DICOM segmentations: the model and the hash of its weights.
            classes: Of the model.

        Raises:
            ConfigError: codes cannot be used, or are for a class that the model does not have.
        """
        from pipeline.config import read_yaml

        chosen: list[After] = [check_case]
        if self.previews:
            chosen.append(write_preview)
        if self.dicom_seg:
            codes = parse_codes(read_yaml(self.codes), str(self.codes)) if self.codes else None
            if unknown := sorted(set(codes or ()) - set(classes)):
                raise ConfigError(
                    f"--codes {self.codes}: the model has no class {unknown[0]!r}{did_you_mean(unknown[0], classes)}; "
                    f"its classes are {', '.join(classes)}."
                )
            chosen.append(_Segments(algorithm, codes))
        if self.map_back:
            chosen.append(name_study)
        return tuple(chosen)


class _Segments:
    """Writes DICOM segmentations; its name tells the codes, so that other ones make every segmentation anew."""

    def __init__(self, algorithm: Algorithm, codes: Mapping[str, SegmentCode] | None) -> None:
        told = {name: code.model_dump() for name, code in (codes or {}).items()}
        self.algorithm, self.codes = algorithm, codes
        self.name = write_dicom_seg.__name__ + (f" {digest(told)[:12]}" if told else "")

    def __call__(self, finished: Finished) -> Added | None:
        return write_dicom_seg(finished, algorithm=self.algorithm, codes=self.codes)


def finish_page(folder: Path, table: StatusTable, judged: Mapping[str, Judged], child: Child | None = None) -> Path:
    """Write the page on a batch as its table stands now."""
    rows = [row.cells() for row in table.rows.values()]
    return _write(folder, rows, list_series(judged), child)


def watch_exports(
    incoming: Path,
    folder: Path,
    asked: Unattended,
    predict: Callable[[Found], StatusTable],
    options: WatchOptions,
    progress: Progress | None = None,
    *,
    rounds: int | None = None,
) -> None:
    """Watch a folder and predict each series that is complete, until the process is ended.

    Args:
        incoming: Folder that fills.
        folder: OUT.
        asked: What the user asks for.
        predict: `predict_batch` with its batch.
        options: When a series is complete, and what happens to failures.
        progress: Says what happens.
        rounds: Looks at the folder, for tests.

    Raises:
        ConfigError: another process watches for this OUT.
    """
    seen: dict[str, Listed] = {}

    def find(files: Sequence[Path]) -> Found:
        found = asked.find(files)
        seen.update(list_series(found.judged, draw=False))
        return found

    def finish(table: StatusTable) -> None:
        _write(folder, [row.cells() for row in table.rows.values()], seen, None)

    work = Arrivals(folder, find, predict, finish)
    watch(incoming, folder, work, options, key=asked.key_bytes(), progress=progress, rounds=rounds)


def _write(folder: Path, rows: Sequence[Mapping[str, Any]], series: Mapping[str, Listed], child: Child | None) -> Path:
    return write_page(folder, rows, series, title=folder.name, created=time.strftime("%Y-%m-%d %H:%M"), child=child)
