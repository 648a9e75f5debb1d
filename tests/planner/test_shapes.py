"""Patch, strides and kernels follow from extents and voxel sizes."""

from math import prod

import pytest

from pipeline.planner import shapes


def test_near_cubes_are_halved_alike() -> None:
    assert shapes.halvings((36, 50, 35), (1, 1, 1)) == [(2, 2, 2)] * 3
    assert shapes.kernels_of((1, 1, 1), [(2, 2, 2)] * 3) is None


def test_thick_slices_wait() -> None:
    steps = shapes.halvings((20, 160, 160), (5.0, 1.0, 1.0))
    assert steps[:2] == [(1, 2, 2), (1, 2, 2)]
    assert (2, 2, 2) in steps
    assert shapes.kernels_of((5.0, 1.0, 1.0), steps)[:3] == [(1, 3, 3), (1, 3, 3), (3, 3, 3)]


@pytest.mark.parametrize("patch", [(4, 40, 40), (1, 64, 64), (7, 7, 7), (200, 30, 90)])
def test_four_voxels_are_left_along_each_axis_that_has_them(patch: tuple[int, int, int]) -> None:
    divisor = shapes.divisor_of(shapes.halvings(patch, (1, 1, 1)))
    assert all(side / step >= 4 or step == 1 for side, step in zip(patch, divisor, strict=True))


@pytest.mark.parametrize("extent", [(36.0, 50.0, 35.0), (301.0, 512.0, 512.0), (5.0, 41.0, 41.0)])
def test_a_patch_suits_the_network_and_the_limit(extent: tuple[float, float, float]) -> None:
    steps = shapes.halvings(shapes.wanted_patch(extent, 64**3), (1, 1, 1))
    divisor = shapes.divisor_of(steps)
    patch = shapes.fitted_patch(extent, divisor, 64**3)
    assert prod(patch) <= 64**3
    assert all(side % step == 0 for side, step in zip(patch, divisor, strict=True))


def test_coarser_voxels_just_reach_the_limit() -> None:
    floor = shapes.coarser((3.0, 0.8, 0.8), (300, 400, 400), 2e6)
    sizes = [max(side, floor) for side in (3.0, 0.8, 0.8)]
    assert 0.8 * 2e6 < 300 * 400 * 400 / prod(sizes) <= 2e6
    assert shapes.coarser((1, 1, 1), (50, 50, 50), 2e6) == 0
