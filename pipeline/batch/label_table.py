"""What the values of predicted masks mean, in files beside them: JSON, and a table of colours for ITK-SNAP."""

import colorsys
from pathlib import Path

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
    """
    meaning = {"labels": {str(value): name for value, name in _values(labels).items()}}
    regions = {"regions": {name: list(members) for name, members in labels.regions.items()}} if labels.regions else {}
    write_json(folder / "labels.json", meaning | regions)
    lines = ["# ITK-SNAP label description: IDX R G B A VIS MESH LABEL", _CLEAR]
    for number, (value, name) in enumerate(item for item in _values(labels).items() if item[0] != 0):
        red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 0.95))
        lines.append(f'{value:5d}  {red:4d} {green:4d} {blue:4d}        1  1  1    "{name}"')
    write_text(folder / "labels.txt", "\n".join(lines) + "\n")


def _values(labels: Labels) -> dict[int, str]:
    return dict(zip(labels.value_of_index(), labels.classes, strict=True))
