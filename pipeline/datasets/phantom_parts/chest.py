"""What is painted in the chest: lungs with their vessels and diseases, airways, heart."""

import numpy as np

from pipeline.datasets.phantom_parts.body import EVERYWHERE, LESION, LUNG, NOTHING, Trunk
from pipeline.datasets.phantom_parts.canvas import KEEP, Array, Point, ellipsoid, grow_tree


def paint_chest(trunk: Trunk) -> None:
    """Paint diaphragm, lungs, nodules, airways and heart."""
    x, y, z = trunk.canvas.positions(EVERYWHERE)
    above = (trunk.dome - z) * 0.72  # mm to the diaphragm, which is steep
    muscle = np.maximum.reduce([trunk.cavity, above - 4.0, -above - 0.5])
    trunk.canvas.paint(EVERYWHERE, muscle, 48, NOTHING)
    middle = 13 + 17 * np.exp(-(((y - 8) / 38) ** 2)) + 7 * np.exp(-(((z - 75) / 35) ** 2))
    spine = np.sqrt((x - trunk.spine_x) ** 2 + (y - trunk.spine_y) ** 2)
    room = [trunk.cavity + 1.5, above, middle - np.abs(x - 2), 5 - trunk.heart, 25 - spine]
    lung = np.maximum.reduce(room) + 0.8 * trunk.noise["loops"]
    trunk.canvas.paint(EVERYWHERE, lung, _lung_tissue(trunk, above), LUNG)
    _paint_lung_vessels(trunk, lung + 2)
    _paint_nodules(trunk)
    _paint_airways(trunk)
    _paint_heart(trunk)


def _lung_tissue(trunk: Trunk, above: Array) -> Array:
    """Return the lungs' HU: denser at the back, in some patients with emphysema or opacities."""
    y, noise, rng = trunk.canvas.at_y, trunk.noise, trunk.rng
    air = trunk.body.lung_hu + 55 * np.clip(y / 90, -1, 1) + 14 * noise["fine"] + 12 * noise["organ"]
    if rng.random() < 0.45:  # emphysema: as dark as the air around the patient
        air -= 110 * np.clip(noise["loops"] + 0.3, 0, 1)
    air = np.maximum(air, -985)
    if rng.random() < 0.4:  # ground glass and, at its core, consolidation
        patch = noise["organ"] * int(rng.choice((-1, 1))) + 0.5 * noise["loops"] + 0.35 * noise["fine"]
        air += (30 - air) * np.clip(0.6 * (patch - 1.5 + 0.5 * trunk.visit.opaque), 0, 0.9)
    if rng.random() < 0.35:  # collapsed tissue at the base
        base = np.clip((above + 14 + 6 * noise["organ"]) / 14, 0, 1) * np.clip((y - 25) / 40, 0, 1)
        air += (20 - air) * 0.65 * base
    return np.asarray(air, np.float32)


def _paint_lung_vessels(trunk: Trunk, inside: Array) -> None:
    hu = min(trunk.hu.heart, 190)
    for side in (-1, 1):
        for heading in ((side * 1.0, 0.3, 0.9), (side, 0.6, -0.6), (side * 0.7, -0.9, 0.3)):
            tree = grow_tree(trunk.rng, (side * 34.0, 6.0, 72.0), heading, length=34, radius=6.0, levels=5)
            for ends, radii in tree:
                trunk.canvas.paint_tube(ends, radii, hu, KEEP, inside=inside)


def _paint_nodules(trunk: Trunk) -> None:
    rng = trunk.rng
    for _ in range(rng.integers(0, 3)):
        side = int(rng.choice((-1, 1)))
        centre = (side * rng.uniform(60, 95), rng.uniform(-35, 45), rng.uniform(45, 110))
        hu, radius = rng.uniform(-60, 60), rng.uniform(4.5, 12)
        box = trunk.canvas.around(centre, radius * 1.5)
        ball = ellipsoid(trunk.canvas.positions(box), centre, (radius, radius, radius))
        trunk.canvas.paint(box, ball + 0.15 * radius * trunk.noise["fine"][box], hu, LESION)


def _paint_airways(trunk: Trunk) -> None:
    """Paint windpipe and main bronchi, air with a wall, that are not lung; and the gullet."""
    routes: tuple[tuple[list[Point], list[float]], ...] = (
        ([(1, 12, 240), (1, 14, 150), (1, 10, 88)], [8.5, 8.5, 8]),
        ([(1, 10, 88), (-22, 12, 70), (-40, 12, 62)], [7, 6, 5]),
        ([(1, 10, 88), (24, 14, 66), (44, 14, 58)], [7, 5.5, 4.5]),
    )
    for points, radii in routes:
        trunk.canvas.paint_tube(points, [radius + 2.2 for radius in radii], 30, NOTHING)
    for points, radii in routes:
        trunk.canvas.paint_tube(points, radii, -990, NOTHING)
    trunk.canvas.paint_tube([(3, 30, 240), (4, 29, 60), (12, 12, 5)], [6, 6, 7], 38, NOTHING)


def _paint_heart(trunk: Trunk) -> None:
    canvas, noise, blood = trunk.canvas, trunk.noise, trunk.hu.heart
    canvas.paint(EVERYWHERE, trunk.heart + 1.5 * noise["organ"] + 1, 0.45 * blood + 38, NOTHING)
    chambers: tuple[tuple[Point, Point, float], ...] = (
        ((40, -22, 28), (30, 20, 24), 0.5),
        ((8, -42, 30), (32, 18, 26), 0.5),
        ((8, -2, 52), (26, 18, 17), 0.2),
        ((-22, -22, 42), (17, 22, 24), 0.0),
    )
    for centre, radii, turn in chambers:
        box = canvas.around(centre, 45)
        chamber = ellipsoid(canvas.positions(box), centre, radii, turn=turn) + 2 * noise["loops"][box]
        canvas.paint(box, np.maximum(chamber, trunk.heart[box] + 6), blood, NOTHING)
