"""The bones: ribs and spine, which are labelled, and breastbone, shoulder blades and hips, which are not."""

import numpy as np

from pipeline.datasets.phantom_parts.body import EVERYWHERE, NOTHING, RIB, SPINE, Trunk
from pipeline.datasets.phantom_parts.canvas import ellipsoid

_SHELL_HU = 410.0
_SHELL_MM = 2.5


def paint_bones(trunk: Trunk) -> None:
    """Paint each bone as a dense shell around spongy marrow."""
    _paint_ribs(trunk)
    _paint_breastbone(trunk)
    _paint_shoulder_blades(trunk)
    _paint_spine(trunk)
    _paint_hips(trunk)


def _paint_ribs(trunk: Trunk) -> None:
    """Paint ribs, arcs in the chest wall that slant down to the front, and their cartilage."""
    canvas, body = trunk.canvas, trunk.body
    x, y, z = canvas.positions(EVERYWHERE)
    angle = np.arctan2(np.abs(x) * 0.72, y)  # 0 at the back, pi in front
    height = z + 62 * (1 - np.cos(np.minimum(angle, 2.2))) / 1.6
    turns = height / body.vertebra_mm + body.spine_phase - 0.25
    away = (turns - np.floor(turns) - 0.5) * body.vertebra_mm
    shell = trunk.cavity - 4.5
    rib = (np.sqrt((shell / 0.62) ** 2 + away**2) - 6.0) * 0.8
    lowest = -height - 25
    ends = np.maximum.reduce([angle - 2.05, lowest, 18 - np.abs(x)])
    rib = np.maximum.reduce([rib, 20 * ends, 0.3 * (lowest + 55 * np.maximum(angle - 1.2, 0))])
    canvas.paint(EVERYWHERE, rib, _SHELL_HU, RIB)
    canvas.paint(EVERYWHERE, rib + _SHELL_MM, body.bone_hu + 40, RIB)
    cartilage = np.sqrt((shell / 0.7) ** 2 + away**2) - 5.5
    cartilage = np.maximum.reduce([cartilage, 20 * (2.05 - angle), 30 - height, 8 - np.abs(x)])
    canvas.paint(EVERYWHERE, cartilage, 95, NOTHING)


def _paint_breastbone(trunk: Trunk) -> None:
    canvas = trunk.canvas
    x, y, z = canvas.positions(EVERYWHERE)
    bone = np.maximum.reduce([np.abs(trunk.cavity - 4.5) - 5, np.abs(x) - 17 - 0.05 * z, y, 20 - z])
    canvas.paint(EVERYWHERE, bone, 250, NOTHING)
    canvas.paint(EVERYWHERE, bone + 3, trunk.body.bone_hu + 10 * trunk.noise["fine"], NOTHING)


def _paint_shoulder_blades(trunk: Trunk) -> None:
    x, y, z = trunk.canvas.positions(EVERYWHERE)
    flank = np.maximum.reduce([20 - y, 62 - np.abs(x), np.abs(x) - 132, 88 - z])
    thickness = 2.6 + 2 * np.exp(-(((z - 150) / 12) ** 2))
    blade = np.maximum(np.abs(trunk.cavity - 17 - 0.06 * (z - 88)) - thickness, 0.6 * flank)
    trunk.canvas.paint(EVERYWHERE, blade, 380, NOTHING)


def _paint_spine(trunk: Trunk) -> None:
    """Paint vertebrae: bodies with end plates and discs, arches, spinous and transverse processes.

    The canal is no part of the label; the discs are.
    """
    canvas, body = trunk.canvas, trunk.body
    box = canvas.box((-50, 0, -400), (50, 125, 400))
    x, y, z = canvas.positions(box)
    x, y = x - trunk.spine_x[box], y - trunk.spine_y[box]
    turns = z / body.vertebra_mm + body.spine_phase
    level = turns - np.floor(turns) - 0.5  # from the middle of one disc to the next
    lumbar = np.clip((60 - z) / 160, 0, 1)
    waist = 0.91 + 0.09 * np.cos(2 * np.pi * (level + 0.5))
    across, deep = (16 + 7 * lumbar) * waist, (14.5 + 4 * lumbar) * waist
    scaled = np.sqrt((x / across) ** 2 + (y / deep) ** 2) + 1e-3
    column = np.sqrt(x * x + y * y + 1e-3) * (1 - 1 / scaled)
    vertebra = np.maximum(column, 2.4 + 2 * lumbar - (0.5 - np.abs(level)) * body.vertebra_mm)
    behind = y - deep
    canal = np.sqrt((x / 1.2) ** 2 + (behind - 9) ** 2) - 7.2
    arch = [np.abs(canal - 3.4) - 4.2, (np.abs(level - 0.02) - 0.36) * body.vertebra_mm, -behind - 2]
    slant = level * body.vertebra_mm + (0.5 - 0.35 * lumbar) * (behind - 18)
    spinous = [np.abs(x) - 4.6, np.abs(slant) - 8, behind - 35, 17 - behind]
    wings = [np.abs(behind - 7 - 0.25 * np.abs(x)) - 5.8, np.abs(level - 0.05) * body.vertebra_mm - 6.5]
    wings += [np.abs(x) - 33, 9 - np.abs(x)]
    processes = np.minimum.reduce([np.maximum.reduce(part) for part in (arch, spinous, wings)])
    spongy = body.bone_hu + 32 * trunk.noise["fine"][box] + 12 * trunk.noise["loops"][box]
    canvas.paint(box, column, 88 + 4 * trunk.noise["fine"][box], SPINE)
    canvas.paint(box, vertebra, _SHELL_HU, SPINE)
    canvas.paint(box, vertebra + _SHELL_MM, spongy, SPINE)
    canvas.paint(box, processes, _SHELL_HU, SPINE)
    canvas.paint(box, processes + _SHELL_MM, spongy + 30, SPINE)
    canvas.paint(box, canal, 20, NOTHING)


def _paint_hips(trunk: Trunk) -> None:
    for side in (-1, 1):
        box = trunk.canvas.box((side * 75 - 75, -60, -420), (side * 75 + 75, 110, -120))
        x, y, z = trunk.canvas.positions(box)
        bowl = ellipsoid((x, y, z), (side * 60, 20, -225), (58, 70, 84), turn=side * -0.5, tilt=side * -0.35)
        wing = np.maximum(np.abs(bowl) - 5, -(x - side * 60) * side - 10 - 0.4 * y)
        trunk.canvas.paint(box, wing, _SHELL_HU, NOTHING)
        trunk.canvas.paint(box, wing + _SHELL_MM, trunk.body.bone_hu + 20 * trunk.noise["fine"][box], NOTHING)
