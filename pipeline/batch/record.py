"""The record of a predicted case: what it was made from, with what, and what came out; its presence means done."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from pipeline.batch.status import DONE, Row
from pipeline.plugin import Settings
from pipeline.provenance import FileHashes
from pipeline.workspace import write_text

FOLDER = "provenance"


class CaseRecord(Settings):
    """All that is known of how one case was predicted; `OUT/provenance/<case>.json`."""

    case_id: str
    key: str
    """Hash of input, model and options: what makes two predictions the same."""
    input: dict[str, Any]
    """`sha256`, `state`, `files`, and the `grid`."""
    model: dict[str, Any]
    """`identity`, `path`, `fold` and, by `members`, the sha256 of weights and recipe."""
    options: dict[str, Any]
    environment: dict[str, Any]
    """Versions, device and machine."""
    labels: dict[str, Any] = Field(default_factory=dict)
    made: tuple[str, ...] = ()
    """What was made beside the mask, by name: `probabilities`, and the hooks that were called."""
    outputs: dict[str, str] = Field(default_factory=dict)
    """Path below OUT -> sha256."""
    seconds: dict[str, float] = Field(default_factory=dict)
    peak_memory_mb: float = 0.0
    volumes_ml: dict[str, float] = Field(default_factory=dict)
    probabilities: dict[str, float] = Field(default_factory=dict)
    review: tuple[str, ...] = ()
    note: str = ""
    columns: dict[str, Any] = Field(default_factory=dict)

    def row(self) -> Row:
        """Return its row in `status.csv`."""
        return Row(
            self.case_id, DONE, review=self.review, note=self.note, seconds=self.seconds,
            peak_memory_mb=self.peak_memory_mb, model=str(self.model.get("identity", "")), volumes_ml=self.volumes_ml,
            probabilities=self.probabilities, columns=self.columns,
        )  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write it: the last thing that is done for a case."""
        write_text(record_path(folder, self.case_id), self.model_dump_json(indent=2) + "\n")

    def is_result_of(self, key: str, wanted: Collection[str], folder: Path) -> bool:
        """Say whether it is what would be made now, and all its files still have their bytes."""
        return self.key == key and set(wanted) <= set(self.made) and not changed_outputs(self, folder)


def changed_outputs(record: CaseRecord, folder: Path) -> dict[str, str]:
    """Return the files that are missing or have other bytes than when they were made, with their sha256 now."""
    hashes = FileHashes(Path(), remember=False)
    now = {name: hashes.sha256(folder / name) for name in record.outputs}
    return {name: found for name, found in now.items() if found != record.outputs[name]}


def record_path(folder: Path, case_id: str) -> Path:
    """Return where the record of a case lies."""
    return folder / FOLDER / f"{case_id}.json"


def read_record(path: Path) -> CaseRecord | None:
    """Read a record; None where there is none or it is damaged, which is the same: not done."""
    try:
        return CaseRecord.model_validate_json(path.read_text("utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def read_records(folder: Path) -> dict[str, CaseRecord]:
    """Read all records of a folder of predictions, by case id."""
    found = (read_record(path) for path in sorted((folder / FOLDER).glob("*.json")))
    return {record.case_id: record for record in found if record is not None}


def forget(record: CaseRecord, folder: Path) -> None:
    """Remove a result that is no longer that of its input, record first, so that nothing passes for it."""
    record_path(folder, record.case_id).unlink(missing_ok=True)
    for name in record.outputs:
        path = folder / name
        if path.resolve().is_relative_to(folder.resolve()):
            path.unlink(missing_ok=True)


def hashes_of(folder: Path, files: Mapping[str, None] | Collection[str]) -> dict[str, str]:
    """Return path below the folder -> sha256."""
    hashes = FileHashes(Path(), remember=False)
    return {name: hashes.sha256(folder / name) for name in files}
