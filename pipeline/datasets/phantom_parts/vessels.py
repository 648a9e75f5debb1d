"""The great vessels: aorta with its branches, veins to the heart, lung artery."""

import numpy as np

from pipeline.datasets.phantom_parts.body import NOTHING, VESSEL, Trunk
from pipeline.datasets.phantom_parts.canvas import Point


def paint_vessels(trunk: Trunk) -> None:
    """Paint the vein trunk first, then the arteries that lie in front of it."""
    _paint_veins(trunk)
    _paint_kidney_vessels(trunk)
    _paint_arteries(trunk)
    canvas, blood = trunk.canvas, trunk.hu.heart
    canvas.paint_tube([(8, -38, 60), (12, -20, 78), (-34, 6, 72)], [13, 13, 8], blood, NOTHING)
    canvas.paint_tube([(12, -20, 78), (36, 10, 74)], [12, 8], blood, NOTHING)


def _paint_veins(trunk: Trunk) -> None:
    canvas, hu = trunk.canvas, trunk.hu.vein
    cava = [trunk.spine_point(z, (-21, -29, 0)) for z in (-150, -110, -70, -30, 5)]
    canvas.paint_tube([*cava, (-22, 2, 30), (-22, -8, 46)], [10, 10, 10.5, 11, 12, 12, 12], hu, VESSEL)
    for side in (-1, 1):
        leg: Point = (cava[0][0] + 6 + side * 26, 30, -190)
        canvas.paint_tube([cava[0], leg, (side * 54 - 4, 20, -235)], [9, 8, 7], hu, VESSEL)
    canvas.paint_tube([(-24, -22, 48), (-26, -20, 110), (-28, -16, 240)], [9, 9, 8], hu, VESSEL)


def _paint_kidney_vessels(trunk: Trunk) -> None:
    for x, y, z in trunk.body.kidneys:
        side = float(np.sign(x))
        gate = (x - side * 20, y - 8, z + 0.6 * trunk.visit.breath_mm)
        vein = trunk.spine_point(z + 12, (-21 if side < 0 else 0, -34, 0))
        trunk.canvas.paint_tube([vein, gate], [5, 4.5], trunk.hu.vein, VESSEL)
        artery = trunk.spine_point(z + 14, (12, -28, 0))
        trunk.canvas.paint_tube([artery, gate], [3.5, 3], trunk.hu.aorta, VESSEL)


def _paint_arteries(trunk: Trunk) -> None:
    canvas, hu = trunk.canvas, trunk.hu.aorta
    down = [trunk.spine_point(z, (12, -32, 0)) for z in (90, 50, 10, -30, -70, -110, -150)]
    arch: list[Point] = [(-12, -28, 58), (-14, -26, 92), (-4, -14, 116), (14, 8, 118), (20, 20, 100), down[0]]
    canvas.paint_tube(arch, [14, 14, 13, 12.5, 12, 11.5], hu, VESSEL)
    canvas.paint_tube(down, [11.5, 11, 10.5, 10, 9.5, 9, 8.5], hu, VESSEL)
    for side in (-1, 1):
        leg: Point = (down[-1][0] - 6 + side * 26, 22, -190)
        canvas.paint_tube([down[-1], leg, (side * 52 - 4, 12, -235)], [8, 7, 6], hu, VESSEL)
    gut: list[Point] = [down[3], (14, -22, -44), (12, -30, -90), (4, -34, -140)]
    canvas.paint_tube(gut, [5, 5, 4.5, 3.5], hu, VESSEL)
    neck: tuple[Point, ...] = ((-22, -14, 150), (24, -2, 150), (8, -10, 160))
    for x, y, z in neck:
        canvas.paint_tube([(0.25 * x, -4, 114), (x, y, z), (1.4 * x, y, 240)], [7, 6, 6], hu, VESSEL)
