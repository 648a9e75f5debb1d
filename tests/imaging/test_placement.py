"""A mask on the working grid comes back to the voxels it was cut from, in every orientation."""

import itertools

import numpy as np
import pytest

from pipeline.imaging.geometry import apply, reorientation_of
from pipeline.imaging.placement import Placement
from pipeline.imaging.volume import Geometry

AXES = list(itertools.permutations(range(3)))


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3)))
def test_crop_and_back(axes: tuple[int, ...], signs: tuple[int, ...]) -> None:
    direction = np.zeros((3, 3))
    direction[list(axes), range(3)] = signs
    source = Geometry(shape=(5, 6, 7), spacing_mm=(2, 1, 3), direction=tuple(direction.ravel()))
    reorientation = reorientation_of(source)
    mask = np.random.default_rng(1).integers(0, 9, source.shape).astype(np.uint8)
    canonical = apply(mask, reorientation)
    placement = Placement(
        reorientation=reorientation, start=(1, 2, 1), stop=(4, 4, 5), working=Geometry(shape=(1, 1, 1))
    )
    cut = canonical[1:4, 2:4, 1:5]
    assert placement.cropped.shape == cut.shape
    back = placement.to_source(cut, fill=77)
    assert back.shape == source.shape
    assert back.flags.c_contiguous
    assert np.array_equal(apply(back, reorientation)[1:4, 2:4, 1:5], cut)
    assert np.count_nonzero(back == 77) == mask.size - cut.size
    whole = placement.model_copy(update={"start": (0, 0, 0), "stop": canonical.shape})
    assert np.array_equal(whole.to_source(canonical), mask)
    assert np.array_equal(whole.to_source(np.stack([canonical, canonical]))[1], mask)
