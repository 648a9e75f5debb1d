"""The threshold baseline: exhaustive search on small volumes, and scenes with a known answer."""

import numpy as np
import pytest

from pipeline.imaging.labels import IGNORE
from pipeline.metrics.threshold import Window, best_thresholds, reads, segment


def case(image, indices):
    return lambda: (image, indices)


def scene(seed, bright=100.0, noise=5.0):
    """A bright ball, of which a speck of equal brightness lies apart, on a dark ground."""
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(24),) * 3, indexing="ij"), axis=-1)
    truth = ((grid - 10) ** 2).sum(-1) < 36
    image = np.where(truth, bright, 0.0) + random.normal(0, noise, truth.shape)
    image[20:23, 20:23, 20:23] = bright
    return image, truth.astype(np.uint8)


def test_bright_ball_is_found_and_the_speck_dropped():
    found = best_thresholds([case(*scene(0)), case(*scene(1))], {"ball": (1,)})["ball"]
    assert 20 < found.window.low < 85
    assert found.window.high > 110
    assert found.dice == pytest.approx((1.0, 1.0), abs=0.01)
    assert found.mean == pytest.approx(1.0, abs=0.01)


def test_same_brightness_everywhere_cannot_be_told_apart():
    random = np.random.default_rng(0)
    image = random.normal(0, 1, (16, 16, 16))
    truth = np.zeros(image.shape, np.uint8)
    truth[4:8, 4:8, 4:8] = 1
    assert best_thresholds([case(image, truth)], {"box": (1,)})["box"].mean < 0.2


def test_no_window_of_an_exhaustive_search_is_better():
    random = np.random.default_rng(3)
    truth = np.zeros((8, 10, 12), np.uint8)
    truth[2:6, 2:8, 3:9] = 1
    image = np.where(truth, 3, 1) + random.integers(-2, 3, truth.shape)
    found = best_thresholds([case(image, truth)], {"box": (1,)})["box"].mean
    levels = range(int(image.min()), int(image.max()) + 1)
    best = 0.0
    for low in levels:
        for high in levels:
            if low <= high:
                mask = segment(image, Window(low, high))
                best = max(best, 2 * (mask & (truth > 0)).sum() / (mask.sum() + truth.sum()))
    # Not every pair of levels is tried after components, so it may be a little below the best.
    assert best - 0.03 <= found <= best + 1e-9


def test_ignored_voxels_count_nowhere():
    image, truth = scene(0)
    hidden = truth.copy()
    hidden[:, :, :10] = IGNORE
    image = np.where(hidden == IGNORE, 1e6, image)
    found = best_thresholds([case(image, hidden)], {"ball": (1,)})["ball"]
    assert found.window.high < 1e6
    assert found.mean > 0.95


@pytest.mark.parametrize("count", [1, 2, 5])
def test_cases_are_read_as_often_as_said(count):
    scenes, read = [scene(seed) for seed in range(count)], []

    def reader(number):
        return lambda: read.append(number) or scenes[number]

    best_thresholds([reader(number) for number in range(count)], {"ball": (1,)})
    assert len(read) == reads(count)


def test_class_that_no_case_has():
    image, truth = scene(0)
    found = best_thresholds([case(image, truth)], {"ball": (1,), "absent": (2,)})
    assert np.isnan(found["absent"].mean)
    assert found["ball"].mean > 0.95


def test_integer_images_and_several_indices():
    image, truth = scene(0)
    truth[:10][truth[:10] == 1] = 2
    found = best_thresholds([case(image.astype(np.int16), truth)], {"ball": (1, 2)})["ball"]
    assert found.mean > 0.98


def test_window_that_only_components_make_good():
    """A bright organ, and far more voxels of its brightness scattered apart: by counting it would be given up."""
    random = np.random.default_rng(0)
    image = np.where(random.random((40, 40, 40)) < 0.08, 100.0, 0.0)
    truth = np.zeros(image.shape, np.uint8)
    truth[10:18, 10:18, 10:18] = 1
    image[8:20, 8:20, 8:20] = 0.0
    image[truth > 0] = np.linspace(80, 120, int(truth.sum()))
    found = best_thresholds([case(image, truth)], {"organ": (1,)})["organ"]
    assert found.mean > 0.95


def test_large_volumes_are_thinned(monkeypatch):
    monkeypatch.setattr("pipeline.metrics.threshold._LARGE", 1000)
    assert best_thresholds([case(*scene(0))], {"ball": (1,)})["ball"].mean > 0.9
