"""Statistics against NumPy, normalisations against their formulas."""

from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ConfigError
from pipeline.imaging.normalise import (
    HuWindow,
    IntensityStats,
    Normalise,
    NormaliseField,
    Percentile,
    TrainingZScore,
    ZScore,
    body_threshold,
    fit,
    fit_channels,
    measure,
    window,
)

RANDOM = np.random.default_rng(5)


def ct() -> np.ndarray:
    voxels = np.full((12, 30, 30), -1024, np.int16)
    voxels[2:10, 5:25, 5:25] = RANDOM.normal(60, 20, (8, 20, 20))
    return voxels


def box_label(shape: tuple[int, ...]) -> np.ndarray:
    label = np.zeros(shape, np.uint8)
    label[3:8, 8:20, 8:20] = 2
    label[3, 8:20, 8:20] = 255
    return label


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_measure_agrees_with_numpy(dtype: type) -> None:
    voxels, label = ct().astype(dtype), box_label((12, 30, 30))
    stats = measure(voxels, label)
    body, labelled = voxels[voxels > -500].astype(float), voxels[label == 2].astype(float)
    assert (stats.minimum, stats.maximum) == (-1024, voxels.max())
    assert stats.foreground is not None
    for found, values in ((stats.body, body), (stats.foreground, labelled)):
        assert found.count == values.size
        assert found.mean == pytest.approx(values.mean(), abs=1e-3)
        assert found.std == pytest.approx(values.std(), abs=1e-3)
        for percent in (0, 0.5, 12.3, 50, 99.5, 100):
            assert found.percentile(percent) == pytest.approx(np.percentile(values, percent), abs=1.0)


def test_integer_and_float_statistics_are_one() -> None:
    voxels = ct()
    exact, sampled = measure(voxels), measure(voxels.astype(np.float64))
    assert exact.body.mean == pytest.approx(sampled.body.mean)
    assert exact.body.percentile(50) == pytest.approx(sampled.body.percentile(50), abs=1.0)


def test_body_threshold() -> None:
    assert body_threshold(-1024) == -500
    assert body_threshold(-3024) == -500
    assert body_threshold(0) == 0
    assert body_threshold(-3.5) == -3.5


def test_empty_sets() -> None:
    flat = measure(np.full((2, 3, 4), 7, np.int16), np.zeros((2, 3, 4), np.uint8))
    assert flat.foreground is None
    assert (flat.body.count, flat.body.std) == (24, 0.0)
    assert np.all(window(ZScore(), flat).apply(np.full((2, 3), 7, np.int16)) == 0)
    assert measure(np.full((2, 3, 4), 7.0)).body.count == 24


def test_zscore_of_the_body() -> None:
    voxels = ct()
    y = window(ZScore(), measure(voxels)).apply(voxels)
    assert y.dtype == np.float32
    assert y[voxels > -500].mean() == pytest.approx(0, abs=1e-5)
    assert y[voxels > -500].std() == pytest.approx(1, abs=1e-5)


def test_hu_window_and_background() -> None:
    found = window(HuWindow(range_hu=(-100, 300)), measure(ct()))
    assert found.apply(np.array([-1000, -100, 100, 300, 2000], np.int16)).tolist() == [-1, -1, 0, 1, 1]
    assert found.background == -1


def test_background_is_the_normalised_minimum() -> None:
    voxels = np.abs(ct().astype(np.float32))
    stats = measure(voxels)
    for normalise in (ZScore(), Percentile(lower=2, upper=98), HuWindow()):
        found = window(normalise, stats)
        assert found.background == pytest.approx(float(found.apply(np.array([stats.minimum]))[0]), rel=1e-5)


def test_percentile_range_becomes_minus_one_to_one() -> None:
    voxels = ct()
    body = voxels[voxels > -500]
    y = window(Percentile(lower=10, upper=90), measure(voxels)).apply(body)
    assert np.mean(y == -1) == pytest.approx(0.1, abs=0.03)
    assert np.mean(y == 1) == pytest.approx(0.1, abs=0.03)


def test_training_zscore_pools_cases_with_equal_weight() -> None:
    label = box_label((12, 30, 30))
    cases = [ct(), (ct() + 40).astype(np.int16), ct()]
    pooled = np.concatenate([case[label == 2] for case in cases]).astype(float)
    fitted = fit(TrainingZScore(), [measure(case, label) for case in cases] + [measure(ct())])
    assert isinstance(fitted, TrainingZScore)
    assert fitted.fitted is not None
    lower, upper = np.percentile(pooled, [0.5, 99.5])
    assert fitted.fitted == pytest.approx((lower, upper, pooled.mean(), pooled.std()), abs=1.0)
    y = window(fitted, measure(cases[0])).apply(cases[0])
    expected = (np.clip(cases[0], lower, upper) - pooled.mean()) / pooled.std()
    assert np.abs(y - expected).max() < 0.1


def test_training_zscore_needs_labels_and_fitting() -> None:
    with pytest.raises(ConfigError, match="no training case"):
        fit(TrainingZScore(), [measure(ct())])
    with pytest.raises(ConfigError, match="fit it"):
        window(TrainingZScore(), measure(ct()))


def test_fit_per_case_schemes_changes_nothing() -> None:
    for normalise in (HuWindow(), ZScore(), Percentile()):
        assert fit(normalise, []) is normalise


def test_fit_channels_one_for_all_or_by_name() -> None:
    stats = [[measure(ct()), measure(ct())]]
    assert fit_channels(ZScore(), ["a", "b"], stats) == (ZScore(), ZScore())
    assert fit_channels({"b": HuWindow(), "a": ZScore()}, ["a", "b"], stats) == (ZScore(), HuWindow())
    with pytest.raises(ConfigError, match=r"expected \['a', 'b'\]"):
        fit_channels({"a": ZScore()}, ["a", "b"], stats)


def test_union_and_stats_survive_json() -> None:
    adapter: TypeAdapter[Normalise] = TypeAdapter(Normalise)
    assert adapter.validate_python({"name": "percentile", "lower": 1}) == Percentile(lower=1)
    with pytest.raises(ValidationError):
        adapter.validate_python({"name": "minmax"})
    field: TypeAdapter[Any] = TypeAdapter(NormaliseField)
    assert field.validate_python("zscore") == ZScore()
    assert field.validate_python(HuWindow(range_hu=(0, 1))) == HuWindow(range_hu=(0, 1))
    by_name = field.validate_python({"T1": {"name": "zscore"}, "CT": {"name": "hu_window"}})
    assert by_name == {"T1": ZScore(), "CT": HuWindow()}
    assert field.validate_json(field.dump_json(by_name)) == by_name
    assert field.json_schema()
    with pytest.raises(ValidationError, match="minmax"):
        field.validate_python("minmax")
    stats = measure(ct(), box_label((12, 30, 30)))
    assert IntensityStats.model_validate_json(stats.model_dump_json()) == stats
