"""What the columns of a table of figures are called in text, and in which unit they are."""

_LABELS = {"dice": "Dice", "hd95_mm": "HD95", "assd_mm": "ASSD"}
_UNITS = (("_mm", "mm"), ("_ml", "ml"), ("_percent", "%"))


def label_of(column: str) -> str:
    """Return how a column is called in text: `hd95_mm` is HD95, `nsd_2mm` is NSD at 2 mm."""
    if column.startswith("nsd_"):
        return f"NSD at {column.removeprefix('nsd_').removesuffix('mm')} mm"
    return _LABELS.get(column, column.replace("_", " "))


def unit_of(column: str) -> str:
    """Return the unit that a column's name ends with; empty for shares."""
    return next((unit for ending, unit in _UNITS if column.endswith(ending)), "")


def is_volume(column: str) -> bool:
    """Say whether a column is a volume or its error, which have a table of their own."""
    return column.endswith(("_ml", "_percent"))
