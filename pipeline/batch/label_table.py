"""What the values of predicted masks mean, in files beside them: JSON, and a table of colours for ITK-SNAP."""

import colorsys
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.imaging.labels import Labels
from pipeline.workspace import write_json, write_text

_CLEAR = '    0     0    0    0        0  0  0    "Clear Label"'
_GOLDEN = 0.618034
"""Steps of this share of the circle of hues never come back to a near one."""


def write_label_table(labels: Labels, folder: Path) -> None:
    """Write `labels.json` and `labels.txt`.

    Args:
        labels: Of the recipe.
        folder: That of the masks.

    Raises:
        ConfigError: masks of another meaning lie there.
    """
    meaning = {"labels": {str(value): name for value, name in _values(labels).items()}}
    regions = {"regions": {name: list(members) for name, members in labels.regions.items()}} if labels.regions else {}
    _refuse_other(folder, meaning | regions)
    write_json(folder / "labels.json", meaning | regions)
    lines = ["# ITK-SNAP label description: IDX R G B A VIS MESH LABEL", _CLEAR]
    for number, (value, name) in enumerate(item for item in _values(labels).items() if item[0] != 0):
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 0.95))
        lines.append(f'{value:5d}  {red:4d} {green:4d} {blue:4d}        1  1  1    "{name}"')
    write_text(folder / "labels.txt", "\n".join(lines) + "\n")


def _refuse_other(folder: Path, meaning: Mapping[str, Any]) -> None:
    """Make sure that no mask gets a table of labels that are not its own."""
    try:
        there = json.loads((folder / "labels.json").read_text())
    except (OSError, ValueError):
        return
    if there != meaning and any(folder.glob("*.nii.gz")):
        raise ConfigError(
            f"{folder}: it holds masks whose values mean something else (labels.json); expected masks of one model. "
            "Give another --output, or delete them."
        )


def _values(labels: Labels) -> dict[int, str]:
    return dict(zip(labels.value_of_index(), labels.classes, strict=True))
