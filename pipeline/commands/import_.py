"""Write the manifest of a data set: a CSV of cases and a YAML of labels beside it; no volume is copied.

Examples:
  python -m pipeline import decathlon Task04_Hippocampus --output data_manifests/hippocampus.csv
  python -m pipeline import lidc_nodules lidc_nodules --output data_manifests/lung_nodules.csv
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.datasets.base import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "format", metavar="FORMAT", help="a data set plug-in; 'python -m pipeline options dataset' lists them"
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="its folder or file")
    parser.add_argument("--output", type=Path, required=True, metavar="CSV", help="manifest to write, ending in .csv")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
                        help="an option of the data set; may be given several times")  # fmt: skip


def main(arguments: argparse.Namespace) -> int:
    """Write the manifest."""
    import pipeline.config  # noqa: F401  a data set may be registered by a plug-in that imports it
    from pipeline.datasets.write_manifest import write_manifest
    from pipeline.errors import plural
    from pipeline.plugin import load_plugins

    load_plugins(())
    dataset = _dataset(arguments)
    manifest = dataset.cases()
    write_manifest(manifest, arguments.output)
    groups = {case.patient for case in manifest.cases}
    print(f"{arguments.output}: {plural(len(manifest.cases), 'case')} of {plural(len(groups), 'group')}")
    return 0


def _dataset(arguments: argparse.Namespace) -> "Dataset":
    from pydantic import ValidationError

    from pipeline.config import merge, problems
    from pipeline.config import override as parse_override
    from pipeline.datasets.base import datasets
    from pipeline.errors import ConfigError, join_problems

    cls = datasets.get(arguments.format)
    field = "folder" if "folder" in cls.model_fields and "path" not in cls.model_fields else "path"
    if field not in cls.model_fields:
        raise ConfigError(
            f"import {arguments.format}: this data set reads no folder or file; name it in a config instead."
        )
    options: dict[str, object] = {"name": arguments.format, field: str(arguments.source)}
    for text in arguments.overrides:
        options = merge(options, parse_override(text))
    try:
        return cls.model_validate(options)
    except ValidationError as error:
        raise ConfigError(join_problems(f"import {arguments.format}", list(problems(error.errors(), cls)))) from None
