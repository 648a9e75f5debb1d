"""Prediction of case after case: reading the next, computing this one and writing the last overlap."""

import errno
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.batch.child import ReaderBug
from pipeline.batch.exports import acquired_voxels
from pipeline.batch.identity import Identity, identify, state_of
from pipeline.batch.label_table import write_label_table
from pipeline.batch.record import FOLDER, CaseRecord, forget, hashes_of, read_record, read_records, record_path
from pipeline.batch.sources import Added, After, Finished, Found, Read, Source
from pipeline.batch.status import FAILED, WAITING, Row, StatusTable
from pipeline.errors import ConfigError, Interrupted, PipelineError, StoppedError
from pipeline.imaging.read import read_image
from pipeline.imaging.store import LoadedCase
from pipeline.imaging.volume import Volume
from pipeline.imaging.write import write_mask
from pipeline.learning.models import ModelSource
from pipeline.learning.prediction import Prediction
from pipeline.learning.predictor import Predictor
from pipeline.progress import Progress
from pipeline.provenance import digest, environment
from pipeline.workspace import only_owner, remove_leftovers

log = logging.getLogger(__name__)
T = TypeVar("T")
PROBABILITIES = "probabilities"
_WRITTEN = ("masks", FOLDER, PROBABILITIES, "seg", "previews")
"""Folders below OUT in which a killed process may leave files that it had not renamed yet."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, eq=False)
class Batch:
    """How a batch is predicted.

    models:        Where the predictor's models come from, for the records.
    predictor:     Ready to compute.
    folder:        Where results go; it has one owner at a time.
    read:          Reads a source; None for volume files.
    after:         Called one after the other for every case whose mask is on disk.
    probabilities: Whether to write those of every voxel.
    roi:           Folder of masks `<case>.nii.gz`, outside of which windows are skipped; None for whole volumes.
    where:         Path and fold of the models as the user named them.
    """

    models: ModelSource
    predictor: Predictor
    folder: Path
    read: Read | None = None
    after: Sequence[After] = ()
    probabilities: bool = False
    roi: Path | None = None
    where: Mapping[str, Any] | None = None

    @property
    def made(self) -> tuple[str, ...]:
        """What is made of each case beside its mask."""
        names = tuple(_name(hook) for hook in self.after)
        return (PROBABILITIES, *names) if self.probabilities else names

    def options(self) -> dict[str, Any]:
        """Return all that decides the numbers beside input and model."""
        return self.predictor.options.model_dump(mode="json") | {"precision": self.predictor.precision}

    def read_volume(self, source: Source) -> Volume:
        """Read a source with the hook, or its files."""
        if self.read is not None:
            return self.predictor.read(self.read(source), source.case_id, self.predictor.lacking(source.files))
        return self.predictor.read({name: paths[0] for name, paths in source.files.items()}, source.case_id)


@dataclass(frozen=True, eq=False)
class _Ready:
    """A case that was read and prepared."""

    source: Source
    identity: Identity
    key: str
    volume: Volume | None
    case: LoadedCase
    roi: NDArray[Any] | None
    seconds: float


@dataclass(frozen=True, eq=False)
class _Computed:
    """A case whose mask is in memory."""

    ready: _Ready
    prediction: Prediction
    seconds: float


def predict_batch(found: Found, batch: Batch, progress: Progress | None = None) -> StatusTable:
    """Predict every source that has no result yet; a case that fails costs that case only.

    At most one case is being read or waits for the network, one is computed, and one is written. Kill it anywhere
    and start it again: what has its record is done if input, model, options and files are the same by their content.

    Args:
        found: What to predict, and what not.
        batch: How.
        progress: Shows a bar over cases.

    Returns:
        The table, as it stands in `status.csv`.

    Raises:
        ConfigError: another process owns the folder.
        OSError: the disk is full; the case in hand is not in the way of the next start.
    """
    with ExitStack() as stack:
        _own(batch.folder, stack)
        table = StatusTable(batch.folder, _first_rows(found, batch.folder))
        table.write()
        stack.callback(table.write)
        if batch.predictor.recipe.task.reads_masks:
            write_label_table(batch.predictor.recipe.labels, batch.folder / "masks")
        bar = stack.enter_context((progress or Progress()).bar(len(found.sources), "predict"))

        def take(row: Row) -> None:
            table.put(row)
            bar.advance(note=row.case_id)

        _overlapping(found.sources, batch, take)
    return table


def case_key(identity: str, batch: Batch, roi: str = "") -> str:
    """Return what stands for a prediction: equal keys give equal masks where the device is of one kind."""
    return digest({"input": identity, "model": batch.models.identity, "options": batch.options(), "roi": roi})


def _own(folder: Path, stack: ExitStack) -> None:
    try:
        stack.enter_context(only_owner(folder))
    except ConfigError:
        raise ConfigError(
            f"{folder}: another process predicts into this folder. Wait for it, end it, or give another --output."
        ) from None
    for inside in (folder, *(folder / name for name in _WRITTEN), *(folder / PROBABILITIES).glob("*/")):
        remove_leftovers(inside)


def _first_rows(found: Found, folder: Path) -> list[Row]:
    """Return the rows of what is not predicted, of what waits, and of the results of earlier starts."""
    rows = {record.case_id: record.row() for record in read_records(folder).values()}
    rows |= {source.case_id: Row(source.case_id, WAITING, note=source.note) for source in found.sources}
    rows |= {one.case_id: Row(one.case_id, one.status, one.reason) for one in found.passed}
    return list(rows.values())


def _overlapping(sources: Sequence[Source], batch: Batch, take: Callable[[Row], None]) -> None:
    """Walk through the sources with one thread that reads ahead and one that writes behind."""
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:

        def begin(source: Source) -> "Future[_Ready | Row]":
            return reader.submit(_guarded, source, partial(_get_ready, source, batch))

        ahead: Future[_Ready | Row] | None = None
        behind: Future[Row] | None = None
        try:
            for number, source in enumerate(sources):
                ready = (ahead or begin(source)).result()
                ahead = begin(sources[number + 1]) if number + 1 < len(sources) else None
                made = ready if isinstance(ready, Row) else _guarded(source, partial(_compute, ready, batch))
                del ready
                if behind is not None:
                    take(behind.result())
                    behind = None
                if isinstance(made, Row):
                    take(made)
                else:
                    behind = writer.submit(_guarded, source, partial(_write, made, batch))
                del made
        finally:
            # What was computed is written even where the next case, or the user, ends the work.
            if ahead is not None:
                ahead.cancel()
            if behind is not None:
                take(behind.result())


def _guarded(source: Source, work: Callable[[], T]) -> T | Row:
    """Do a step of one case; return its row where it fails."""
    try:
        return work()
    except (StoppedError, Interrupted):
        raise
    except PipelineError as error:
        reason = str(error)
    except MemoryError:
        reason = f"case {source.case_id}: memory ran out. Free some, or use --ensemble in-turn."
    except OSError as error:
        if error.errno in _FULL:
            raise
        reason = f"case {source.case_id}: a file cannot be read or written ({error.strerror or type(error).__name__})."
    except ReaderBug as error:
        reason = str(error)
    except Exception as error:  # a bug must not cost the other cases
        if _ran_out(error):
            reason = f"case {source.case_id}: memory ran out on the device. Use --ensemble in-turn."
        else:
            # Without the exception's text, which may quote the name of a file and so of a patient.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("case %s: unexpected %s\n%s", source.case_id, type(error).__name__, where)
            reason = f"case {source.case_id}: unexpected {type(error).__name__}; the log has its traceback. Report it."
    return Row(source.case_id, FAILED, reason, note=source.note)


def _ran_out(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _get_ready(source: Source, batch: Batch) -> _Ready | Row:
    """Read and prepare a case, unless its result is there."""
    started = perf_counter()
    record = read_record(record_path(batch.folder, source.case_id))
    identity, roi_file = _identity(source, record), _roi_file(source, batch)
    key = case_key(identity.sha256, batch, _sha256(roi_file) if roi_file else "")
    if record is not None:
        if record.is_result_of(key, batch.made, batch.folder):
            return replace(record.row(), note=source.note)
        forget(record, batch.folder)
    volume = batch.read_volume(source)
    case = batch.predictor.prepare(volume, source.case_id, batch.predictor.lacking(source.files))
    roi = read_image(roi_file, case_id=source.case_id).voxels[0] if roi_file else None
    kept = volume if batch.after else None
    return _Ready(source, identity, key, kept, case, roi, perf_counter() - started)


def _identity(source: Source, record: CaseRecord | None) -> Identity:
    """Return the content of the input, from the record where no file changed since."""
    if record is not None and record.input.get("state") == state_of(source):
        return Identity(record.input["sha256"], record.input["state"], tuple(record.input["files"]))
    return identify(source)


def _roi_file(source: Source, batch: Batch) -> Path | None:
    if batch.roi is None:
        return None
    path = batch.roi / f"{source.case_id}.nii.gz"
    if not path.exists():
        raise ConfigError(f"case {source.case_id}: --roi {batch.roi} has no {path.name}; expected one for each case.")
    return path


def _sha256(path: Path) -> str:
    return hashes_of(path.parent, [path.name])[path.name]


def _compute(ready: _Ready, batch: Batch) -> _Computed:
    started = perf_counter()
    prediction = batch.predictor.predict_prepared(
        ready.case, roi=ready.roi, acquired=acquired_voxels(ready.source), probabilities=batch.probabilities
    )
    bare = replace(ready, roi=None, case=replace(ready.case, voxels=np.empty((0, 0, 0, 0), np.int16)))
    return _Computed(bare, prediction, perf_counter() - started)


def _write(made: _Computed, batch: Batch) -> Row:
    """Write the files of a case, call the hooks, and write the record last."""
    files: list[str] = []
    try:
        return _written(made, batch, files)
    except BaseException:
        # A mask without its record is no result, and must not pass for one.
        for name in files:
            (batch.folder / name).unlink(missing_ok=True)
        raise


def _written(made: _Computed, batch: Batch, files: list[str]) -> Row:
    started, prediction, folder = perf_counter(), made.prediction, batch.folder
    ready, source = made.ready, made.ready.source
    if prediction.mask is not None:
        files.append(f"masks/{source.case_id}.nii.gz")
        write_mask(prediction.mask, prediction.geometry, folder / files[0])
    if prediction.maps is not None:
        written = prediction.maps.write(folder / PROBABILITIES / source.case_id)
        files += [path.relative_to(folder).as_posix() for path in written]
        prediction.maps.close()
    added = _call_hooks(made, batch, files)
    seconds = {"read": ready.seconds, "compute": made.seconds, "write": perf_counter() - started}
    record = CaseRecord(
        case_id=source.case_id,
        key=ready.key,
        input=_input(ready.identity, prediction),
        model=_model(batch),
        options=batch.options() | ({"roi": True} if batch.roi else {}),
        environment=environment() | {"device": str(batch.predictor.device), "backend": batch.predictor.backend},
        labels=batch.predictor.recipe.labels.model_dump(mode="json"),
        made=batch.made,
        outputs=hashes_of(folder, dict.fromkeys(files)),
        seconds={step: round(value, 3) for step, value in seconds.items()},
        peak_memory_mb=round(prediction.peak_memory_mb, 1),
        volumes_ml=dict(prediction.volumes_ml),
        probabilities=dict(prediction.probabilities),
        review=tuple(reason for one in added for reason in one.review),
        note=source.note,
        columns={name: value for one in added for name, value in one.columns.items()},
    )
    record.write(folder)
    return record.row()


def _call_hooks(made: _Computed, batch: Batch, files: list[str]) -> list[Added]:
    """Call what follows a mask; add the files that it makes."""
    if made.ready.volume is None:
        return []
    finished = Finished(
        made.ready.source, made.ready.volume, made.prediction, batch.predictor.recipe, batch.folder
    )  # fmt: skip
    made_by: list[Added] = []
    for hook in batch.after:
        if (added := hook(finished)) is not None:
            made_by.append(added)
            files += added.files
    return made_by


def _input(identity: Identity, prediction: Prediction) -> dict[str, Any]:
    return {
        "sha256": identity.sha256,
        "state": identity.state,
        "files": list(identity.files),
        "grid": prediction.geometry.model_dump(mode="json"),
    }


def _model(batch: Batch) -> dict[str, Any]:
    members = [
        {"name": model.name, "weights": model.sha256, "recipe": model.recipe_sha256} for model in batch.models.models
    ]
    return {"identity": batch.models.identity, "name": batch.models.name, **(batch.where or {}), "members": members}


def _name(hook: After) -> str:
    inner = getattr(hook, "func", hook)
    names = (getattr(one, name, "") for one, name in ((hook, "name"), (inner, "name"), (inner, "__name__")))
    return str(next((name for name in names if name), type(inner).__name__))
