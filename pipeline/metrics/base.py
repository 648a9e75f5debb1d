"""What a metric is, and what it looks at."""

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.plugin import Plugin, Registry

Spacing = tuple[float, float, float]
"""Voxel size along (D, H, W) in mm."""


@dataclass(frozen=True, eq=False)
class MaskPair:
    """One class of one case: what was predicted and what is true, on one grid.

    prediction, reference: (D, H, W) bool. Voxels that are ignored were set to False in both.
    """

    prediction: NDArray[np.bool_]
    reference: NDArray[np.bool_]
    spacing_mm: Spacing

    @cached_property
    def surfaces(self) -> Any:
        """Distances between the two surfaces in mm, computed once for all metrics that need them."""
        from pipeline.metrics.surface import surface_distances

        return surface_distances(self.prediction, self.reference, self.spacing_mm)


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """All whole-volume predictions of an evaluation.

    probabilities: (N, K), truth: (N, K) of 0 and 1 (one-hot for exclusive classes).
    """

    probabilities: NDArray[np.float64]
    truth: NDArray[np.bool_]
    class_names: tuple[str, ...]
    exclusive: bool


class Metric(Plugin):
    """A figure of merit. `kind` says what `score` looks at: a `MaskPair` or a `ScoreTable`."""

    kind: ClassVar[type] = MaskPair
    higher_is_better: ClassVar[bool] = True
    unit: ClassVar[str] = ""

    @abstractmethod
    def score(self, sample: Any) -> dict[str, float]:
        """Return figures by column name, e.g. `{"dice": 0.93}`; NaN where undefined."""


metrics: Registry[Metric] = Registry("metric", Metric, "pipeline.metrics")
