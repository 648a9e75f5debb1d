"""The metric that compares volumes in millilitres."""

from typing import ClassVar, Literal

import numpy as np

from pipeline.metrics.base import MaskPair, Metric, metrics


@metrics.register
class Volume(Metric):
    """Volume of the prediction and of the reference, and the error of the first.

    Volumes are 0 ml where a mask is empty; the error in percent is NaN where the reference is empty.
    """

    higher_is_better: ClassVar[bool] = False
    unit: ClassVar[str] = "ml"

    name: Literal["volume"] = "volume"

    def score(self, sample: MaskPair) -> dict[str, float]:
        """Return `volume_ml`, `reference_ml`, `volume_error_ml` and `volume_error_percent` (both signed)."""
        voxel_ml = float(np.prod(sample.spacing_mm)) / 1000.0
        predicted = int(np.count_nonzero(sample.prediction)) * voxel_ml
        true = int(np.count_nonzero(sample.reference)) * voxel_ml
        error = predicted - true
        return {
            "volume_ml": predicted,
            "reference_ml": true,
            "volume_error_ml": error,
            "volume_error_percent": 100.0 * error / true if true else float("nan"),
        }
