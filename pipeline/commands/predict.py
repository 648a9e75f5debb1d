"""Predict new volumes with a trained model: masks on their own grids, a table of what became of each, provenance.

Examples:
  python -m pipeline predict runs/ct scans/ --output predictions
  python -m pipeline predict model.zip a.nii.gz b.mha --output predictions --probabilities
  python -m pipeline predict runs/ct --fold 0 cases.csv --output predictions --set predict.mirror=[D,H]
  python -m pipeline predict model.zip EXPORT --output predictions --rules rules.yaml --dicom-seg
  python -m pipeline predict model.zip INCOMING --output predictions --watch
Start it again to go on: what is done, by its content, is not done twice.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.batch.child import Child
    from pipeline.batch.exports import Exports
    from pipeline.batch.sources import Found
    from pipeline.batch.status import StatusTable
    from pipeline.batch.unattended import Unattended
    from pipeline.batch.worker import Batch
    from pipeline.learning.models import ModelSource
    from pipeline.learning.prediction import PredictOptions
    from pipeline.machine import Machine
    from pipeline.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="run folder, folder of one training, or package")
    parser.add_argument("inputs", type=Path, nargs="+", metavar="INPUT", help="volumes, folders, manifests or exports")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="folder for masks and tables")
    parser.add_argument("--fold", type=int, metavar="N", help="use the model of this fold only, not all together")
    parser.add_argument("--ensemble", choices=("auto", "together", "in-turn"), default="auto",
                        help="several models: all in memory or one at a time; results are equal")  # fmt: skip
    parser.add_argument("--probabilities", action="store_true", help="write the probability of each class, and entropy")
    parser.add_argument("--roi", type=Path, metavar="FOLDER",
                        help="masks CASE.nii.gz: windows outside of them are background without a look")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="an option, e.g. predict.overlap=0.25 or machine.device=cpu")  # fmt: skip
    parser.add_argument("--max-memory", type=float, metavar="GB", help="short for --set machine.max_memory_gb=GB")
    parser.add_argument("--max-minutes", type=float, metavar="M", help="say what to change where it would take longer")
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE", dest="plugins",
                        help="a module of your own that the model's network comes from")  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="end with 1 where anything was not predicted")
    parser.add_argument("--dry-run", action="store_true", help="say what would be predicted and what it costs")
    export = parser.add_argument_group("scanner exports (docs/batch.md)")
    export.add_argument("--rules", type=Path, metavar="YAML", help="which series go to the model")
    export.add_argument("--dicom-seg", action="store_true", help="write DICOM segmentations too")
    export.add_argument("--codes", type=Path, metavar="YAML", help="codes of the classes in them")
    export.add_argument("--previews", action=argparse.BooleanOptionalAction, default=None,
                        help="pictures of every case (default: for exports)")  # fmt: skip
    export.add_argument("--key", type=Path, metavar="FILE", help="call cases by keyed hashes of their UIDs")
    export.add_argument("--map-back", action="store_true", help="add the UIDs to status.csv")
    export.add_argument("--allow-uneven", action="store_true", help="accept uneven steps, resampled to even ones")
    export.add_argument("--watch", action="store_true", help="go on, and predict each series once it is complete")
    export.add_argument("--watch-set", action="append", default=[], metavar="KEY=VALUE", dest="watch_overrides",
                        help="an option of watching, e.g. stable_seconds=120")  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Predict; return 1 where a case failed."""
    from dataclasses import replace

    from pipeline.batch.forecast import forecast
    from pipeline.batch.inputs import find_files
    from pipeline.batch.worker import predict_batch
    from pipeline.imaging.compiled import keep_kernels_in
    from pipeline.imaging.read import read_geometry
    from pipeline.learning.models import open_source
    from pipeline.plugin import load_plugins
    from pipeline.progress import TerminalProgress

    load_plugins(arguments.plugins, search=Path())
    models, progress = open_source(arguments.model, arguments.fold), TerminalProgress()
    options, machine = options_of(arguments, models)
    if "cache" in machine.model_fields_set:  # predicting keeps nothing else there: only where it is named
        keep_kernels_in(machine.kernels)
    asked = _asked(arguments, models, machine)
    for note in models.notes:
        print(note)
    if not models.models[0].recipe.seen:
        print("the model tells nothing of its training data: no case is compared with them")
    if arguments.watch:
        return _watch(
            arguments, _made_ready(arguments, models, options, machine, asked, asked.child()), asked, progress
        )
    found, rest = find_files(arguments.inputs, asked.channels, models.models[0].recipe.optional_channels)
    exported = asked.find(rest, progress) if rest else None
    if exported is None:
        asked = replace(asked, previews=bool(arguments.previews))
    else:
        found = found + exported
        _refuse_empty(exported, found, rest)
        print(exported.text)
    child = asked.child()
    if not arguments.dry_run:
        child.begin()
    batch = _made_ready(arguments, models, options, machine, asked, child)
    cost = forecast(
        found.sources, batch.predictor, probabilities=arguments.probabilities, measure=False,
        look=lambda path: child.run(path.name, read_geometry, path),
    )  # fmt: skip
    batch.predictor.choose_backend(cost.windows, machine.cache)
    cost = cost.timed(batch.predictor)
    limit = None if machine.max_memory_gb == "auto" else machine.memory_bytes()
    print(cost.text(limit, arguments.max_minutes))
    if arguments.dry_run:
        return 0
    with child:
        table = predict_batch(found, batch, progress)
        if exported is not None:
            from pipeline.batch.unattended import finish_page

            print(f"page: {finish_page(arguments.output, table, exported.judged, child)}")
    return tell(table, found, arguments.output, strict=arguments.strict)


def options_of(arguments: argparse.Namespace, models: "ModelSource") -> "tuple[PredictOptions, Machine]":
    """Put what the command line sets over the options of the run.

    Raises:
        ConfigError: an option is unknown or has a value that it cannot have.
    """
    from pydantic import ValidationError

    from pipeline.config import merge, override, problems
    from pipeline.errors import ConfigError, join_problems
    from pipeline.learning.prediction import PredictOptions
    from pipeline.machine import Machine

    tree: dict[str, Any] = {"predict": dict(models.options), "machine": {}}
    for text in arguments.overrides:
        tree = merge(tree, override(text))
    if arguments.max_memory is not None:
        tree = merge(tree, {"machine": {"max_memory_gb": arguments.max_memory}})
    if unknown := sorted(tree.keys() - {"predict", "machine"}):
        raise ConfigError(f"--set {unknown[0]}: found a section that predicting does not read; expected predict.OPTION "
                          "or machine.OPTION. All else belongs to the model.")  # fmt: skip
    found: list[str] = []
    made: list[Any] = []
    for name, kind in (("predict", PredictOptions), ("machine", Machine)):
        try:
            made.append(kind.model_validate(tree[name]))
        except ValidationError as error:
            found += list(problems(error.errors(), kind, (name,)))
    if found:
        raise ConfigError(join_problems("--set", found))
    return made[0], made[1]


def in_turn_of(word: str, models: "ModelSource", machine: "Machine") -> bool:
    """Say whether models share memory: where asked for, or where their weights are a large part of what there is."""
    if word != "auto":
        return word == "in-turn" and len(models.models) > 1
    networks = {model.recipe.network.model_dump_json() for model in models.models}
    together = sum(model.bytes for model in models.models)
    return len(networks) == 1 and len(models.models) > 1 and together > machine.memory_bytes() // 4


def tell(table: "StatusTable", found: "Found", output: Path, *, strict: bool) -> int:
    """Print what became of the batch and return the exit code."""
    from pipeline.batch.status import DONE, FAILED, PREDICTIONS, STATUS
    from pipeline.errors import plural

    names = [*(one.case_id for one in found.sources), *(one.case_id for one in found.passed)]
    mine = [table.rows[name] for name in dict.fromkeys(names)]
    failed = [row for row in mine if row.status in (FAILED, "unreadable")]
    passed = [row for row in mine if row.status not in (DONE, FAILED, "unreadable")]
    for row in [*failed, *(row for row in passed if row.status == "ambiguous")]:
        print(f"{row.status}: {row.reason}")
    for row in mine:
        if row.review:
            print(f"review {row.case_id}: {'; '.join(row.review)}")
    done = sum(row.status == DONE for row in mine)
    left = f", {len(passed)} not predicted" if passed else ""
    print(f"{plural(done, 'case')} done, {len(failed)} failed{left}; table: {output / STATUS}")
    if (output / PREDICTIONS).exists():
        print(f"classes: {output / PREDICTIONS}")
    is_unclear = any(row.status == "ambiguous" for row in passed)
    return 1 if failed or is_unclear or (strict and passed) else 0


def _asked(arguments: argparse.Namespace, models: "ModelSource", machine: "Machine") -> "Unattended":
    """Gather what is asked for beyond masks."""
    from pipeline.batch.child import DEFAULT_MEMORY_BYTES
    from pipeline.batch.unattended import Unattended

    recipe = models.models[0].recipe
    return Unattended(
        channels=recipe.channels, model=str(arguments.model), rules=arguments.rules, key=arguments.key,
        codes=arguments.codes, dicom_seg=arguments.dicom_seg, previews=arguments.previews is not False,
        map_back=arguments.map_back, allow_uneven=arguments.allow_uneven,
        memory_bytes=max(DEFAULT_MEMORY_BYTES, machine.memory_bytes() // 2),
    )  # fmt: skip


def _made_ready(
    arguments: argparse.Namespace, models: "ModelSource", options: "PredictOptions", machine: "Machine",
    asked: "Unattended", child: "Child",
) -> "Batch":  # fmt: skip
    """Load the models and put the batch together; files are read in the child."""
    from pipeline.batch.child import read_in
    from pipeline.batch.worker import Batch
    from pipeline.dicom.seg import Algorithm
    from pipeline.learning.precision import choose_device
    from pipeline.learning.predictor import predictor_of

    predictor = predictor_of(
        models, options, in_turn=in_turn_of(arguments.ensemble, models, machine),
        device=choose_device(machine.device), memory_limit=machine.memory_bytes() // 4, scratch=arguments.output,
    )  # fmt: skip
    return Batch(
        models, predictor, arguments.output,
        read=read_in(child, asked.channels, allow_uneven=asked.allow_uneven),
        after=asked.hooks(Algorithm(f"{models.name} {models.identity[:12]}"), predictor.recipe.labels.classes),
        probabilities=arguments.probabilities, roi=arguments.roi,
        where={"path": str(arguments.model.resolve()), "fold": arguments.fold},
    )  # fmt: skip


def _watch(arguments: argparse.Namespace, batch: "Batch", asked: "Unattended", progress: "Progress") -> int:
    """Predict what arrives, until the process is ended."""
    from pydantic import ValidationError

    from pipeline.batch.unattended import watch_exports
    from pipeline.batch.watch import WatchOptions
    from pipeline.batch.worker import predict_batch
    from pipeline.config import merge, override, problems
    from pipeline.errors import ConfigError, join_problems
    from pipeline.machine import Machine

    if len(arguments.inputs) != 1:
        raise ConfigError(f"--watch: found {len(arguments.inputs)} inputs; expected one incoming folder.")
    tree: dict[str, Any] = {}
    for text in arguments.watch_overrides:
        tree = merge(tree, override(text))
    try:
        options = WatchOptions.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(join_problems("--watch-set", list(problems(error.errors(), WatchOptions)))) from None
    batch.predictor.choose_backend(0, Machine().cache)  # how much will come is not known
    watch_exports(arguments.inputs[0], arguments.output, asked, lambda found: predict_batch(found, batch), options,
                  progress)  # fmt: skip
    return 0


def _refuse_empty(exported: "Exports", found: "Found", rest: "tuple[Path, ...]") -> None:
    """Refuse inputs in which nothing is known."""
    from pipeline.errors import ConfigError

    if not exported.judged and not found.sources:
        raise ConfigError(
            f"{rest[0]}: no NIfTI, MHA, NRRD or DICOM file is there that can be read ({exported.text}); expected some. "
            "Check the path."
        )
