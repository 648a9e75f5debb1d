"""Bootstrap intervals: how often they hold the truth, and what they give for few groups."""

import numpy as np
import pytest

from pipeline.metrics.intervals import LEVEL, interval_of_mean, interval_of_mean_of_means, resample_groups


def coverage(draw, truth, groups, trials=300):
    """Share of the intervals of `trials` simulated studies that hold the truth."""
    resampling = resample_groups(groups, draws=1000)
    held = 0
    for trial in range(trials):
        interval = interval_of_mean(draw(np.random.default_rng(trial)), resampling)
        held += interval.low <= truth <= interval.high
    return held / trials


@pytest.mark.parametrize("count", [6, 12, 40])
def test_covers_the_mean_of_a_normal_distribution(count):
    found = coverage(lambda random: random.normal(0.8, 0.1, count), 0.8, list(range(count)))
    assert found == pytest.approx(LEVEL, abs=0.035)


def test_covers_where_patients_have_several_like_cases():
    groups = [patient for patient in range(15) for _ in range(4)]

    def draw(random):
        return np.repeat(random.normal(0.0, 1.0, 15), 4) + random.normal(0.0, 0.2, 60)

    assert coverage(draw, 0.0, groups) == pytest.approx(LEVEL, abs=0.035)
    # Taken for 60 strangers, the same cases would seem to say much more than they do.
    assert coverage(draw, 0.0, list(range(60))) < 0.75


def test_width_follows_the_standard_error():
    values = np.random.default_rng(0).normal(0.0, 1.0, 400)
    interval = interval_of_mean(values, resample_groups(range(400)))
    assert interval.high - interval.low == pytest.approx(2 * 1.966 * values.std(ddof=1) / 20, rel=0.06)


def test_one_group_gives_no_interval():
    values = np.array([0.8, 0.9, 0.7])
    assert interval_of_mean(values, resample_groups(["a", "a", "a"])) is None
    assert interval_of_mean(np.array([0.8, np.nan, np.nan]), resample_groups(["a", "b", "c"])) is None
    assert interval_of_mean(np.array([]), resample_groups([])) is None


def test_two_groups_give_no_more_than_their_range():
    interval = interval_of_mean(np.array([0.2, 0.6]), resample_groups(["a", "b"]))
    assert (interval.low, interval.high) == pytest.approx((0.2, 0.6))


def test_undefined_cases_do_not_count():
    values = np.random.default_rng(1).normal(0.5, 0.1, 20)
    values[::4] = np.nan
    interval = interval_of_mean(values, resample_groups(range(20)))
    assert interval.low < np.nanmean(values) < interval.high


def test_mean_over_classes_equals_mean_over_cases_where_all_have_all():
    values = np.random.default_rng(2).normal(0.5, 0.1, (20, 3))
    resampling = resample_groups(range(20))
    one, other = interval_of_mean_of_means(values, resampling), interval_of_mean(values.mean(axis=1), resampling)
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_same_seed_same_interval():
    values = np.random.default_rng(3).random(10)
    assert interval_of_mean(values, resample_groups(range(10))) == interval_of_mean(values, resample_groups(range(10)))
    assert interval_of_mean(values, resample_groups(range(10), seed=1)) != interval_of_mean(
        values, resample_groups(range(10))
    )
