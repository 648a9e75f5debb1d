"""What rounding costs, and that decoding gives the numbers back."""

import numpy as np
import pytest

from pipeline.imaging.encoding import Encoding, choose_encoding, common_type, estimate_noise

RANDOM = np.random.default_rng(8)


def test_noise_of_white_noise_on_a_ramp() -> None:
    ramp = np.linspace(0, 4000, 64)[None, None, :] + np.zeros((32, 64, 1))
    assert estimate_noise(ramp + RANDOM.normal(0, 12, ramp.shape), -1e9) == pytest.approx(12, rel=0.05)


def test_noise_of_little_or_nothing_is_zero() -> None:
    assert estimate_noise(np.zeros((4, 4, 2)), -1) == 0
    assert estimate_noise(np.zeros((9, 9, 9)), -1) == 0
    assert estimate_noise(RANDOM.normal(0, 1, (3, 3, 3)), -9) == 0


def test_ct_is_stored_as_it_is() -> None:
    assert choose_encoding(-1024, 3071, noise=12, spread=300, whole=True, exact=False) == Encoding()


def test_uninterpolated_whole_numbers_stay_exact_without_noise() -> None:
    assert choose_encoding(0, 255, noise=0, spread=20, whole=True, exact=True) == Encoding()
    assert choose_encoding(0, 65535, noise=0, spread=20, whole=True, exact=True) == Encoding(dtype="float32")
    wide = choose_encoding(0, 65534, noise=0, spread=20, whole=True, exact=True)
    assert wide.decode(wide.encode(np.arange(0, 65534))).tolist() == list(range(65534))


@pytest.mark.parametrize(("low", "high", "noise"), [(0, 255, 0.8), (0, 1.0, 0.001), (0, 1.5e6, 900.0), (5e3, 6e3, 0.1)])
def test_rounding_costs_less_than_a_hundredth_of_the_noise(low: float, high: float, noise: float) -> None:
    encoding = choose_encoding(low, high, noise=noise, spread=(high - low) / 4, whole=False, exact=False)
    assert encoding.dtype == "int16"
    signal = RANDOM.uniform(low, high, 100_000)
    error = encoding.decode(encoding.encode(signal)) - signal
    assert np.hypot(noise, error.std()) <= 1.01 * noise
    assert abs(error.mean()) < 0.01 * noise


def test_a_range_too_wide_for_its_noise_stays_float() -> None:
    encoding = choose_encoding(0, 1e6, noise=1.0, spread=1e4, whole=False, exact=False)
    assert encoding.dtype == "float32"
    values = RANDOM.normal(0, 1e5, 50).astype(np.float32)
    assert np.array_equal(encoding.decode(encoding.encode(values)), values)


def test_overshoot_is_clipped_not_wrapped() -> None:
    encoding = Encoding()
    assert encoding.encode(np.array([40_000.0, -40_000.0], np.float32)).tolist() == [32767, -32768]


def test_plain_int16_is_not_copied() -> None:
    voxels = np.arange(8, dtype=np.int16)
    assert Encoding().encode(voxels) is voxels


def test_one_type_for_all_channels() -> None:
    plain, wide = Encoding(), Encoding(dtype="float32")
    assert common_type((plain, Encoding(slope=0.5))) == (plain, Encoding(slope=0.5))
    assert common_type((plain, wide)) == (wide, wide)
