"""Volumes against voxel counts."""

import numpy as np
import pytest

from pipeline.metrics.base import MaskPair
from pipeline.metrics.volume import Volume


def test_millilitres_and_signed_errors():
    prediction, reference = np.zeros((2, 10, 10, 10), bool)
    prediction[:5], reference[:4] = True, True
    found = Volume().score(MaskPair(prediction, reference, (2.0, 0.5, 1.0)))
    assert found == pytest.approx(
        {"volume_ml": 0.5, "reference_ml": 0.4, "volume_error_ml": 0.1, "volume_error_percent": 25.0}
    )


def test_percent_of_nothing_is_undefined():
    nothing, something = np.zeros((2, 3, 3), bool), np.ones((2, 3, 3), bool)
    found = Volume().score(MaskPair(something, nothing, (1.0, 1.0, 1.0)))
    assert found["volume_error_ml"] == pytest.approx(0.018)
    assert np.isnan(found["volume_error_percent"])
    assert Volume().score(MaskPair(nothing, nothing, (1.0, 1.0, 1.0)))["volume_error_ml"] == 0.0
