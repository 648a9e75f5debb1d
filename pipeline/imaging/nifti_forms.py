"""What a NIfTI header says beside the grid that is read: its unit, its slope, and whether its two forms agree."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.geometry import affine, shear_degrees
from pipeline.imaging.nifti import LAYOUTS
from pipeline.imaging.streams import open_checked
from pipeline.imaging.volume import Geometry

Matrix = NDArray[np.float64]

_UNITS = {1: "metre", 2: "mm", 3: "micrometre"}
_MM_PER_UNIT = {"metre": 1000.0, "micrometre": 0.001}
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Forms:
    """What a header says of units, scaling and its two transforms (qform and sform)."""

    unit: str = ""
    """`metre`, `mm`, `micrometre`, or empty where the header names none."""
    slope: float = 1.0
    """Factor from stored values to intensities; 1 where the header has none."""
    intercept: float = 0.0
    has_qform: bool = False
    has_sform: bool = False
    apart_mm: float = 0.0
    """How far the forms put one corner of the image from each other; 0 where only one is there."""
    used: str = ""
    """`qform` or `sform`: by which the grid was read, `sform` where they are equal; empty without either."""
    sform_shear_degrees: float = 0.0
    """How far the most slanted axes of the sform are off a right angle."""


def read_forms(path: Path, geometry: Geometry) -> Forms:
    """Read the header of a NIfTI file that `read_nifti` accepted.

    Args:
        path: `.nii` or `.nii.gz`.
        geometry: The grid that `read_nifti` gave.

    Raises:
        DataError: the file cannot be opened.
    """
    found = _fields(path)
    unit = _UNITS.get(int(found["units"]) & 7, "")
    scale = np.diag([*[_MM_PER_UNIT.get(unit, 1.0)] * 3, 1.0])
    qform = scale @ _qform(found) if found["qform"] > 0 else None
    sform = scale @ np.vstack([found["srow"].astype(float), [0, 0, 0, 1]]) if found["sform"] > 0 else None
    slope, intercept = float(found["slope"]), float(found["inter"])
    has_slope = np.isfinite(slope) and slope != 0
    return Forms(
        unit=unit,
        slope=slope if has_slope else 1.0,
        intercept=intercept if has_slope and np.isfinite(intercept) else 0.0,
        has_qform=qform is not None,
        has_sform=sform is not None,
        apart_mm=0.0 if qform is None or sform is None else _apart(qform, sform, geometry),
        used=_nearest({"qform": qform, "sform": sform}, geometry),
        sform_shear_degrees=0.0 if sform is None else shear_degrees(sform[:3, :3].ravel().tolist()),
    )


def _fields(path: Path) -> Any:
    with open_checked(path) as stream:
        start = stream.read(4)
        order = "<" if int.from_bytes(start, "little") in LAYOUTS else ">"
        length = int.from_bytes(start, "little" if order == "<" else "big")
        block = start + stream.read(length - 4)
    return np.frombuffer(block, _layout(length).newbyteorder("<" if order == "<" else ">"))[0]


@cache
def _layout(length: int) -> np.dtype[Any]:
    fields = LAYOUTS[length][0]
    formats, offsets = zip(*fields.values(), strict=True)
    layout: Any = {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": length}
    found: np.dtype[Any] = np.dtype(layout)
    return found


def _qform(found: Any) -> Matrix:
    """Return the 4 x 4 matrix of the quaternion: "method 2" of the definition of NIfTI-1."""
    b, c, d, *offset = (float(value) for value in found["quaternion"])
    a = max(0.0, 1.0 - (b * b + c * c + d * d)) ** 0.5
    rotation = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    steps = np.asarray(found["pixdim"][1:4], float)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * steps * [1, 1, -1 if found["pixdim"][0] < 0 else 1]
    matrix[:3, 3] = offset
    return matrix


def _apart(a: Matrix, b: Matrix, geometry: Geometry) -> float:
    """Return the largest distance in mm between the corners of the grid under two matrices of (x, y, z) indices."""
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.asarray(geometry.shape[::-1]) - 1.0)
    moved = corners @ (a - b)[:3, :3].T + (a - b)[:3, 3]
    return float(np.linalg.norm(moved, axis=1).max())


def _nearest(forms: dict[str, Matrix | None], geometry: Geometry) -> str:
    """Name the form by which the grid was read: the one nearest to it, the sform where both are."""
    read = _TO_LPS @ affine(geometry)
    read[:3, :3] = read[:3, 2::-1]
    distance = {name: _apart(form, read, geometry) for name, form in forms.items() if form is not None}
    return min(distance, key=lambda name: (round(distance[name], 3), name == "qform"), default="")
