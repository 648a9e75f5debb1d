"""Where trained models come from: the folder of a run, the folder of one training, or a package."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline.errors import ModelError
from pipeline.learning.package import Package, open_package
from pipeline.learning.prediction import PredictOptions
from pipeline.learning.trained import SavedModel, read_record, saved
from pipeline.postprocess.base import DECISION, PostProcess, postprocesses
from pipeline.provenance import digest
from pipeline.records import TrainedModel
from pipeline.workspace import RESULT
from pipeline.yaml_text import parse_yaml

LATEST = "models.json"
"""In a run folder: which trainings and which evaluation the last run made or used."""


@dataclass(frozen=True, eq=False)
class ModelSource:
    """Trained models that predict together, and how; no weights are read yet.

    name:        Of the run or package.
    models:      One a fold.
    options:     Those of `PredictOptions` with which the run predicted, so that what was evaluated is what is used.
    postprocess: What mends a mask.
    notes:       What the user should know of the choice of models.
    """

    name: str
    models: tuple[SavedModel, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    postprocess: tuple[PostProcess, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What stands for these models wherever they lie."""
        return digest([*(model.identity for model in self.models), *(_plain(step) for step in self.postprocess)])


def open_source(path: Path, fold: int | None = None) -> ModelSource:
    """Find trained models; weights are read later, and nothing is ever executed.

    Args:
        path: Run folder, folder of one training, or package.
        fold: The one fold to use; None for all.

    Raises:
        ModelError: there are none, they are damaged, or there is no such fold.
    """
    if path.is_file():
        return _of_package(path, open_package(path), fold)
    if (path / RESULT).exists():
        source = _of_trainings(path.parent, {_fold_of(path): path})
        return ModelSource(f"{path.parent.name}/{path.name}", source.models, source.options, source.postprocess)
    folders, notes = trainings(path)
    if not folders:
        raise ModelError(
            f"{path}: no trained model is there; expected the folder of a finished run, such as runs/ct, the folder "
            "of one training in it, or a package made by 'python -m pipeline package'. Check the path."
        )
    source = _of_trainings(path, _chosen(folders, fold, path))
    return ModelSource(path.resolve().name, source.models, source.options, source.postprocess, notes)


def trainings(run: Path) -> tuple[dict[int | None, Path], tuple[str, ...]]:
    """Find the finished trainings of a run folder: fold -> folder, None for one on all cases.

    Where options were changed there are several of a fold: those that the last run names count, else the newest,
    which is said in the notes.
    """
    found: dict[int | None, list[Path]] = {}
    for result in sorted(run.glob(f"train-*/{RESULT}"), key=lambda one: one.stat().st_mtime_ns):
        found.setdefault(_fold_of(result.parent), []).append(result.parent)
    named = {_fold_of(run / name): run / name for name in _latest(run).get("train", ())}
    if named and all((folder / RESULT).exists() for folder in named.values()):
        return dict(sorted(named.items(), key=_by_fold)), ()
    notes = tuple(
        f"{run.name} has {len(folders)} trainings of {'all cases' if fold is None else f'fold {fold}'}; the newest is "
        f"used: {folders[-1].name}"
        for fold, folders in found.items()
        if len(folders) > 1
    )
    newest = {fold: folders[-1] for fold, folders in sorted(found.items(), key=_by_fold)}
    if len(newest) > 1:
        newest.pop(None, None)
    return newest, notes


def evaluation(run: Path) -> Path | None:
    """Find the folder of the evaluation that belongs to the trainings, None where there is none."""
    named = run / str(_latest(run).get("evaluate", "-"))
    if (named / RESULT).exists():
        return named
    done = sorted(run.glob(f"evaluate-*/{RESULT}"), key=lambda one: one.stat().st_mtime_ns)
    return done[-1].parent if done else None


def read_postprocess(folder: Path | None) -> tuple[PostProcess, ...]:
    """Read what an evaluation chose to mend masks with; nothing where it chose nothing.

    Raises:
        ModelError: the file is damaged.
    """
    if folder is None or not (folder / DECISION).exists():
        return ()
    try:
        chosen = json.loads((folder / DECISION).read_text()).get("chosen", ())
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder}/{DECISION}: cannot be read ({type(error).__name__}). Run evaluate again.") from None
    return parse_postprocess(chosen, str(folder))


def parse_postprocess(chosen: Sequence[Any], where: str) -> tuple[PostProcess, ...]:
    """Turn plain values into the steps that they name.

    Raises:
        ModelError: one is unknown or has other options.
    """
    try:
        return tuple(postprocesses.parse(one) for one in chosen)
    except (ValidationError, ValueError, TypeError) as error:
        raise ModelError(
            f"{where}: its post-processing cannot be read: {error}. Make the model again with this version."
        ) from None


def _of_trainings(run: Path, folders: Mapping[int | None, Path]) -> ModelSource:
    records = {fold: read_record(folder) for fold, folder in folders.items()}
    models = tuple(saved(record) for record in records.values())
    return ModelSource(run.name, models, run_options(run), read_postprocess(evaluation(run)))


def records_of(run: Path, fold: int | None) -> dict[int | None, TrainedModel]:
    """Return what the chosen trainings of a run, or of the folder of one training, say of themselves.

    Raises:
        ModelError: there are none.
    """
    if (run / RESULT).exists():
        return {_fold_of(run): read_record(run)}
    folders, _ = trainings(run)
    if not folders:
        raise ModelError(
            f"{run}: no finished training is there; expected a run folder such as runs/ct. Check the path."
        )
    return {number: read_record(folder) for number, folder in _chosen(folders, fold, run).items()}


def run_options(run: Path) -> dict[str, Any]:
    """Return how a run predicted; the number format is left to the machine that predicts."""
    try:
        tree = parse_yaml((run / "resolved.yaml").read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    section = tree.get("predict") if isinstance(tree, dict) else None
    section = section if isinstance(section, dict) else {}
    known = {key: value for key, value in section.items() if key in PredictOptions.model_fields}
    known.pop("precision", None)
    return known


def _of_package(path: Path, package: Package, fold: int | None) -> ModelSource:
    models = dict(package.models)
    return ModelSource(
        path.name,
        tuple(_chosen(models, fold, path).values()),
        _options_of(path, package),
        parse_postprocess(package.index.postprocess, path.name),
    )


def _options_of(path: Path, package: Package) -> dict[str, Any]:
    options = {key: value for key, value in package.index.options.items() if key in PredictOptions.model_fields}
    try:
        PredictOptions.model_validate(options)
    except ValidationError as error:
        raise ModelError(
            f"{path}: its options for prediction cannot be used: {error.errors()[0]['msg']:.300}. Get the package anew."
        ) from None
    return options


def _chosen(found: Mapping[int | None, Any], fold: int | None, path: Path) -> dict[int | None, Any]:
    if fold is None:
        return dict(found)
    if fold not in found:
        known = ", ".join(str(one) for one in found if one is not None) or "none: it was trained on all cases"
        raise ModelError(f"{path}: --fold {fold}: no training of this fold; found {known}. Choose one of them.")
    return {fold: found[fold]}


def _latest(run: Path) -> dict[str, Any]:
    try:
        named = json.loads((run / LATEST).read_text())
    except (OSError, ValueError):
        return {}
    return named if isinstance(named, dict) else {}


def _fold_of(folder: Path) -> int | None:
    found = re.match(r"train-fold(\d+)-", folder.name)
    return int(found[1]) if found else None


def _by_fold(item: tuple[int | None, Any]) -> int:
    return -1 if item[0] is None else item[0]


def _plain(step: PostProcess) -> dict[str, Any]:
    return step.model_dump(mode="json")
