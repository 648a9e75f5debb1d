"""What is painted in the belly: bowel, stomach, spleen, liver, kidneys, and lesions in them."""

from itertools import pairwise

import numpy as np

from pipeline.datasets.phantom_parts.body import EVERYWHERE, KIDNEY, LESION, LIVER, NOTHING, VESSEL, Trunk
from pipeline.datasets.phantom_parts.canvas import KEEP, Array, Point, ellipsoid, grow_tree, tube_piece


def paint_belly(trunk: Trunk) -> None:
    """Paint the organs of the belly; those that are labelled last."""
    _paint_small_bowel(trunk)
    _paint_colon(trunk)
    _paint_left_side(trunk)
    _paint_liver(trunk)
    for place in trunk.body.kidneys:
        _paint_kidney(trunk, place)


def _paint_small_bowel(trunk: Trunk) -> None:
    """Paint loops with gas and sometimes swallowed contrast agent, which is as bright as bone."""
    canvas, noise = trunk.canvas, trunk.noise
    x, y, z = canvas.positions(EVERYWHERE)
    room = np.maximum.reduce([trunk.cavity + 9, z + 42 + 0.25 * y, y - 22 - 0.15 * np.abs(x)])
    loops = np.maximum(-9 * (noise["loops"] + 0.25), room)
    content = 26 + 10 * noise["fine"]
    if trunk.visit.oral_contrast:
        content = content + 190 * np.clip(noise["organ"] + 0.4, 0, 1)
    canvas.paint(EVERYWHERE, loops, 42, NOTHING)
    canvas.paint(EVERYWHERE, loops + 3.4, content, NOTHING)
    gas = np.maximum(loops + 4, 9 * (1.5 - noise["loops"] + 0.012 * y))
    canvas.paint(EVERYWHERE, gas, -960, NOTHING)


def _paint_colon(trunk: Trunk) -> None:
    """Paint the colon up the right, across and down the left, with stool and gas above it."""
    canvas, noise, rng = trunk.canvas, trunk.noise, trunk.rng
    stool = -60 + 70 * noise["fine"] - 260 * np.clip(noise["loops"] - 0.2, 0, 1.5)
    routes: tuple[tuple[Point, ...], ...] = (
        ((-103, 20, -190), (-106, 12, -120), (-98, -4, -82)),
        ((-98, -4, -82), (-50, -58, -96), (0, -66, -104), (52, -58, -84), (98, 0, -38)),
        ((98, 0, -38), (108, 18, -110), (104, 22, -190)),
    )
    for route in routes:
        points = [(x, y, z + rng.uniform(-8, 8)) for x, y, z in route]
        radius = 20 + 2 * rng.random()
        canvas.paint_tube(points, [radius] * len(points), 40, NOTHING, inside=trunk.cavity + 4)
        for start, end in pairwise(points):
            box = canvas.box_of(start, end, radius)
            x, y, z = canvas.positions(box)
            lumen = tube_piece((x, y, z), start, end, (radius - 3.5, radius - 3.5))
            lumen = np.maximum(lumen + 2.5 * np.sin(z / 7 + x / 9), trunk.cavity[box] + 8)
            canvas.paint(box, lumen, stool[box], NOTHING)
            canvas.paint(box, np.maximum(lumen, y - start[1] + 10), -940, NOTHING)


def _paint_left_side(trunk: Trunk) -> None:
    """Paint psoas, spleen, stomach with its bubble of gas, and pancreas: none is labelled."""
    canvas, noise, breath = trunk.canvas, trunk.noise, 0.8 * trunk.visit.breath_mm
    for side in (-1, 1):
        points = [(side * 26.0, 42.0, -35.0), (side * 40.0, 38.0, -110.0), (side * 58.0, 20.0, -200.0)]
        canvas.paint_tube(points, [8, 20, 24], 54, NOTHING)
    box = canvas.around((96, 34, -18), 75)
    place, under = canvas.positions(box), (canvas.at_z[box] - trunk.dome[box] + 4.5) * 0.72
    spleen = ellipsoid(place, (94, 32, -14 + breath), (29, 42, 54), turn=0.5, tilt=-0.25)
    spleen = np.maximum.reduce([spleen + 2.0 * noise["organ"][box], trunk.cavity[box] + 4, under])
    canvas.paint(box, spleen, trunk.hu.spleen + 2 * noise["fine"][box], NOTHING)
    box = canvas.around((52, -28, -22), 80)
    place, under = canvas.positions(box), (canvas.at_z[box] - trunk.dome[box] + 4.5) * 0.72
    stomach = ellipsoid(place, (50, -26, -20 + breath), (42, 38, 46), turn=0.3, tilt=0.45)
    stomach = np.maximum.reduce([stomach + 3 * noise["organ"][box], trunk.cavity[box] + 6, under])
    canvas.paint(box, stomach, 52, NOTHING)
    canvas.paint(box, stomach + 4.5, 24 + 12 * noise["fine"][box] + 170 * trunk.visit.oral_contrast, NOTHING)
    canvas.paint(box, np.maximum(stomach + 4.5, place[1] + 34), -970, NOTHING)
    pancreas: list[Point] = [(-28, -2, -62), (10, -8, -50), (60, 14, -34)]
    canvas.paint_tube(pancreas, [13, 9, 8], 0.4 * trunk.hu.liver + 22, NOTHING)


def _paint_liver(trunk: Trunk) -> None:
    """Paint the liver under its dome, its vessels, the gall bladder, and lesions."""
    canvas, noise, breath = trunk.canvas, trunk.noise, 0.9 * trunk.visit.breath_mm
    box = canvas.box((-170, -130, -130), (85, 100, 70))
    x, y, z = canvas.positions(box)
    under = (z - trunk.dome[box] + 4.5) * 0.72
    floor = -(z - breath + 88 - 0.72 * (x + 60) + 0.22 * y) * 0.8
    right = ellipsoid((x, y, z), (-66, -6, -12 + breath), (100, 92, 96), turn=0.25)
    left = ellipsoid((x, y, z), (18, -38, breath), (52, 34, 40), turn=0.15)
    edge = np.minimum(np.maximum(right, floor), np.maximum(left, floor * 0.6 - 20))
    edge = edge + 2.4 * noise["organ"][box] + noise["loops"][box]
    spine = np.sqrt((x - trunk.spine_x[box]) ** 2 + (y - trunk.spine_y[box]) ** 2)
    edge = np.maximum.reduce([edge, trunk.cavity[box] + 6.0, under, 34 - spine])
    hu = trunk.hu.liver + trunk.body.fatty_liver_hu
    canvas.paint(box, edge, hu + 2.5 * noise["fine"][box] + 2 * noise["organ"][box], LIVER)
    inside = np.full(canvas.hu.shape, 99, np.float32)
    inside[box] = edge + 3
    _paint_liver_vessels(trunk, inside, hu, breath)
    gall = canvas.around((-48, -48, -58), 34)
    bladder = ellipsoid(canvas.positions(gall), (-46, -44, -56 + breath), (14, 19, 25), tilt=0.4)
    canvas.paint(gall, bladder, 8, NOTHING)
    _paint_liver_lesions(trunk, inside, hu, breath)


def _paint_liver_vessels(trunk: Trunk, inside: Array, liver_hu: float, breath: float) -> None:
    arterial = trunk.visit.phase == "arterial"
    hu = 0.5 * (trunk.hu.vein + liver_hu) if arterial else trunk.hu.vein - 4
    trees: tuple[tuple[Point, Point, float, float], ...] = (
        ((-26, 4, -24 + breath), (-1, -0.3, 0.25), 34, 6.5),
        ((-26, 14, 22 + breath), (-1, -0.2, -0.35), 36, 6),
        ((-20, 8, 24 + breath), (-0.3, -1, -0.2), 32, 5.5),
    )
    for root, heading, length, radius in trees:
        for ends, radii in grow_tree(trunk.rng, root, heading, length=length, radius=radius, levels=4):
            trunk.canvas.paint_tube(ends, radii, hu, VESSEL, inside=inside)
    portal: list[Point] = [(12, 2, -52), (-14, 2, -36), (-28, 4, -24 + breath)]
    trunk.canvas.paint_tube(portal, [6, 6.5, 6.5], hu, VESSEL)


def _paint_liver_lesions(trunk: Trunk, inside: Array, liver_hu: float, breath: float) -> None:
    rng = trunk.rng
    for _ in range(rng.integers(0, 4)):
        centre = (rng.uniform(-105, -35), rng.uniform(-45, 40), rng.uniform(-35, 12) + breath)
        contrast = float(rng.choice((-1, -1, 1))) * rng.uniform(22, 60)
        radius = rng.uniform(5, 17)
        box = trunk.canvas.around(centre, radius * 1.5)
        ball = ellipsoid(trunk.canvas.positions(box), centre, (radius, radius * 0.9, radius * 1.05))
        ragged = ball + 0.15 * radius * trunk.noise["fine"][box]
        trunk.canvas.paint(box, np.maximum(ragged, inside[box]), liver_hu + contrast, LESION)


def _paint_kidney(trunk: Trunk, place: Point) -> None:
    """Paint a kidney in its fat: cortex and pyramids, the sinus, here and there a cyst."""
    canvas, noise, rng = trunk.canvas, trunk.noise, trunk.rng
    x, y, z = place[0], place[1], place[2] + 0.6 * trunk.visit.breath_mm
    side, size = float(np.sign(x)), rng.uniform(0.92, 1.1)
    arterial = trunk.visit.phase == "arterial"
    box = canvas.around((x, y, z), 75)
    here = canvas.positions(box)
    bean = ellipsoid(here, (x, y, z), (29 * size, 25 * size, 55 * size), turn=side * 0.55, tilt=-side * 0.22)
    bean = bean + 1.2 * noise["organ"][box] + 0.8 * noise["loops"][box]
    canvas.paint(box, bean - 9, -104, NOTHING)
    hilum = (x - side * 21 * size, y - 6, z)
    sinus = ellipsoid(here, hilum, (19, 9, 22), turn=side * 0.55, tilt=-side * 0.22)
    kidney = np.maximum(bean, -sinus)
    hu = trunk.hu.kidney + 3 * noise["fine"][box]
    canvas.paint(box, kidney, hu, KIDNEY)
    pyramids = np.maximum(bean + 8, 5 * (0.1 - noise["loops"][box]))
    canvas.paint(box, np.maximum(pyramids, kidney + 2), hu - (75 if arterial else 8), KEEP)
    urine = 12 if arterial else 0.5 * trunk.hu.kidney
    canvas.paint(box, np.maximum(sinus + 4, bean + 4), urine, KEEP)
    if rng.random() < 0.35:
        offset, radius = rng.uniform(-30, 30), rng.uniform(6, 14)
        centre = (x + side * 14, y - 4, z + offset)
        box = canvas.around(centre, radius * 1.5)
        canvas.paint(box, ellipsoid(canvas.positions(box), centre, (radius, radius, radius)), 6, LESION)
