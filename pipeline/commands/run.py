"""Run a configuration, stage by stage, for every fold; what was made before is used again.

Examples:
  python -m pipeline run configs/ct.yaml
  python -m pipeline run configs/ct.yaml --set train.epochs=5 --folds 0,2
  python -m pipeline run configs/ct.yaml --dry-run
"""

import argparse
from pathlib import Path

STAGES = ("survey", "ingest", "sample", "train", "predict", "evaluate", "report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML file, such as configs/ct.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change an option, e.g. train.epochs=5; may be given several times")  # fmt: skip
    parser.add_argument(
        "--folds", default="all", help="which folds: 'all' (default), '0,2', or 'none': one model on all cases"
    )
    parser.add_argument("--until", choices=STAGES, help="stop after this stage")
    parser.add_argument("--max-memory", type=float, metavar="GB", help="short for --set machine.max_memory_gb=GB")
    parser.add_argument("--rehash", action="store_true", help="forget the remembered hashes of source files")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done and touch nothing")


def main(arguments: argparse.Namespace) -> int:
    """Run the configuration; return the exit code."""
    from pipeline.commands.arguments import config_of, folds_of
    from pipeline.imaging.compiled import keep_kernels_in
    from pipeline.progress import TerminalProgress
    from pipeline.run import dry_run, run

    config = config_of(arguments)
    folds = folds_of(arguments.folds)
    if arguments.dry_run:
        print(dry_run(config, name=arguments.config.stem, folds=folds, until=arguments.until))
        return 0
    keep_kernels_in(config.machine.kernels)
    outcome = run(config, name=arguments.config.stem, folds=folds, until=arguments.until,
                  progress=TerminalProgress(), rehash=arguments.rehash)  # fmt: skip
    print(outcome.text())
    return outcome.exit_code
