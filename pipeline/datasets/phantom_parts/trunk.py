"""The whole trunk, painted from the outside in: couch, wall, chest, belly, vessels, bones."""

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.phantom_parts.belly import paint_belly
from pipeline.datasets.phantom_parts.body import EVERYWHERE, NOTHING, Body, Trunk, Visit
from pipeline.datasets.phantom_parts.bones import paint_bones
from pipeline.datasets.phantom_parts.canvas import Array, Axes
from pipeline.datasets.phantom_parts.chest import paint_chest
from pipeline.datasets.phantom_parts.vessels import paint_vessels

_TABLE_HALF_MM = 205.0


def paint_trunk(body: Body, visit: Visit, axes: Axes, edge_mm: float) -> tuple[Array, NDArray[np.uint8]]:
    """Draw a patient on a grid along the patient's axes; later shapes cover earlier ones.

    Args:
        body: The patient.
        visit: The scan.
        axes: Positions in mm along z (towards the head), y (towards the back) and x (towards the left). Of
            the trunk, z from about -200 to 180 is drawn.
        edge_mm: Width over which tissues mix at an edge: about a voxel.

    Returns:
        Intensities in HU without noise, and labels; both (Z, Y, X).
    """
    trunk = Trunk(body, visit, axes, edge_mm)
    _paint_table(trunk)
    _paint_wall(trunk)
    paint_chest(trunk)
    paint_belly(trunk)
    paint_vessels(trunk)
    paint_bones(trunk)
    return trunk.canvas.hu, trunk.canvas.label


def _paint_table(trunk: Trunk) -> None:
    """Paint the couch, hollow and curved, and the mattress, whose foam is as dark as lung."""
    canvas, visit = trunk.canvas, trunk.visit
    _, y, x = np.meshgrid(*canvas.axes, indexing="ij", sparse=True)
    top = trunk.body.depth + visit.shift[1] + 4 - 26 * (np.abs(x) / 190) ** 2
    foam = np.maximum(np.abs(y - top) - visit.mattress_mm, np.abs(x) - _TABLE_HALF_MM)
    foam_hu = visit.mattress_hu + 9 * trunk.noise["fine"]
    canvas.paint(EVERYWHERE, np.broadcast_to(foam, canvas.hu.shape), foam_hu, NOTHING)
    board = y - top - visit.mattress_mm - 3
    shell = np.maximum(np.abs(np.abs(board - 8) - 8) - 1.6, np.abs(x) - _TABLE_HALF_MM)
    canvas.paint(EVERYWHERE, np.broadcast_to(shell, canvas.hu.shape), 220, NOTHING)


def _paint_wall(trunk: Trunk) -> None:
    """Paint skin, subcutaneous fat, muscle in layers, and the fat that fills the cavity."""
    canvas, noise, muscle = trunk.canvas, trunk.noise, trunk.muscle
    canvas.paint(EVERYWHERE, trunk.skin, 20, NOTHING)
    fat = -104 + 5 * noise["fine"] + 22 * np.clip(noise["loops"] - 1.6, 0, 1)
    canvas.paint(EVERYWHERE, trunk.skin + 2.2, fat, NOTHING)
    flesh = 54 + 4 * noise["fine"] - 22 * np.clip(noise["fine"] - 1.0, 0, 1.5)
    canvas.paint(EVERYWHERE, muscle, flesh, NOTHING)
    seam = np.abs(muscle + 9 + 2 * noise["organ"]) - 0.7
    for depth in (17, 30):
        seam = np.minimum(seam, np.abs(muscle + depth + (3 + 0.2 * depth) * noise["wide"]) - 0.6)
    canvas.paint(EVERYWHERE, np.maximum(seam, muscle + 3), -50, NOTHING)
    midline = np.maximum(np.abs(canvas.at_x) - 2.5, np.maximum(canvas.at_y + 30, canvas.at_z + 10))
    canvas.paint(EVERYWHERE, np.maximum(midline, muscle), -60, NOTHING)
    canvas.paint(EVERYWHERE, trunk.cavity, -98 + 9 * noise["fine"], NOTHING)
