"""Write the manifest of a data set: a CSV of cases and a YAML of labels beside it; no volume is copied.

Where the source does not say what the label values mean, the labels are read once, and names are made up.

Examples:
  python -m pipeline import folder liver_scans --output data_manifests/liver.csv --labels "{1: liver, 2: tumour}"
  python -m pipeline import decathlon Task04_Hippocampus --output data_manifests/hippocampus.csv
  python -m pipeline import nnunet nnUNet_raw/Dataset101_Liver --output data_manifests/liver.csv
  python -m pipeline import bids study --output data_manifests/study.csv --set suffixes=[T1w] --set label_suffix=mask
"""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.datasets.base import Manifest
    from pipeline.imaging.labels import Labels

_MOST_NAMES = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "format", metavar="FORMAT", help="a data set plug-in; 'python -m pipeline options dataset' lists them"
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="its folder or file")
    parser.add_argument("--output", type=Path, required=True, metavar="CSV", help="manifest to write, ending in .csv")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="an option of the data set; may be given several times")  # fmt: skip
    parser.add_argument("--labels", metavar="YAML", help="what the label values mean, such as '{1: liver, 2: tumour}'")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read labels (default: one a core)")


def main(arguments: argparse.Namespace) -> int:
    """Write the manifest."""
    import pipeline.config  # noqa: F401  a data set may be registered by a plug-in that imports it
    from pipeline.commands.arguments import named_dataset
    from pipeline.datasets.write_manifest import refuse_foreign, write_manifest
    from pipeline.errors import ConfigError, plural
    from pipeline.plugin import load_plugins

    refuse_foreign(arguments.output)
    if arguments.output.resolve() == arguments.source.resolve():
        raise ConfigError(f"--output {arguments.output}: it is the source, which is never modified. Name another.")
    load_plugins(())
    dataset = named_dataset(arguments)
    if "labels_folder" in type(dataset).model_fields and getattr(dataset, "labels_folder", None) is None:
        folder = arguments.output.with_name(f"{arguments.output.stem}_labels")
        dataset = dataset.model_copy(update={"labels_folder": folder})
    manifest = dataset.cases()
    labels, is_made_up = _labels(arguments, manifest)
    if labels:
        manifest = manifest.model_copy(update={"labels": labels})
    write_manifest(manifest, arguments.output)
    groups = {case.patient for case in manifest.cases}
    print(f"{arguments.output}: {plural(len(manifest.cases), 'case')} of {plural(len(groups), 'group')}")
    _describe(manifest, arguments.output, is_made_up=is_made_up)
    return 0


def _labels(arguments: argparse.Namespace, manifest: "Manifest") -> tuple["Labels | None", bool]:
    """Return the labels to write, where others than the source's, and whether their names were made up."""
    from pydantic import ValidationError

    from pipeline.config import override
    from pipeline.datasets.label_names import name_values
    from pipeline.datasets.manifest import labels_beside
    from pipeline.errors import ConfigError
    from pipeline.imaging.labels import Labels
    from pipeline.machine import core_count
    from pipeline.progress import TerminalProgress

    if arguments.labels:
        try:
            return Labels.model_validate(override(f"labels={arguments.labels}")["labels"]), False
        except ValidationError:
            raise ConfigError(
                f"--labels {arguments.labels}: expected values and names, such as '{{0: background, 1: liver}}'."
            ) from None
    if manifest.labels or not any(case.label for case in manifest.cases):
        return None, False
    if kept := labels_beside(arguments.output):
        print(f"labels kept as {arguments.output.with_suffix('.yaml')} names them; --labels changes them")
        return kept, False
    return name_values(manifest.cases, arguments.workers or core_count(), TerminalProgress()), True


def _describe(manifest: "Manifest", path: Path, *, is_made_up: bool) -> None:
    """Say what was found, and the command to go on with."""
    layout = manifest.metadata.get("layout")
    if layout:
        print(f"found as: {', '.join(f'{name} {text}' for name, text in layout.items())}")
    if manifest.channels != ("image",):
        print(f"channels: {', '.join(manifest.channels)}")
    if manifest.labels:
        named = [f"{value} {name}" for value, name in manifest.labels.values.items()]
        more = f", and {len(named) - _MOST_NAMES} more" if len(named) > _MOST_NAMES else ""
        print(f"labels: {', '.join(named[:_MOST_NAMES])}{more}")
    if is_made_up:
        print(f"The names of the labels are made up: give yours with --labels, or in {path.with_suffix('.yaml')}.")
    print(f"next: python -m pipeline plan {shlex.quote(str(path))} --output {shlex.quote(f'configs/{path.stem}.yaml')}")
