"""Blur and coarse voxels against SciPy and torch."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import ndimage
from torch.nn import functional

from pipeline.transforms.resolution import Blur, LowResolution, gaussian_matrix, linear_matrix, nearest_places

IMAGE = torch.randn(2, 20, 17, 23, generator=torch.Generator().manual_seed(1))


def test_blur_agrees_with_scipy() -> None:
    after = Blur().apply(IMAGE.clone(), (0.8, 0.0, 0.5, 0.5))
    expected = ndimage.gaussian_filter(IMAGE[0].numpy().astype(float), 0.8, mode="reflect", radius=4)
    assert np.allclose(after[0], expected, atol=1e-5)
    assert torch.equal(after[1], IMAGE[1])


def test_low_resolution_agrees_with_torch_where_sizes_divide() -> None:
    image = torch.randn(1, 16, 24, 32)
    coarse = functional.interpolate(image[None], scale_factor=0.5, mode="nearest-exact")
    expected = functional.interpolate(coarse, size=image.shape[1:], mode="trilinear", align_corners=False)[0]
    after = LowResolution().apply(image.clone(), (0.5, 1.0, 1.0, 1.0))
    assert torch.allclose(after, expected, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 31])
def test_rows_are_averages(n: int) -> None:
    for matrix in (gaussian_matrix(n, 1.3), *(linear_matrix(n, few) for few in range(1, n + 1))):
        assert torch.allclose(matrix.sum(1), torch.ones(n), atol=1e-6)
        assert (matrix >= 0).all()
    assert torch.equal(linear_matrix(n, n), torch.eye(n))
    assert torch.equal(nearest_places(n, n), torch.arange(n))


def test_constant_stays_constant_and_smoothing_lowers_the_deviation() -> None:
    flat = torch.full((1, 9, 8, 7), 0.3)
    assert torch.allclose(Blur().apply(flat.clone(), (1.0,) * 4), flat)
    assert torch.allclose(LowResolution().apply(flat.clone(), (0.6,) * 4), flat)
    assert Blur().apply(IMAGE.clone(), (0.6,) * 4).std() < 0.8 * IMAGE.std()


def test_senseless_options_are_refused() -> None:
    with pytest.raises(ValidationError):
        Blur(sigma=(0, 1))
    with pytest.raises(ValidationError):
        LowResolution(zoom=(0.5, 1.5))
