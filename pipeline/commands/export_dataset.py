"""Write a data set in the layout of another program; files are linked or copied byte for byte wherever they fit.

Examples:
  python -m pipeline export-dataset nnunet data_manifests/liver.csv --output nnUNet_raw/Dataset101_Liver
  python -m pipeline export-dataset decathlon configs/liver.yaml --output Task50_Liver
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.datasets.base import Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("format", choices=("nnunet", "decathlon"), metavar="FORMAT", help="nnunet or decathlon")
    parser.add_argument("source", type=Path, metavar="CONFIG|MANIFEST", help="YAML of a run, or CSV of cases")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="the data set's folder, to be made"
    )
    parser.add_argument("--copy", action="store_true", help="copy files even where a hard link would do")
    parser.add_argument("--leave-out", action="store_true",
                        help="leave out cases labelled in part or without a channel")  # fmt: skip
    parser.add_argument("--workers", type=int, metavar="N", help="processes that convert (default: one a core)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="change an option of the config; may be given several times")  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Write the data set."""
    from pipeline.datasets.exports.decathlon import export_decathlon
    from pipeline.datasets.exports.nnunet import export_nnunet
    from pipeline.machine import core_count
    from pipeline.progress import TerminalProgress

    manifest = _manifest(arguments)
    export = export_nnunet if arguments.format == "nnunet" else export_decathlon
    made = export(manifest, arguments.output, leave_out=arguments.leave_out, copy=arguments.copy,
                  workers=arguments.workers or core_count(), progress=TerminalProgress())  # fmt: skip
    told = ", ".join(f"{count} {'there already' if how == 'there' else how}" for how, count in made.items() if count)
    print(f"{arguments.output}: {sum(made.values())} files: {told}")
    if made["linked"]:
        print("Linked files are the sources themselves under a second name: do not write into them (--copy avoids it).")
    if arguments.format == "nnunet" and (arguments.output / "splits_final.json").exists():
        print(f"folds: copy splits_final.json to nnUNet_preprocessed/{arguments.output.name}/ after nnU-Net's planning")
    return 0


def _manifest(arguments: argparse.Namespace) -> "Manifest":
    """Return the cases of a manifest or a config; volumes that a data set makes itself are made."""
    import pipeline.config  # noqa: F401  brings every registry into being
    from pipeline.datasets.manifest import read_manifest

    if arguments.source.suffix.lower() == ".csv":
        return read_manifest(arguments.source)
    from pipeline.commands.arguments import config_of

    arguments.config = arguments.source
    config = config_of(arguments)
    manifest = config.dataset.cases()
    if config.dataset.makes_files:
        for case in manifest.cases:
            config.dataset.write_files(case)
    return manifest.model_copy(update={"labels": config.labels}) if config.labels else manifest
