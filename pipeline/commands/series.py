"""List the series of a scanner's export: which can be used, which cannot, and why. No pixel is decoded.

Examples:
  python -m pipeline series EXPORT
  python -m pipeline series EXPORT --csv series.csv --rules rules.yaml
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.dicom.rules import Rules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", type=Path, nargs="+", metavar="FOLDER", help="folders, looked through whole")
    parser.add_argument("--csv", type=Path, metavar="CSV", help="write the table with all its columns to this file")
    parser.add_argument("--rules", type=Path, metavar="YAML", help="rules that choose series; tells what each would do")
    parser.add_argument("--key", type=Path, metavar="FILE", help="show keyed hashes of the UIDs, with this file as key")
    parser.add_argument("--allow-uneven", action="store_true", help="accept uneven steps, to be resampled to even ones")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read headers (default: one a core)")


def main(arguments: argparse.Namespace) -> int:
    """Print the table; return the exit code."""
    from pipeline.batch.exports import read_key
    from pipeline.dicom import table
    from pipeline.dicom.audit import audit
    from pipeline.dicom.rules import select
    from pipeline.machine import core_count
    from pipeline.progress import TerminalProgress
    from pipeline.workspace import write_text

    rules = _rules(arguments.rules)
    key = read_key(arguments.key) if arguments.key else None
    found = audit(arguments.folder, workers=arguments.workers or core_count(), allow_uneven=arguments.allow_uneven,
                  progress=TerminalProgress())  # fmt: skip
    rows = table.rows(found, select(found.judged, rules) if rules else None, key)
    if arguments.csv:
        write_text(arguments.csv, table.to_csv(rows))
    if rows:
        print(table.to_text(rows))
    print(found.text())
    return 0


def _rules(path: Path | None) -> "Rules | None":
    if path is None:
        return None
    from pipeline.config import read_yaml
    from pipeline.dicom.rules import parse_rules

    return parse_rules(read_yaml(path), str(path))
