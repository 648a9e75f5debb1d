"""Changes of intensity against their formulas."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.transforms.intensity import Brightness, Contrast, Gamma, Noise

FOUR = (1.1, 0.8, 1.25, 0.9)


@pytest.fixture
def image() -> Tensor:
    return torch.randn(5, 12, 13, 14, generator=torch.Generator().manual_seed(2))


def random(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[number, 0]))


def test_noise_has_its_deviation_and_is_independent(image: Tensor) -> None:
    large = torch.zeros(2, 40, 40, 40)
    noise = Noise().apply(large, (0.07, 5))
    assert noise.std() == pytest.approx(0.07, rel=0.01)
    assert abs(noise.mean()) < 0.001
    assert abs(np.corrcoef(noise[0].flatten(), noise[1].flatten())[0, 1]) < 0.02
    assert not torch.equal(Noise().apply(image.clone(), (0.07, 5)), Noise().apply(image.clone(), (0.07, 6)))


def test_brightness(image: Tensor) -> None:
    shifts = (0.0, 1.0, -1.0, 0.5)
    bright = Brightness().apply(image.clone(), (FOUR, shifts))
    for channel in range(5):
        expected = image[channel].numpy() * np.float32(FOUR[channel % 4]) + np.float32(shifts[channel % 4])
        assert np.allclose(bright[channel], expected, atol=1e-6)


def test_contrast_keeps_mean_where_nothing_is_clipped_and_range_always(image: Tensor) -> None:
    after = Contrast().apply(image.clone(), FOUR)
    for channel, factor in zip(range(4), FOUR):
        before = image[channel].numpy().astype(float)
        expected = np.clip((before - before.mean()) * factor + before.mean(), before.min(), before.max())
        assert np.allclose(after[channel], expected, atol=1e-5)
    assert float(after[1].mean()) == pytest.approx(float(image[1].mean()), abs=1e-6)
    assert float(after[1].std()) == pytest.approx(0.8 * float(image[1].std()), rel=1e-5)


@pytest.mark.parametrize("inverted", [False, True])
def test_gamma_is_a_power_that_keeps_mean_and_deviation(image: Tensor, inverted: bool) -> None:
    drawn = (None, FOUR) if inverted else (FOUR, None)
    after = Gamma().apply(image.clone(), drawn)
    for channel, exponent in zip(range(4), FOUR):
        before = image[channel].numpy().astype(float) * (-1 if inverted else 1)
        power = ((before - before.min()) / np.ptp(before)) ** exponent
        expected = ((power - power.mean()) / power.std() * before.std() + before.mean()) * (-1 if inverted else 1)
        assert np.allclose(after[channel], expected, atol=1e-5)
    order = np.argsort(image[2].flatten().numpy())
    assert (np.diff(after[2].flatten().numpy()[order]) >= 0).all()


def test_constant_channel_is_left_by_gamma_and_contrast() -> None:
    flat = torch.full((1, 3, 3, 3), -0.25)
    assert torch.equal(Gamma().apply(flat.clone(), (FOUR, FOUR)), flat)
    assert torch.equal(Contrast().apply(flat.clone(), FOUR), flat)


def test_factors_lie_in_their_range_evenly_on_a_logarithmic_scale() -> None:
    draws = [Contrast(factor=(0.5, 2), probability=0.4).draw(random(number)) for number in range(3000)]
    factors = np.array([one for one in draws if one is not None])
    assert len(factors) / 3000 == pytest.approx(0.4, abs=0.03)
    assert (factors.min(), factors.max()) == (pytest.approx(0.5, abs=0.01), pytest.approx(2, abs=0.01))
    assert (factors < 1).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(Noise, {"std": (-1, 0)}), (Brightness, {"factor": (0, 1)}), (Brightness, {"shift": (1, 0)}),
     (Contrast, {"factor": (2, 1)}), (Gamma, {"exponent": (-1, 1)}), (Gamma, {"probability": 2})],
)  # fmt: skip
def test_senseless_options_are_refused(kind: type[Noise], options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(options)
