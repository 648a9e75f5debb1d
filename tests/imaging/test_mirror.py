"""A label that was mirrored over its image shows, along whichever axes; a right one and a symmetric one do not."""

import numpy as np
import pytest

from pipeline.imaging.mirror import mirroring

RNG = np.random.default_rng(5)


def _case(seed=0):
    rng = np.random.default_rng(seed)
    label = np.zeros((12, 20, 24), np.uint8)
    label[2:6, 3:9, 4:10] = 1
    label[6:9, 12:15, 4:8] = 2
    return rng.normal(0, 20, label.shape) + 100 * label, label


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_axes_of_a_mirrored_label(axes):
    image, label = _case()
    found = mirroring(image, np.flip(label, axes))
    assert found.axes == "".join("DHW"[axis] for axis in axes)
    assert found.best > max(0.5, 3 * found.as_it_is)


def test_right_label():
    found = mirroring(*_case())
    assert found.as_it_is > 0.5
    assert found.as_it_is > found.best


def test_share_is_that_of_the_variance_between_classes():
    image, label = _case()
    found = mirroring(image, label)
    inside = (slice(0, 12), slice(0, 18), slice(1, 13))
    values, classes = image[inside], label[inside]
    between = sum((classes == one).sum() * (values[classes == one].mean() - values.mean()) ** 2 for one in range(3))
    assert found.as_it_is == pytest.approx(between / values.size / values.var(), rel=0.02)


def test_nothing_to_say():
    image, label = _case()
    assert mirroring(image[1:], label) is None
    assert mirroring(image, np.zeros_like(label)) is None
    assert mirroring(np.zeros(label.shape), label).best == 0
