"""What a prediction is asked for, and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from pipeline.imaging.volume import Geometry
from pipeline.imaging.write import write_mask
from pipeline.learning.backends import Backend
from pipeline.learning.precision import Precision
from pipeline.learning.probabilities import ProbabilityMaps
from pipeline.learning.sliding_window import Weights
from pipeline.plugin import Settings

Share = Annotated[float, Field(ge=0, lt=1)]


class PredictOptions(Settings):
    """How windows cover a volume and how their logits become one answer."""

    overlap: Share | tuple[Share, Share, Share] = 0.5
    """Share of a window that its neighbour covers too: one for all axes, or one each along (D, H, W)."""
    weights: Weights = "gaussian"
    """How much a voxel counts by its place in the window."""
    mirror: tuple[Literal["D", "H", "W"], ...] = ()
    """Axes along which mirror images are averaged in (TTA): each doubles the time."""
    precision: Precision = "auto"
    """Number format of convolutions: `auto` takes the fastest that the device computes natively."""
    accumulator: Literal["fp32", "fp16"] = "fp32"
    """Number format in which logits are summed; `fp16` halves the memory of a slab and rounds."""
    window_batch: PositiveInt = 1
    """Windows in one forward pass."""
    backend: Backend = "auto"
    """What computes the network: `torch`; `compiled` by torch.compile, for long batches; `openvino` on a CPU; `auto`:
    openvino where it is installed and there is enough to predict to be worth converting, else torch."""
    skip: Literal["nothing", "air"] = "nothing"
    """`air`: windows without body are background without a look; only for networks that say so anyway."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the models say of one case.

    mask:           (D, H, W) label values on the input's grid; None for classification.
    geometry:       Grid of the input.
    probabilities:  Class name -> probability of the whole volume; empty for segmentation.
    volumes_ml:     Name of a class or region -> volume; background left out.
    confidence:     Name of a class or region -> mean probability of the voxels that the models gave to it, on the
                    grid that they work on (`learning.confidence`); only what was found, background left out.
    maps:           Probabilities of each voxel where they were asked for; to be written or closed.
    seconds:        By step: read, prepare, network, windows (what is around the network), confidence, native_grid.
    peak_memory_mb: Of the process in the meantime, in MiB, with all it holds.
    """

    case_id: str
    mask: NDArray[Any] | None
    geometry: Geometry
    probabilities: Mapping[str, float] = field(default_factory=dict)
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)
    maps: ProbabilityMaps | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0

    def save(self, path: Path | str) -> None:
        """Write the mask, whole or not at all.

        Args:
            path: Ends with `.nii.gz`, `.nii`, `.mha` or `.nrrd`.

        Raises:
            ValueError: there is no mask, since the model names whole volumes, or the ending is another one.
        """
        if self.mask is None:
            raise ValueError(f"case {self.case_id}: the model gives probabilities of whole volumes, not a mask")
        write_mask(self.mask, self.geometry, Path(path))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return the mask, so that NumPy takes a prediction for it."""
        if self.mask is None:
            raise TypeError(f"case {self.case_id}: there is no mask")
        return np.array(self.mask, dtype=dtype, copy=copy)
