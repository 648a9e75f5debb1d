"""Colours as channels: against matplotlib, and what the reshape of the notebooks does instead."""

import numpy as np
import pytest
import torch
from matplotlib import colormaps

from pipeline.errors import ConfigError, ModelError
from pipeline.networks.colours import ColourMap, with_colours


def volumes():
    return torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))


def by_matplotlib(values):
    """Return (N, 16, 16, 16, 3), as the notebooks make it."""
    return colormaps["jet"](values[:, 0].numpy())[..., :3]


def test_colours_are_those_of_matplotlib_moved_to_the_channel_axis():
    values = volumes()
    expected = np.moveaxis(by_matplotlib(values), -1, 1)
    found = ColourMap("jet")(values * 2 - 1).numpy()
    assert found.shape == (2, 3, 16, 16, 16)
    # A value on the border of two of the 256 steps may fall to the neighbour by rounding.
    assert np.isclose(found, expected, atol=1e-6).mean() > 0.9999


def test_the_reshape_of_the_notebooks_scrambles_voxels_and_ours_does_not():
    values = volumes()
    colours = by_matplotlib(values)
    reshaped, ours = colours.reshape(2, 3, 16, 16, 16), ColourMap("jet")(values * 2 - 1).numpy()
    assert reshaped.shape == ours.shape
    voxel = (1, slice(None), 4, 5, 6)
    assert np.allclose(ours[voxel], colours[1, 4, 5, 6], atol=1e-6)
    assert not np.allclose(reshaped[voxel], colours[1, 4, 5, 6], atol=1e-2)
    # The reshaped "red" channel holds all three colours of the first third of the depth.
    assert np.array_equal(reshaped[1, 0].ravel(), colours[1].ravel()[: 16**3])


def test_a_mirrored_volume_has_mirrored_colours():
    values = volumes() * 2 - 1
    colours = ColourMap("viridis")
    assert torch.equal(colours(values.flip(-1)), colours(values).flip(-1))


def test_values_beyond_the_ends_have_the_end_colours():
    colours = ColourMap("jet")
    ends = colours(torch.tensor([-1.0, 1.0, -7.0, 9.0]).reshape(1, 1, 1, 1, 4))[0, :, 0, 0]
    assert torch.equal(ends[:, :2], ends[:, 2:])


def test_the_colours_travel_with_the_weights():
    assert "table" in ColourMap("jet").state_dict()


def test_unknown_maps_and_several_channels_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'viridis'"):
        ColourMap("virids")
    with pytest.raises(ModelError, match="one channel"):
        with_colours("jet", 2)
    assert with_colours(None, 2)[1] == 2
