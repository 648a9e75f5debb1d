"""Predict a case again from its record, and compare: input, model, mask bit by bit; tells what differs.

Example:
  python -m pipeline verify predictions/provenance/case_01.json
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("record", type=Path, metavar="RECORD", help="OUT/provenance/CASE.json")
    parser.add_argument("--model", type=Path, metavar="MODEL", help="where the model lies now, if it was moved")
    parser.add_argument("--input", type=Path, nargs="+", metavar="INPUT", dest="inputs",
                        help="where the input lies now, if it was moved; found by its content")  # fmt: skip
    parser.add_argument("--roi", type=Path, metavar="FOLDER", help="regions of interest, if any were given")
    parser.add_argument("--rules", type=Path, metavar="YAML", help="as given when predicting; for several channels")
    parser.add_argument("--allow-uneven", action="store_true", help="as it was given when predicting")
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE", dest="plugins",
                        help="a module of your own that the model's network comes from")  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Print what was compared; return 1 where anything but versions differs."""
    from pipeline.batch.child import read_in
    from pipeline.batch.inputs import find_files
    from pipeline.batch.record import read_record
    from pipeline.batch.unattended import Unattended
    from pipeline.batch.verify import verify
    from pipeline.errors import ConfigError
    from pipeline.plugin import load_plugins

    load_plugins(arguments.plugins, search=Path())
    record = read_record(arguments.record)
    if record is None:
        raise ConfigError(f"{arguments.record}: no record of a prediction; expected OUT/provenance/CASE.json.")
    channels = tuple(dict.fromkeys(str(one["channel"]) for one in record.input["files"]))
    found, rest = find_files(arguments.inputs, channels) if arguments.inputs else (None, ())
    where = {"model": arguments.model, "roi": arguments.roi}
    folder = arguments.record.resolve().parent.parent
    asked = Unattended(
        channels=channels, model=str(arguments.model or record.model.get("path", "")), rules=arguments.rules,
        allow_uneven=arguments.allow_uneven,
    )  # fmt: skip
    if found is not None and rest:
        found = found + asked.find(rest)
    with asked.child() as child:
        read = read_in(child, channels, allow_uneven=arguments.allow_uneven)
        findings = verify(record, folder, found=found, read=read, **where)
    for finding in findings:
        detail = f": {finding.says}" if finding.says and not finding.is_equal else ""
        print(f"{finding.what:13} {'equal' if finding.is_equal else 'DIFFERS'}{detail}")
    wrong = [finding for finding in findings if not finding.is_equal and finding.what != "versions"]
    print(f"case {record.case_id}: {'differs' if wrong else 'the same, bit by bit'}")
    return 1 if wrong else 0
