"""Look at every case of a data set: tell what is wrong, what is odd and what to do; with --fix, repair what is safe.

Examples:
  python -m pipeline check configs/liver.yaml
  python -m pipeline check data_manifests/liver.csv
  python -m pipeline check Task04_Hippocampus --format decathlon
  python -m pipeline check data_manifests/liver.csv --fix --dry-run
  python -m pipeline check data_manifests/liver.csv --fix --output data_manifests/liver_fixed.csv

Ends with 0 where nothing is wrong, 1 with warnings, 2 with errors. Sources are never modified.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.datasets.base import Manifest
    from pipeline.doctor.checkup import CheckUp, Expectation
    from pipeline.machine import Machine
    from pipeline.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help="a configuration (.yaml), a manifest (.csv), or with --format a data set's folder",
    )
    parser.add_argument(
        "--format", metavar="FORMAT", help="a data set plug-in that reads SOURCE; see 'options dataset'"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change an option of the configuration, or of the data set; may be given several times",
    )
    parser.add_argument(
        "--output-table",
        type=Path,
        metavar="CSV",
        help="where to write the findings (default: beside the manifest, or in the run folder)",
    )
    parser.add_argument("--fix", action="store_true", help="repair what is safe, into new files beside a new manifest")
    parser.add_argument("--output", type=Path, metavar="CSV", help="the new manifest of --fix")
    parser.add_argument("--dry-run", action="store_true", help="show what --fix would do, and write no repair")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that look at cases (default: one a core)")
    parser.add_argument("--max-memory", type=float, metavar="GB", help="memory that may be used at once")


def main(arguments: argparse.Namespace) -> int:
    """Print and write the table of findings; return the exit code."""
    from pipeline.doctor.checkup import check_up
    from pipeline.doctor.findings import exit_code, summary, to_csv, to_text
    from pipeline.doctor.repair import plan_repairs, refuse_output, refuse_written, remaining
    from pipeline.progress import TerminalProgress
    from pipeline.workspace import write_text

    _refuse_arguments(arguments)
    progress = TerminalProgress()
    subject = _subject(arguments, progress)
    sources = [arguments.source, *([subject.file] if subject.file else [])]
    if arguments.fix and arguments.output:
        refuse_output(subject.manifest, sources, arguments.output)
    if arguments.output_table:
        refuse_written(subject.manifest, sources, [arguments.output_table], f"--output-table {arguments.output_table}")
    found = check_up(subject.manifest, subject.machine, progress, subject.expectation)
    if found.findings:
        print(to_text(found.findings))
    print(summary(found.findings, len(subject.manifest.cases)))
    if not arguments.dry_run:
        table = arguments.output_table or subject.table
        write_text(table, to_csv(found.findings))
        print(f"table: {table}")
    if not arguments.fix:
        return exit_code(found.findings)
    repairs = plan_repairs(found)
    left = remaining(found, repairs)
    _repair(arguments, subject, found, progress)
    kept = len(subject.manifest.cases) - sum(repair.action == "drop case" for repair in repairs)
    print(f"after the repair: {summary(left, kept)}")
    if errors := [finding for finding in left if finding.severity == "error"]:
        print(f"for you to settle:\n{to_text(errors)}")
    return exit_code(found.findings if arguments.dry_run else left)


@dataclass(frozen=True)
class _Subject:
    """What is checked."""

    manifest: "Manifest"
    machine: "Machine"
    expectation: "Expectation"
    table: Path
    """Where the findings go."""
    file: Path | None
    """The manifest or configuration itself."""


def _refuse_arguments(arguments: argparse.Namespace) -> None:
    from pipeline.errors import ConfigError

    if arguments.dry_run and not arguments.fix:
        raise ConfigError("--dry-run: expected together with --fix.")
    if arguments.output and not arguments.fix:
        raise ConfigError("--output: expected together with --fix; --output-table says where the findings go.")
    if arguments.fix and not arguments.dry_run and not arguments.output:
        raise ConfigError("--fix: expected --output NEW.csv, the manifest to write, or --dry-run.")
    if not arguments.source.exists():
        raise ConfigError(f"{arguments.source}: there is no such file or folder. Correct the path.")


def _subject(arguments: argparse.Namespace, progress: "Progress") -> _Subject:
    source: Path = arguments.source
    if arguments.format:
        return _of_format(arguments, progress)
    if source.suffix in (".yaml", ".yml"):
        return _of_config(arguments, progress)
    if source.suffix == ".csv":
        return _of_manifest(arguments)
    from pipeline.errors import ConfigError

    raise ConfigError(
        f"{source}: expected a configuration (.yaml) or a manifest (.csv). For a data set's own folder or "
        "file say what it is: --format decathlon."
    )


def _of_manifest(arguments: argparse.Namespace) -> _Subject:
    from pipeline.datasets.manifest import read_manifest
    from pipeline.doctor.checkup import Expectation
    from pipeline.errors import ConfigError

    if arguments.overrides:
        raise ConfigError("--set: a manifest has no options; it goes with a configuration or with --format.")
    path: Path = arguments.source
    manifest = read_manifest(path, need_files=False)
    return _Subject(manifest, _machine(arguments), Expectation(), path.with_name(f"{path.stem}_findings.csv"), path)


def _of_format(arguments: argparse.Namespace, progress: "Progress") -> _Subject:
    import pipeline.config  # noqa: F401  a data set may be registered by a plug-in that imports it
    from pipeline.commands.arguments import named_dataset
    from pipeline.doctor.checkup import Expectation, make_files
    from pipeline.plugin import load_plugins

    load_plugins(())
    dataset, machine = named_dataset(arguments), _machine(arguments)
    manifest = dataset.cases()
    make_files(dataset, manifest, machine, progress)
    return _Subject(manifest, machine, Expectation(), Path(f"{arguments.source.resolve().stem}_findings.csv"), None)


def _of_config(arguments: argparse.Namespace, progress: "Progress") -> _Subject:
    from pipeline.commands.arguments import config_of
    from pipeline.datasets.manifest import ManifestCsv, read_manifest
    from pipeline.doctor.checkup import Expectation, make_files
    from pipeline.imaging.normalise import HuWindow

    arguments.config = arguments.source
    if arguments.workers is not None:
        arguments.overrides.append(f"machine.workers={arguments.workers}")
    config = config_of(arguments)
    dataset, normalise = config.dataset, config.normalise
    table = config.machine.runs / arguments.source.stem / "findings.csv"
    if isinstance(dataset, ManifestCsv):
        manifest = read_manifest(dataset.path, dataset.folder, need_files=False)
        table = dataset.path.with_name(f"{dataset.path.stem}_findings.csv")
    else:
        manifest = dataset.cases()
        make_files(dataset, manifest, config.machine, progress)
    if config.labels:
        manifest = manifest.model_copy(update={"labels": config.labels})
    is_hu = isinstance(normalise, HuWindow) and normalise.range_hu[0] < 0
    expectation = Expectation(
        ct_because="the config's hu_window takes it for CT" if is_hu else "", needs_labels=config.task.reads_masks
    )
    return _Subject(
        manifest, config.machine, expectation, table, dataset.path if isinstance(dataset, ManifestCsv) else None
    )


def _machine(arguments: argparse.Namespace) -> "Machine":
    from pydantic import ValidationError

    from pipeline.errors import ConfigError
    from pipeline.machine import Machine

    given = {"workers": arguments.workers, "max_memory_gb": arguments.max_memory}
    try:
        return Machine.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError:
        raise ConfigError(
            f"--workers {arguments.workers}, --max-memory {arguments.max_memory}: expected numbers above 0."
        ) from None


def _repair(arguments: argparse.Namespace, subject: _Subject, found: "CheckUp", progress: "Progress") -> None:
    """Say what is repaired; do it unless this is a dry run."""
    from pipeline.doctor.repair import log_path, make_repairs, plan_repairs, to_text
    from pipeline.errors import plural

    repairs = plan_repairs(found)
    print(f"{plural(len(repairs), 'repair')}{':' if repairs else ', nothing to do'}")
    if repairs:
        print(to_text(repairs))
    if arguments.dry_run:
        return
    manifest = make_repairs(found, repairs, arguments.output, subject.machine, progress)
    print(f"{arguments.output}: {plural(len(manifest.cases), 'case')}; what was done: {log_path(arguments.output)}")
    if arguments.source.suffix in (".yaml", ".yml"):
        print(f"to use it: --set 'dataset={{name: manifest, path: {arguments.output}}}', or the same in the config")
