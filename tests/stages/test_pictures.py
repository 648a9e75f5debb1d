"""Pictures of volumes: which slice, which way up, and how long a millimetre is."""

import io

import numpy as np
import pytest

from pipeline.stages.pictures import _slices, colour_of, overlay_figure, patch_sheet, slice_picture

NAMES = ("background", "liver", "kidney")


def pixels(picture):
    matplotlib_image = pytest.importorskip("matplotlib.image")
    return matplotlib_image.imread(io.BytesIO(picture), format="png")[..., :3]


def close_to(image, colour, tolerance=0.12):
    wanted = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return (np.abs(image - wanted) < tolerance).all(axis=-1)


def places(mask):
    """Return the middle of the marked pixels of the picture as shares of its (height, width), without the legend."""
    rows, columns = np.nonzero(mask[: int(mask.shape[0] * 0.88)])
    return rows.mean() / mask.shape[0], columns.mean() / mask.shape[1]


def volume(shape=(30, 40, 50)):
    return np.zeros(shape, np.int16), np.zeros(shape, np.uint8)


@pytest.mark.parametrize(("corner", "side"), [((2, 2, 2), 0), ((-6, -6, -6), 1)])
def test_planes_are_not_mirrored(corner, side):
    """A wide organ in the middle decides the slices; a marker in its corner shows how each plane is turned."""
    image, mask = volume((60, 60, 60))
    mask[10:50, 10:50, 10:50] = 1
    at = tuple(slice(10 + c, 14 + c) if c > 0 else slice(50 + c, 54 + c) for c in corner)
    mask[at[0], at[1], :][:, :, at[2]] = 2
    for axis in range(3):
        line = [at[0], at[1], at[2]]
        line[axis] = slice(20, 40)
        mask[tuple(line)] = 2
    picture = pixels(overlay_figure(image, (1, 1, 1), None, mask, class_names=NAMES, window=(-10, 10)))
    width = picture.shape[1] // 3
    for number in range(3):
        plane = picture[:, number * width : (number + 1) * width]
        whole, marker = places(close_to(plane, colour_of(1))), places(close_to(plane, colour_of(2)))
        # Low indices are right and anterior: left in the picture, and up in axial; inferior is down elsewhere.
        assert (marker[1] < whole[1]) == (side == 0)
        assert (marker[0] < whole[0]) == ((side == 0) if number == 0 else (side == 1))


def test_classes_weigh_alike_in_the_choice_of_a_slice():
    _, mask = volume()
    mask[5, 5:35, 5:45] = 1
    mask[20, 5:35, 5:40] = 1
    mask[20, 36:38, 5:8] = 2
    assert _slices(mask)[0] == 20


def test_equal_slices_give_the_middle_one():
    _, mask = volume()
    mask[10:21, 10:20, 10:20] = 1
    assert _slices(mask) == (15, 15, 15)


def test_a_millimetre_is_equally_long_along_both_sides():
    image, mask = volume((20, 60, 60))
    mask[8:12, 20:40, 20:40] = 1  # 20 x 20 x 20 mm
    picture = pixels(overlay_figure(image, (5, 1, 1), None, mask, class_names=NAMES, window=(-10, 10)))
    found = close_to(picture, colour_of(1))[: int(picture.shape[0] * 0.88)]
    rows = np.flatnonzero(found.any(axis=1))
    columns = np.flatnonzero(found.any(axis=0))
    gaps = np.flatnonzero(np.diff(columns) > 40)
    widths = [len(range(part[0], part[-1] + 1)) for part in np.split(columns, gaps + 1)]
    height = rows[-1] - rows[0] + 1
    assert len(widths) == 3
    assert widths == pytest.approx([height] * 3, abs=0.06 * height)


def test_reference_is_white_and_prediction_has_the_class_colour():
    image, mask = volume()
    mask[10:20, 10:30, 10:30] = 2
    both = pixels(overlay_figure(image, (2, 1, 1), mask, np.roll(mask, 5, axis=2), class_names=NAMES, window=(-10, 10)))
    assert close_to(both, "#ffffff").sum() > 500
    assert close_to(both, colour_of(2)).sum() > 200
    alone = pixels(overlay_figure(image, (2, 1, 1), None, mask, class_names=NAMES, window=(-10, 10)))
    assert close_to(alone, "#ffffff").sum() < close_to(both, "#ffffff").sum() / 4


@pytest.mark.parametrize("what", ["reference", "prediction", "both"])
def test_empty_masks(what):
    image, mask = volume()
    mask[10:20, 10:30, 10:30] = 1
    empty = np.zeros_like(mask)
    reference, prediction = (empty if what in (name, "both") else mask for name in ("reference", "prediction"))
    assert overlay_figure(image, (1, 1, 1), reference, prediction, class_names=NAMES)[:4] == b"\x89PNG"


def test_ignored_voxels_are_not_drawn():
    image, mask = volume()
    mask[10:20, 10:30, 10:30] = 1
    ignored = mask.copy()
    ignored[0:5, 0:5, 0:5] = 255
    draw = [overlay_figure(image, (1, 1, 1), one, mask, class_names=NAMES, window=(-1, 1)) for one in (mask, ignored)]
    assert draw[0] == draw[1]


def test_single_slice():
    image, mask = volume((1, 40, 50))
    mask[0, 10:20, 10:20] = 1
    assert overlay_figure(image, (5, 1, 1), mask, mask, class_names=NAMES)[:4] == b"\x89PNG"


@pytest.mark.parametrize("count", [1, 5, 8])
def test_patch_sheet(count):
    image, mask = volume((8, 16, 20))
    mask[2:5, 4:9, 4:9] = 1
    mask[0, 0, 0] = 255
    sheet = pixels(patch_sheet([("liver", image, mask, (3.0, 1.0, 1.0))] * count, NAMES))
    assert sheet.shape[1] >= 400 * min(count, 4)
    assert np.array_equal(sheet, pixels(patch_sheet([("liver", image, mask, (3.0, 1.0, 1.0))] * count, NAMES)))


def test_one_slice_with_both_outlines():
    image, reference = np.zeros((40, 50)), np.zeros((40, 50), np.uint8)
    reference[10:30, 5:15] = 1
    reference[0, 0] = 255
    prediction = np.where(reference == 255, 0, np.roll(reference, 20, axis=1))
    picture = slice_picture(image, (1.0, 1.0), reference, prediction, class_names=NAMES)
    assert (picture.dtype, picture.shape[2]) == (np.uint8, 3)
    white, coloured = (places(close_to(picture / 255, colour)) for colour in ("#ffffff", colour_of(1)))
    assert white[1] < 0.4 < coloured[1]
    assert white[0] == pytest.approx(coloured[0], abs=0.05)
