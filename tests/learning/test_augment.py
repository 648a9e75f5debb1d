"""Where a patch lies, and what is cut out of a volume there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.imaging.labels import IGNORE, Labels
from pipeline.imaging.normalise import Window
from pipeline.learning.augment import (
    Box,
    Drawn,
    Frame,
    change_intensity,
    cut,
    cut_on_cpu,
    cut_on_device,
    place,
    read_box,
    side_table,
)
from pipeline.transforms.base import Transform
from pipeline.transforms.intensity import Brightness
from pipeline.transforms.spatial import Affine, Flip

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(4)
WINDOW = Window(lower=-500, upper=400, shift=-50, scale=1 / 450, background=-1.0)
PLAIN = Window(lower=-1e6, upper=1e6, shift=0, scale=1, background=-7.0)
SIDES = side_table(Labels.model_validate({1: "kidney_left", 2: "kidney_right", 3: "liver"}))
FLIP, AFFINE = Flip(), Affine()


@dataclass(frozen=True, eq=False)
class Volume:
    voxels: NDArray[Any]
    label: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, int, int]:
        depth, height, width = self.label.shape
        return depth, height, width

    def read(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[Any]:
        return self.voxels[(slice(None), *map(slice, start, stop))]

    def read_label(self, start: Sequence[int], stop: Sequence[int]) -> NDArray[np.uint8]:
        return self.label[tuple(map(slice, start, stop))]


def volume(shape: tuple[int, int, int] = (20, 24, 28), kind: Any = np.int16, channels: int = 1) -> Volume:
    voxels = RANDOM.integers(-1000, 1000, (channels, *shape)).astype(kind)
    return Volume(voxels, RANDOM.integers(0, 4, shape).astype(np.uint8))


def patch(
    case: Volume,
    start: tuple[int, int, int],
    size: tuple[int, int, int],
    transforms: Sequence[Transform] = (),
    drawn: Drawn = (),
    window: Window = WINDOW,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    frame = place(start, size, (1, 1, 1), transforms, drawn)
    image, truth = cut(
        read_box(case, frame, with_label=True), [window] * len(case.voxels), frame, SIDES, torch.device("cpu")
    )
    assert truth is not None
    return image.numpy(), truth.numpy()


def padded(case: Volume, start: Sequence[int], size: Sequence[int], window: Window) -> tuple[Any, Any]:
    """Return an upright patch the slow way."""
    edge = 40
    outside = np.float32(window.background)
    image = np.pad(window.apply(case.voxels), ((0, 0), *[(edge, edge)] * 3), constant_values=outside)
    label = np.pad(case.label, edge, constant_values=IGNORE)
    box = tuple(slice(first + edge, first + edge + n) for first, n in zip(start, size))
    return image[(slice(None), *box)], label[box]


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.uint8])
@pytest.mark.parametrize("flips", [(f & 1 > 0, f & 2 > 0, f & 4 > 0) for f in range(8)])
@pytest.mark.parametrize(
    ("start", "size"), [((3, 4, 5), (8, 9, 10)), ((-4, -3, -2), (30, 30, 32)), ((12, -5, 20), (16, 12, 16))]
)
def test_patch_on_the_grid_is_exact(
    kind: Any, flips: tuple[bool, bool, bool], start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    case = volume(kind=kind, channels=2)
    image, truth = patch(case, start, size, [FLIP], (flips if any(flips) else None,))
    expected, label = padded(case, start, size, WINDOW)
    axes = [axis for axis in range(3) if flips[axis]]
    assert np.array_equal(image, np.flip(expected, [axis + 1 for axis in axes]))
    assert np.array_equal(truth, (SIDES if flips[2] else np.arange(256))[np.flip(label, axes)])


def test_sides_change_places_along_w_only() -> None:
    case = volume()
    case.label[:] = 1
    w_kept, w_mirrored = [(True, False, False), (True, True, False)], [(False, False, True), (True, True, True)]
    for flips, expected in (*((one, 1) for one in w_kept), *((one, 2) for one in w_mirrored)):
        for extra in (None, ((12.0, -20.0, 15.0), 1.1)):
            _, truth = patch(case, (4, 4, 4), (8, 8, 8), [FLIP, AFFINE], (flips, extra))
            assert set(np.unique(truth)) == {expected}


def test_unpaired_labels_and_ignore_keep_their_index() -> None:
    assert SIDES[[0, 1, 2, 3, IGNORE]].tolist() == [0, 2, 1, 3, IGNORE]
    assert np.array_equal(side_table(Labels()), np.arange(256))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_those_of_numpy(axis: int, turns: int) -> None:
    case = volume((16, 16, 16), channels=2)
    angle = 90 * turns if turns < 3 else -90
    angles = tuple(float(angle) if one == axis else 0.0 for one in range(3))
    image, truth = patch(case, (2, 2, 2), (12, 12, 12), [AFFINE], ((angles, 1.0),), PLAIN)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    expected = np.rot90(case.voxels[:, 2:14, 2:14, 2:14].astype(float), turns, (second + 1, first + 1))
    assert np.allclose(image, expected, atol=0.01)
    label = np.rot90(case.label[2:14, 2:14, 2:14], turns, (second, first))
    w_is_reversed = turns == 2 and axis != 2
    assert np.array_equal(truth, SIDES[label] if w_is_reversed else label)


@pytest.mark.parametrize("drawn", [((30.0, -20.0, 10.0), 0.8), ((0.0, 5.0, 0.0), 1.4), ((90.0, 0.0, 0.0), 1.0)])
def test_constant_image_stays_constant(drawn: Any) -> None:
    case = Volume(np.full((1, 30, 31, 32), 77, np.int16), np.full((30, 31, 32), 3, np.uint8))
    image, truth = patch(case, (10, 10, 10), (10, 11, 12), [AFFINE], (drawn,))
    assert np.allclose(image, (77 + 50) / 450, atol=1e-6)
    assert (truth == 3).all()


def test_scaling_shows_things_larger() -> None:
    case = Volume(np.zeros((1, 60, 60, 60), np.int16), np.zeros((60, 60, 60), np.uint8))
    case.label[25:35, 25:35, 25:35] = 3
    drawn = [((0.0, 0.0, 0.0), factor) for factor in (1.0, 1.4)]
    voxels = [(patch(case, (10, 10, 10), (40, 40, 40), [AFFINE], (one,))[1] == 3).sum() for one in drawn]
    assert voxels[1] / voxels[0] == pytest.approx(1.4**3, rel=0.1)


def test_thick_slices_keep_their_shape_when_turned() -> None:
    """A ball in the patient stays a ball: its extent in mm is the same along every direction."""
    spacing = np.array([2.5, 1.0, 1.0])
    place_mm = (np.indices((40, 100, 100)).T * spacing).T - (np.array([39, 99, 99]) * spacing / 2)[:, None, None, None]
    label = (np.sqrt((place_mm**2).sum(0)) < 20).astype(np.uint8)
    case = Volume(label[None].astype(np.int16) * 100, label)
    frame = place((0, 10, 10), (40, 80, 80), tuple(spacing), [AFFINE], (((20.0, 30.0, -25.0), 1.0),))
    _, truth = cut(read_box(case, frame, with_label=True), [PLAIN], frame, SIDES, CPU)
    assert truth is not None
    inside = np.argwhere(truth.numpy() == 1) * spacing
    assert np.cov(inside.T) == pytest.approx(np.eye(3) * 20**2 / 5, abs=4)
    assert (truth.numpy() == 1).sum() == pytest.approx((label == 1).sum(), rel=0.01)


def test_reads_no_more_than_the_patch_needs() -> None:
    upright = place((3, 4, 5), (6, 7, 8), (1.7, 0.9, 0.9), [FLIP], ((True, False, True),))
    assert upright.is_on_grid
    assert upright.box((50, 50, 50)) == ((3, 4, 5), (9, 11, 13))
    assert upright.box((8, 8, 8)) == ((3, 4, 5), (8, 8, 8))
    turned = place((20, 20, 20), (10, 10, 10), (1, 1, 1), [AFFINE], (((0.0, 0.0, 45.0), 1.0),))
    assert not turned.is_on_grid
    start, stop = turned.box((99, 99, 99))
    assert [b - a for a, b in zip(start, stop)] == [14, 14, 10]


def test_a_box_larger_than_needed_changes_nothing() -> None:
    case = volume((40, 40, 40))
    frame = place((5, 6, 7), (20, 20, 20), (1, 1, 1), [AFFINE], (((20.0, 11.0, -7.0), 0.9),))
    whole = Box((0, 0, 0), case.voxels, case.label)
    one, other = (cut(box, [WINDOW], frame, SIDES, CPU) for box in (whole, read_box(case, frame, with_label=True)))
    assert torch.allclose(one[0], other[0], atol=1e-6)
    assert one[1] is not None
    assert other[1] is not None
    assert torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    "drawn", [(None, None), ((True, False, True), None), ((False, False, True), ((20.0, -9.0, 31.0), 0.8))]
)
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_torch_gives_the_same_patch(drawn: Drawn, kind: Any) -> None:
    case = volume((26, 30, 22), kind, channels=2)
    frame = place((-3, 4, 2), (30, 22, 18), (1.5, 1, 1), [FLIP, AFFINE], drawn)
    box = read_box(case, frame, with_label=True)
    numbers = np.array([(-500, 400, -50, 1 / 450, -1), (-900, 900, 3, 0.01, 0.5)], np.float32)
    table = np.arange(256, dtype=np.uint8)
    image, truth = cut_on_cpu(box, frame, numbers, table)
    torch_image, torch_truth = cut_on_device(box, frame, numbers, table, CPU)
    assert torch.allclose(image, torch_image, atol=5e-4)
    assert truth is not None
    assert torch_truth is not None
    assert (truth != torch_truth).float().mean() < 1e-3


def test_without_label_none_is_read() -> None:
    frame = Frame((4, 4, 4), np.eye(3), np.zeros(3))
    assert cut(read_box(volume(), frame, with_label=False), [WINDOW], frame, SIDES, CPU)[1] is None


def test_intensity_follows_and_leaves_space_alone() -> None:
    image = torch.ones(1, 2, 2, 2)
    drawn = (((10.0, 0.0, 0.0), 1.0), ((2.0,) * 4, (0.5,) * 4))
    assert torch.equal(change_intensity([AFFINE, Brightness()], drawn, image), torch.full((1, 2, 2, 2), 2.5))
