"""Show how the cases are divided into folds: the balance of each fold, and an audit of what leaks between them.

Every case is looked at first, as `run` does; what was seen is remembered. A group or an image that lies in two folds,
or in a fold and in test, is an error (exit code 2), unless the config says `folds: {allow_leakage: true}`.

Examples:
  python -m pipeline folds configs/lung_nodules.yaml
  python -m pipeline folds configs/lung_nodules.yaml --set folds.leave_one_site_out=true --output folds.csv
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="YAML file, such as configs/ct.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change an option, e.g. folds.k=3; may be given several times")  # fmt: skip
    parser.add_argument("--output", type=Path, metavar="CSV",
                        help="also write case_id, group, site, split and fold; 'folds.file' reads it")  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Print the balance and the audit; return 1 where cases could not be looked at."""
    from pipeline import planner
    from pipeline.commands.arguments import config_of
    from pipeline.datasets.fold_audit import audit_text, contents_of, find_leaks, fold_balance, refuse_leaks
    from pipeline.datasets.folds import write_folds_csv
    from pipeline.errors import plural
    from pipeline.progress import TerminalProgress
    from pipeline.run import divide, survey
    from pipeline.stages.ingest import label_volumes

    config = config_of(arguments)
    facts = survey(config, TerminalProgress())
    if any(path.startswith("folds.") for path in config.left_open):
        config = planner.resolve(config, facts, Path(), write=False)
    # Divided with leakage allowed, so that the table shows what the audit complains about.
    open_config = config.model_copy(update={"folds": config.folds.model_copy(update={"allow_leakage": True})})
    folds, cases = divide(open_config, facts), facts.manifest.cases
    contents = contents_of(facts.facts)
    leaks = find_leaks(cases, folds, config.folds, contents)
    print(_table(fold_balance(cases, folds, label_volumes(facts))))
    print()
    print(audit_text(leaks, contents, len({case.patient for case in cases})))
    for reason in facts.bad.values():
        print(f"left out: {reason}")
    refuse_leaks(leaks, config.folds)
    if leaks:
        print("allowed by folds.allow_leakage: the report will say so on top")
    if arguments.output is not None:
        write_folds_csv(arguments.output, cases, folds)
        print(f"{arguments.output}: folds of {plural(len(folds), 'case')}")
    return 1 if facts.bad else 0


def _table(balance: "pd.DataFrame") -> str:
    """Lay the balance out with one line a figure and one column a fold, since classes and sites may be many."""
    heads = ["", *(name if name == "test" else f"fold {name}" for name in balance["fold"])]
    rows = [[column, *map(_number, balance[column])] for column in balance.columns if column != "fold"]
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [heads, *rows]
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.4g}"
