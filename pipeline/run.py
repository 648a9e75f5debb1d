"""Every stage of a run in order, for every fold, reused where it was made before. Read this first."""

import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import planner
from pipeline.config import RunConfig, to_yaml
from pipeline.datasets.base import Manifest
from pipeline.datasets.fold_audit import contents_of, find_leaks, refuse_leaks
from pipeline.datasets.folds import make_folds
from pipeline.errors import ConfigError, plural
from pipeline.imaging.block import source_file
from pipeline.learning.models import LATEST
from pipeline.machine import MemoryWatch
from pipeline.plugin import Plugin, source_hash
from pipeline.progress import Progress
from pipeline.provenance import FileHashes, digest, environment
from pipeline.records import CaseTable, DatasetFacts, Evaluation, PredictionTable, Record
from pipeline.stages.base import Stage, StageContext
from pipeline.stages.ingest import label_volumes
from pipeline.workspace import RESULT, only_owner, remove_leftovers, write_json, write_text


def run(
    config: RunConfig,
    *,
    name: str,
    folds: Sequence[int] | None = None,
    until: str | None = None,
    progress: Progress | None = None,
    rehash: bool = False,
) -> "Outcome":
    """Run every stage, or reuse its result.

    Args:
        config: What to run.
        name: Name of the run folder below `machine.runs`; by custom that of the config file.
        folds: Which folds; None for all, an empty list for one model trained on all cases.
        until: Last stage to run.
        progress: Shows what is done.
        rehash: Read the source files anew instead of trusting their size and modification time.

    Returns:
        What was made, and where.

    Raises:
        PipelineError: something a user can mend; what was finished is kept.
    """
    folder = config.machine.runs / name
    with only_owner(folder):
        remove_leftovers(folder)
        steps = _Steps(
            config, folder, progress or Progress(), FileHashes(config.machine.cache / "hashes", forget=rehash)
        )
        return _in_order(steps, folds, until)


def _in_order(steps: "_Steps", folds: Sequence[int] | None, until: str | None) -> "Outcome":
    """Tell the whole story of a run."""
    survey = steps.make("survey")
    steps.config = planner.resolve(steps.config, survey.record, steps.folder)
    write_text(steps.folder / "resolved.yaml", to_yaml(steps.config))
    if until == "survey":
        return steps.outcome()

    ingest = steps.make("ingest", first=partial(_before_work, steps.config, survey.record), survey=survey)
    cases: CaseTable = ingest.record
    shutil.copyfile(cases.path("folds.csv"), steps.folder / "folds.csv")
    if until == "ingest":
        return steps.outcome()

    chosen = _chosen_folds(steps.config, cases, folds)
    plans: dict[int | None, Made] = {}
    models: dict[int | None, Made] = {}
    predictions: list[Made] = []
    for fold in chosen:
        plans[fold] = steps.make("sample", fold, ingest=ingest)
        if until == "sample":
            continue
        models[fold] = steps.make("train", fold, survey=survey, ingest=ingest, sample=plans[fold])
        if until != "train" and fold is not None:
            predictions.append(steps.make("predict", fold, ingest=ingest, train=[models[fold]]))
    if models:
        _name_latest(steps, models)
    if until in ("sample", "train"):
        return steps.outcome()
    if cases.test_ids:
        predictions.append(steps.make("predict", None, ingest=ingest, train=list(models.values())))
    if until == "predict" or not predictions:
        return steps.outcome()

    evaluation = steps.make("evaluate", survey=survey, ingest=ingest, predict=predictions)
    _name_latest(steps, models, evaluation)
    if until == "evaluate":
        return steps.outcome()
    report = steps.make(
        "report", survey=survey, ingest=ingest, sample=list(plans.values()), train=list(models.values()),
        predict=predictions, evaluate=evaluation,
    )  # fmt: skip
    shutil.copyfile(report.record.path("report.html"), steps.folder / "report.html")
    return steps.outcome()


def _name_latest(steps: "_Steps", models: "dict[int | None, Made]", evaluation: "Made | None" = None) -> None:
    """Say which of the trainings in the run folder are those of this configuration: prediction takes them."""
    named = {"train": [made.name for made in models.values()]}
    write_json(steps.folder / LATEST, named | ({"evaluate": evaluation.name} if evaluation else {}))


def _chosen_folds(config: RunConfig, cases: CaseTable, folds: Sequence[int] | None) -> list[int | None]:
    made = sorted({row.fold for row in cases.cases if row.fold is not None})
    if folds is None:
        return list(made)
    unknown = sorted(set(folds) - set(made))
    if unknown:
        raise ConfigError(
            f"--folds: there is no fold {', '.join(map(str, unknown))}; expected some of {made}. "
            "Change folds.k, or the list."
        )
    return list(folds) or [None]


def survey(config: RunConfig, progress: Progress | None = None) -> DatasetFacts:
    """Look at every case as the first stage of a run does, outside of any run; what was seen stays in the cache."""
    with tempfile.TemporaryDirectory() as folder:
        parts = config.parts.only(config.survey.uses)
        context = StageContext(Path(folder), parts, config.machine, config.seed, None, progress or Progress())
        return config.survey.run(context)


def divide(config: RunConfig, facts: DatasetFacts) -> dict[str, int]:
    """Return case id -> fold of every usable training case, as the stage `ingest` divides them."""
    cases = [case for case in facts.manifest.cases if case.case_id in facts.facts]
    return make_folds(cases, config.folds, config.seed, label_volumes(facts))


def _before_work(config: RunConfig, facts: DatasetFacts) -> None:
    """Refuse what would make hours of work worthless: folds that leak, and options that the network refuses."""
    if not facts.bad or config.ingest.on_bad_case == "drop":  # else the bad cases are told first
        leaks = find_leaks(facts.manifest.cases, divide(config, facts), config.folds, contents_of(facts.facts))
        refuse_leaks(leaks, config.folds)
    _try_parts(config, facts.manifest)


def _try_parts(config: RunConfig, manifest: Manifest) -> None:
    """Build loss and network, without memory for weights, so that options they refuse are told before any work."""
    import torch

    if config.train.loss is not None:
        config.train.loss.build()
    names = config.task.class_names(config.labels or manifest.labels, manifest.class_names)
    if config.sample.patch_size != "auto":
        with torch.device("meta"):
            config.network.build(len(manifest.channels), len(names), config.sample.patch_size)


@dataclass(frozen=True)
class Made:
    """A finished stage: its record, its key, and whether it was reused."""

    name: str
    key: str
    record: Any
    reused: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a run made."""

    folder: Path
    made: tuple[Made, ...]
    dropped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    headline: dict[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0, or 1 where some case was left out or failed."""
        return 1 if self.dropped or self.failed else 0

    def text(self) -> str:
        """Return the closing lines for the terminal."""
        reused = sum(made.reused for made in self.made)
        lines = [f"{plural(len(self.made), 'stage')}, {reused} reused, in {self.folder}"]
        lines += [f"{name}: {value:.3f}" for name, value in self.headline.items()]
        lines += [f"left out: {reason}" for reason in self.dropped.values()]
        lines += [f"failed: {reason}" for reason in self.failed.values()]
        if (self.folder / "report.html").exists() and any(made.name.startswith("report") for made in self.made):
            lines.append(f"report: {self.folder / 'report.html'}")
        return "\n".join(lines)


class _Steps:
    """Makes stages one by one, or finds them made."""

    def __init__(
        self, config: RunConfig, folder: Path, progress: Progress, hashes: FileHashes, *, dry: bool = False
    ) -> None:
        self.config, self.folder, self.progress, self.hashes, self.dry = config, folder, progress, hashes, dry
        self.made: list[Made] = []

    def make(
        self, name: str, fold: int | None = None, first: Callable[[], None] | None = None, **needed: Made | list[Made]
    ) -> Made:
        """Return the result of a stage for a fold: found on disk by its key, else made after `first`."""
        stage: Stage = getattr(self.config, name)
        where = _place(stage, fold)
        key = self._key(stage, fold, needed)
        folder = self.folder / f"{where}-{key[:8]}"
        record = _finished(folder, stage.gives, key)
        reused = record is not None
        if record is None and not self.dry:
            if first is not None:
                first()
            inputs = {need: _records(made) for need, made in needed.items()}
            record = self._run(stage, fold, folder, key, inputs)
        made = Made(folder.name, key, record, reused)
        self.made.append(made)
        return made

    def _key(self, stage: Stage, fold: int | None, needed: dict[str, Made | list[Made]]) -> str:
        parts = self.config.parts.only(stage.uses)
        named = _plugins_in([stage, *(getattr(parts, use) for use in stage.uses)])
        return digest(
            {
                "stage": stage.name,
                "version": stage.version,
                "options": stage.key_options(),
                "parts": {use: _dump(getattr(parts, use)) for use in stage.uses},
                "code": sorted({source_hash(plugin) for plugin in named}),
                "fold": fold if stage.per_fold else None,
                "seed": self.config.seed if stage.uses_seed else None,
                "needs": {need: _keys(made) for need, made in needed.items()},
                "sources": self._sources() if stage.name == "survey" else None,
                **self._given_folds(stage),
            }
        )

    def _given_folds(self, stage: Stage) -> dict[str, str]:
        """What stands in the file of folds: its name in the options says nothing of it."""
        file = self.config.folds.file
        return {"folds_file": self.hashes.sha256(file)} if "folds" in stage.uses and file and file.exists() else {}

    def _sources(self) -> object:
        """What the cases are made of: their list, and the contents of their files."""
        dataset = self.config.dataset
        if dataset.makes_files:
            return _dump(dataset)
        manifest = dataset.cases()
        files = {
            str(source_file(path)) for case in manifest.cases for path in (*case.images.values(), case.label) if path
        }
        with (
            self.progress.bar(len(files), "hash source files") if len(files) > 500 else contextlib.nullcontext() as bar
        ):
            found = {}
            for file in sorted(files):
                found[file] = self.hashes.sha256(Path(file))
                if bar is not None:
                    bar.advance()
        return [manifest.model_dump(mode="json"), found]

    def _run(self, stage: Stage, fold: int | None, folder: Path, key: str, inputs: dict[str, Any]) -> Record:
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        self._note_environment(folder)
        started = time.monotonic()
        context = StageContext(
            folder=folder, parts=self.config.parts.only(stage.uses), machine=self.config.machine, seed=self.config.seed,
            fold=fold, progress=self.progress, run_name=self.folder.name, config_yaml=to_yaml(self.config),
        )  # fmt: skip
        with self.progress.within(f"{_place(stage, fold)}: "), MemoryWatch() as memory:
            record = stage.run(context, **inputs).placed(folder)
        cost = {"seconds": round(time.monotonic() - started, 2), "peak_memory_mb": round(memory.peak_mb, 1)}
        write_json(folder / "cost.json", cost)
        write_json(folder / RESULT, {"key": key, "record": record.model_dump(mode="json")})
        return record

    def _note_environment(self, folder: Path) -> None:
        """Record versions and machine; say so where an interrupted stage goes on under others."""
        note = folder / "environment.json"
        before = json.loads(note.read_text()) if note.exists() else []
        now = environment()
        if before and before[-1] != now:
            self.progress.say(
                f"{folder.name} was begun under other versions or on another machine; it goes on, but bit-equality "
                "with an undisturbed run is not promised. Both are recorded in environment.json."
            )
        if not before or before[-1] != now:
            write_json(note, [*before, now])

    def outcome(self) -> Outcome:
        """Sum up."""
        records = [made.record for made in self.made]
        tables = [record for record in records if isinstance(record, PredictionTable)]
        return Outcome(
            folder=self.folder,
            made=tuple(self.made),
            dropped=next((record.dropped for record in records if isinstance(record, CaseTable)), {}),
            failed={row.case_id: row.failure for table in tables for row in table.predictions if row.failure},
            headline=next((record.headline for record in records if isinstance(record, Evaluation)), {}),
        )


def dry_run(config: RunConfig, *, name: str, folds: Sequence[int] | None, until: str | None) -> str:
    """Return what a run would do: config, cases, folds, and which stages are reused. Touches nothing."""
    manifest: Manifest = config.dataset.cases()
    _try_parts(config, manifest)
    steps = _Steps(config, config.machine.runs / name, Progress(), FileHashes(Path("."), remember=False), dry=True)
    known_lines = _dry_stages(steps, folds, until)
    surveyed = steps.made[0].record if steps.made else None
    seen = (label_volumes(surveyed), contents_of(surveyed.facts)) if surveyed else ({}, {})
    divided = make_folds(manifest.cases, steps.config.folds, config.seed, seen[0])
    stage_lines = [*known_lines, *_later_stages(steps, len(set(divided.values())))]
    refuse_leaks(find_leaks(manifest.cases, divided, config.folds, seen[1]), config.folds)
    lines = [to_yaml(steps.config), f"{plural(len(manifest.cases), 'case')}:"]
    for case in manifest.cases:
        where = f"fold {divided[case.case_id]}" if case.case_id in divided else case.split
        lines.append(f"  {case.case_id}  group {case.patient}  {where}")
    if surveyed is None and set(config.folds.stratify) & {"labels", "label_volume"}:
        lines.append("  (folds before the labels were looked at: which cases have which may still change them)")
    return "\n".join([*lines, "stages:", *stage_lines])


def _dry_stages(steps: _Steps, folds: Sequence[int] | None, until: str | None) -> list[str]:
    """Walk through the stages without making them; past the first that has no result only names are known."""
    try:
        survey = steps.make("survey")
        if survey.record is not None:
            steps.config = planner.resolve(steps.config, survey.record, steps.folder, write=False)
            _walk(steps, survey, folds, until)
    except _NotMade:
        pass
    return [f"  reuse  {made.name}" if made.reused else f"  make   {made.name}" for made in steps.made]


def _later_stages(steps: _Steps, folds: int) -> list[str]:
    done = {made.name.split("-")[0] for made in steps.made}
    return [
        f"  make   {stage.name}"
        + (f" for {plural(folds, 'fold')}" if stage.name in ("sample", "train", "predict") else "")
        for stage in steps.config.stages
        if stage.name not in done
    ]


class _NotMade(Exception):
    """A dry run cannot look further."""


def _walk(steps: _Steps, survey: Made, folds: Sequence[int] | None, until: str | None) -> None:
    ingest = steps.make("ingest", survey=survey)
    if ingest.record is None:
        raise _NotMade
    plans: dict[int | None, Made] = {}
    models: dict[int | None, Made] = {}
    predictions: list[Made] = []
    for fold in _chosen_folds(steps.config, ingest.record, folds):
        plans[fold] = steps.make("sample", fold, ingest=ingest)
        models[fold] = steps.make("train", fold, survey=survey, ingest=ingest, sample=plans[fold])
        if fold is not None:
            predictions.append(steps.make("predict", fold, ingest=ingest, train=[models[fold]]))
    if ingest.record.test_ids:
        predictions.append(steps.make("predict", None, ingest=ingest, train=list(models.values())))
    evaluation = steps.make("evaluate", survey=survey, ingest=ingest, predict=predictions)
    steps.make(
        "report", survey=survey, ingest=ingest, sample=list(plans.values()), train=list(models.values()),
        predict=predictions, evaluate=evaluation,
    )  # fmt: skip


def _place(stage: Stage, fold: int | None) -> str:
    if not stage.per_fold:
        return stage.name
    nobody = "test" if stage.name == "predict" else "all"
    return f"{stage.name}-{nobody if fold is None else f'fold{fold}'}"


def _finished(folder: Path, kind: type[Record], key: str) -> Record | None:
    try:
        saved = json.loads((folder / RESULT).read_text())
    except (OSError, ValueError):
        return None
    return kind.model_validate(saved["record"]).placed(folder) if saved.get("key") == key else None


def _plugins_in(value: object) -> list[Plugin]:
    """Return every plug-in named in some settings, at any depth."""
    if isinstance(value, Plugin):
        inside = [getattr(value, name) for name in type(value).model_fields]
        return [value, *_plugins_in(inside)]
    if isinstance(value, dict):
        return _plugins_in(list(value.values()))
    return [plugin for item in value for plugin in _plugins_in(item)] if isinstance(value, list | tuple) else []


def _dump(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dump(inner) for key, inner in value.items()}
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value


def _records(made: Made | list[Made]) -> Any:
    return [one.record for one in made] if isinstance(made, list) else made.record


def _keys(made: Made | list[Made]) -> Any:
    return [one.key for one in made] if isinstance(made, list) else made.key
