"""Put a trained model into one file: weights, recipe, label names, metrics and a model card, with their sha256.

Example:
  python -m pipeline package runs/ct --output ct.zip
  python -m pipeline predict ct.zip scans/ --output predictions
"""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, such as runs/ct, or that of one training")
    parser.add_argument("--output", type=Path, required=True, metavar="ZIP", help="file to write")
    parser.add_argument("--fold", type=int, metavar="N", help="only the model of this fold (default: all, as ensemble)")
    parser.add_argument("--name", default="", help="name of the model (default: that of the run)")
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE", dest="plugins",
                        help="a module of your own that the model's network comes from")  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Write the package, open it again as a stranger would, and say what it is."""
    from pipeline.errors import plural
    from pipeline.learning.models import open_source, trainings
    from pipeline.learning.pack import pack
    from pipeline.learning.trained import load
    from pipeline.plugin import load_plugins

    load_plugins(arguments.plugins, search=Path())
    sha256 = pack(arguments.run, arguments.output, arguments.fold, arguments.name)
    packed = open_source(arguments.output)
    for model in packed.models:
        load(model)
    for note in trainings(arguments.run)[1] if arguments.fold is None else ():
        print(note)
    size = arguments.output.stat().st_size / 1e6
    print(f"{arguments.output}: {plural(len(packed.models), 'model')}, {size:.1f} MB, sha256 {sha256}")
    return 0
