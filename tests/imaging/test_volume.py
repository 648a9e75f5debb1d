"""A grid is a checked, frozen value, and voxels must fit it."""

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.imaging.volume import Geometry, Volume


def test_geometry_survives_json_exactly():
    geometry = Geometry(shape=(2, 3, 4), spacing_mm=(0.1, 1 / 3, 2.0), origin=(1e-7, -3.3, 5.0))
    assert Geometry.model_validate_json(geometry.model_dump_json()) == geometry


def test_extent_and_voxel_volume():
    geometry = Geometry(shape=(10, 20, 30), spacing_mm=(2.0, 1.0, 0.5))
    assert geometry.extent_mm == (20.0, 20.0, 15.0)
    assert geometry.voxel_ml == pytest.approx(0.001)


@pytest.mark.parametrize("wrong", [{"shape": (0, 1, 1)}, {"spacing_mm": (1, 0, 1)}, {"origin": (float("nan"), 0, 0)}])
def test_impossible_grids_cannot_be_made(wrong):
    with pytest.raises(ValidationError):
        Geometry(**{"shape": (1, 1, 1), **wrong})


def test_voxels_must_fit_the_grid():
    geometry = Geometry(shape=(2, 3, 4))
    volume = Volume(np.zeros((1, 2, 3, 4), np.int16), geometry)
    assert (volume.channels, volume.dtype) == (1, np.int16)
    assert volume.with_voxels(np.zeros((2, 2, 3, 4))).channels == 2
    for wrong in [(2, 3, 4), (1, 4, 3, 2)]:
        with pytest.raises(ValueError, match="not \\(C, D, H, W\\)"):
            Volume(np.zeros(wrong), geometry)
