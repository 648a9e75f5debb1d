"""A recorded prediction made again and compared with what lies on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.batch.exports import acquired_voxels
from pipeline.batch.identity import identify
from pipeline.batch.record import CaseRecord, changed_outputs
from pipeline.batch.sources import Found, Read, Source
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.imaging.geometry import difference
from pipeline.imaging.nifti import read_nifti
from pipeline.imaging.read import read_image
from pipeline.learning.models import ModelSource, open_source
from pipeline.learning.precision import choose_device
from pipeline.learning.prediction import Prediction, PredictOptions
from pipeline.learning.predictor import Predictor, predictor_of
from pipeline.machine import Machine
from pipeline.provenance import environment

_CLOSE = 1e-6


@dataclass(frozen=True)
class Finding:
    """One thing that was compared."""

    what: str
    is_equal: bool
    says: str = ""


def verify(
    record: CaseRecord, folder: Path, *, model: Path | None = None, found: Found | None = None,
    read: Read | None = None, roi: Path | None = None,
) -> list[Finding]:  # fmt: skip
    """Predict a case again from its record.

    Args:
        record: What `OUT/provenance/<case>.json` says.
        folder: OUT.
        model: The model where it lies elsewhere now.
        found: Where to look for the input, by its content; None for the paths that the record names.
        read: Reads a source; None to read volume files in this process.
        roi: Folder of the masks that windows were skipped by.

    Returns:
        What was compared: files, input, model, mask (bit by bit) and probabilities. Versions are compared too and
        only explain a difference.

    Raises:
        ConfigError: the input is not found.
        ModelError: the model cannot be opened.
    """
    source = _source(record, found)
    changed = changed_outputs(record, folder)
    findings = [Finding("files", not changed, _shown(changed, "missing or changed since: "))]
    now = identify(source).sha256
    findings.append(
        Finding("input", now == record.input["sha256"], f"sha256 {now[:12]}, recorded {record.input['sha256'][:12]}")
    )
    models = _models(record, model)
    same_model = models.identity == record.model["identity"]
    findings.append(Finding("model", same_model, f"{models.identity[:12]}, recorded {record.model['identity'][:12]}"))
    if all(finding.is_equal for finding in findings[1:]):
        predictor = _predictor(record, models)
        findings += _compared(record, folder, _predict(record, source, predictor, read, roi))
    findings.append(_versions(record))
    return findings


def _source(record: CaseRecord, found: Found | None) -> Source:
    if found is None:
        files: dict[str, tuple[Path, ...]] = {}
        for one in record.input["files"]:
            if "path" not in one:
                raise ConfigError(
                    f"case {record.case_id}: the record of a DICOM series names no path, for privacy. Give the folder "
                    "with --input."
                )
            files.setdefault(one["channel"], (Path(one["path"]),))  # what a header points to comes after it
        return Source(record.case_id, files)
    wanted = record.input["sha256"]
    by_name = sorted(found.sources, key=lambda source: source.case_id != record.case_id)
    for source in by_name:
        if identify(source).sha256 == wanted:
            return source
    raise ConfigError(f"case {record.case_id}: no input with sha256 {wanted[:12]} is there. Check --input.")


def _models(record: CaseRecord, model: Path | None) -> ModelSource:
    path = model or Path(str(record.model.get("path", "")))
    if not path.exists():
        raise ModelError(f"{path}: the model is not there any more. Name it with --model.")
    return open_source(path, record.model.get("fold"))


def _predictor(record: CaseRecord, models: ModelSource) -> Predictor:
    known = {key: value for key, value in record.options.items() if key in PredictOptions.model_fields}
    known["backend"] = record.environment.get("backend", "torch")  # what `auto` came to then
    device = str(record.environment.get("device", "cpu"))
    predictor = predictor_of(
        models, PredictOptions.model_validate(known), device=choose_device(device.split(":", maxsplit=1)[0])
    )
    predictor.choose_backend(0, Machine().cache)
    return predictor


def _predict(
    record: CaseRecord, source: Source, predictor: Predictor, read: Read | None, roi: Path | None
) -> Prediction:
    inside = None
    if record.options.get("roi"):
        if roi is None:
            raise ConfigError(
                f"case {record.case_id}: windows were skipped by a region of interest. Name it with --roi."
            )
        inside = read_image(roi / f"{record.case_id}.nii.gz", case_id=record.case_id).voxels[0]
    image: Any = {name: paths[0] for name, paths in source.files.items()} if read is None else read(source)
    missing = predictor.lacking(source.files)
    case = predictor.prepare(predictor.read(image, record.case_id, missing), record.case_id, missing)
    return predictor.predict_prepared(case, roi=inside, acquired=acquired_voxels(source))


def _compared(record: CaseRecord, folder: Path, made: Prediction) -> list[Finding]:
    if made.mask is None:
        apart = max(
            (abs(record.probabilities.get(name, -1) - p) for name, p in made.probabilities.items()), default=1.0
        )
        return [Finding("probabilities", apart <= _CLOSE, f"up to {apart:.2g} apart")]
    path = folder / "masks" / f"{record.case_id}.nii.gz"
    try:
        kept = read_nifti(path)
    except (DataError, OSError) as error:
        return [Finding("mask", False, f"it cannot be read: {error}")]
    if apart_mm := difference(made.geometry, kept.geometry):
        return [Finding("mask", False, f"grids differ: {', '.join(apart_mm)}")]
    wrong = int(np.count_nonzero(kept.voxels[0] != made.mask))
    return [Finding("mask", wrong == 0, f"{wrong} of {made.mask.size} voxels differ")]


def _versions(record: CaseRecord) -> Finding:
    now, then = environment(), record.environment
    named = {**now.pop("libraries"), **now}
    before = {**then.get("libraries", {}), **{key: value for key, value in then.items() if key != "libraries"}}
    changed = [
        f"{name} {before.get(name)} then, {value} now" for name, value in named.items() if before.get(name) != value
    ]
    return Finding("versions", not changed, "; ".join(changed))


def _shown(names: Sequence[str] | dict[str, str], lead: str) -> str:
    return lead + ", ".join(names) if names else ""
