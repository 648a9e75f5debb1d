"""Values of DICOM elements, read without pydicom's costly conversions and never raising on a damaged one."""

import math
from typing import Any


def text(dataset: Any, tag: int) -> str:
    """Return an element as one line of printable text; empty where it is absent or empty."""
    value = _value(dataset, tag)
    if isinstance(value, bytes):
        value = value.decode("ascii") if value.isascii() else _converted(dataset, tag)
    if type(value).__name__ == "Sequence":
        return ""  # written out, its items could name anybody
    if isinstance(value, list | tuple) or type(value).__name__ == "MultiValue":
        value = "\\".join(str(part) for part in value)
    line = "".join(letter if letter.isprintable() else " " for letter in str("" if value is None else value))
    return " ".join(line.split())


def texts(dataset: Any, tag: int) -> tuple[str, ...]:
    """Return the values of a multi-valued text element."""
    line = text(dataset, tag)
    return tuple(part.strip() for part in line.split("\\")) if line else ()


def numbers(dataset: Any, tag: int) -> tuple[float, ...]:
    """Return the finite values of a decimal or integer string; empty where absent, or where one is no number."""
    try:
        values = tuple(float(part) for part in texts(dataset, tag))
    except ValueError:
        return ()
    return values if all(math.isfinite(value) for value in values) else ()


def number(dataset: Any, tag: int) -> float | None:
    """Return the first value of a decimal or integer string, or None."""
    values = numbers(dataset, tag)
    return values[0] if values else None


def number_or(dataset: Any, tag: int, default: float) -> float:
    """Return the first value of a decimal string: `default` where it is absent, NaN where it is no finite number."""
    value = number(dataset, tag)
    if value is not None:
        return value
    return math.nan if text(dataset, tag) else default


def binary(dataset: Any, tag: int) -> float | None:
    """Return the first value of an element stored as a binary number (US, UL, FD, ...), or None."""
    value = _converted(dataset, tag)
    if type(value).__name__ == "MultiValue" or isinstance(value, list | tuple):
        value = value[0] if len(value) else None
    try:
        return None if value is None or not math.isfinite(float(value)) else float(value)
    except (TypeError, ValueError):
        return None


def whole(dataset: Any, tag: int, default: int = 0) -> int:
    """Return a binary whole number, or `default`."""
    value = binary(dataset, tag)
    return default if value is None else int(value)


def word(dataset: Any, tag: int, *, signed: bool) -> int | None:
    """Return a 16-bit word whose sign the pixel representation decides (VR `US or SS`), or None."""
    element = dataset.get_item(tag)
    value = getattr(element, "value", None)
    if isinstance(value, bytes) and len(value) >= 2:
        order = "little" if getattr(element, "is_little_endian", True) else "big"
        return int.from_bytes(value[:2], order, signed=signed)  # type: ignore[arg-type]
    return int(value) if isinstance(value, int) else None


def items(dataset: Any, tag: int) -> list[Any]:
    """Return the items of a sequence; empty where it is absent or damaged."""
    value = _converted(dataset, tag)
    return list(value) if type(value).__name__ == "Sequence" else []


def _value(dataset: Any, tag: int) -> Any:
    element = dataset.get_item(tag)
    return None if element is None else element.value


def _converted(dataset: Any, tag: int) -> Any:
    """Let pydicom convert; what it cannot, for whatever reason, counts as absent."""
    try:
        return dataset[tag].value if tag in dataset else None
    except Exception:
        return None
