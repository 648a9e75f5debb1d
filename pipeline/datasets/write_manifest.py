"""Writing a manifest down: the CSV, and the YAML beside it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.manifest import COLUMNS, SEPARATOR, absolute, is_beside_manifest
from pipeline.errors import ConfigError
from pipeline.imaging.labels import Labels
from pipeline.workspace import write_text

if TYPE_CHECKING:
    import pandas as pd


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write `x.csv`, and `x.yaml` beside it for what a table cannot hold; volumes stay where they are.

    Paths are written relative to the manifest's folder wherever a relative path exists, so that the
    manifest and the data can be moved together. Both files are renamed into place, the CSV last.
    `read_manifest` gives an equal manifest back.

    Raises:
        ConfigError: a file of another kind would be written over.
    """
    import yaml

    refuse_foreign(path)
    home = absolute(path).parent
    home.mkdir(parents=True, exist_ok=True)
    metadata = {key: value for key, value in manifest.metadata.items() if key != "columns"}
    beside = _labels_to_yaml(manifest.labels) | {
        key: value
        for key, value in (
            ("channels", list(manifest.channels) if manifest.channels != ("image",) else None),
            ("optional_channels", list(manifest.optional_channels)),
            ("class_names", list(manifest.class_names)),
            ("metadata", metadata),
        )
        if value
    }
    yaml_path = path.with_suffix(".yaml")
    if beside or yaml_path.exists():
        write_text(yaml_path, yaml.safe_dump(beside, sort_keys=False, allow_unicode=True, width=120))
    write_text(path, _to_table(manifest, home).to_csv(index=False, lineterminator="\n"))


def refuse_foreign(path: Path) -> None:
    """Make sure that a manifest written to `path` replaces a manifest or nothing.

    Raises:
        ConfigError: `path` is no CSV, or the YAML beside it is no manifest's, such as a configuration.
    """
    if path.suffix.lower() != ".csv":
        raise ConfigError(f"--output {path}: expected a manifest to write, ending in .csv.")
    beside = path.with_suffix(".yaml")
    if beside.exists() and not is_beside_manifest(beside):
        raise ConfigError(
            f"--output {path}: {beside} would be written too, but it is there and is not of a manifest. Name another."
        )


def _to_table(manifest: Manifest, home: Path) -> "pd.DataFrame":
    """Return the rows as text; optional columns that are empty throughout are left out."""
    import pandas as pd

    rows = []
    for case in manifest.cases:
        row = {"case_id": case.case_id}
        for channel in manifest.channels:
            column = "image" if manifest.channels == ("image",) else f"image_{channel}"
            row[column] = _relative(case.images[channel], home) if channel in case.images else ""
        row |= {
            "label": _relative(case.label, home) if case.label else "",
            "class": SEPARATOR.join(case.classes),
            "group": case.group,
            "site": case.site,
            "split": case.split,
            "fold": "" if case.fold is None else str(case.fold),
            "annotated": _annotated(case),
        }
        row |= {
            name: str(values.get(case.case_id, "")) for name, values in manifest.metadata.get("columns", {}).items()
        }
        rows.append(row)
    table = pd.DataFrame(rows)
    return table[[c for c in table.columns if c not in COLUMNS[2:] or (table[c] != "").any()]]


def _annotated(case: Case) -> str:
    """Write the classes that were labelled: nothing for all, a bar alone for none."""
    return "" if case.annotated is None else SEPARATOR.join(case.annotated) or SEPARATOR


def _labels_to_yaml(labels: Labels) -> dict[str, Any]:
    short: dict[str, Any] = {"labels": dict(labels.values)}
    if labels.regions:
        short["regions"] = {name: list(members) for name, members in labels.regions.items()}
    if labels.mirror_pairs:
        short["mirror_pairs"] = [list(pair) for pair in labels.mirror_pairs]
    return short if labels else {}


def _relative(path: Path, home: Path) -> str:
    path = absolute(path)
    if path.is_relative_to(home):
        return path.relative_to(home).as_posix()
    return Path(os.path.relpath(path.parent.resolve() / path.name, home.resolve())).as_posix()
