"""What a post-processing step is: a change of a finished mask."""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from pipeline.plugin import Plugin, Registry


class PostProcess(Plugin):
    """A rule that mends a predicted mask."""

    @abstractmethod
    def apply(self, mask: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> NDArray[np.uint8]:
        """Return the mended mask.

        Args:
            mask: (D, H, W) class indices, 0 the background.
            spacing_mm: Voxel size along (D, H, W).
        """


DECISION = "postprocess.json"
"""In the folder of an evaluation: which rules were chosen, on predictions of cases that their model had not seen."""

postprocesses: Registry[PostProcess] = Registry("postprocess", PostProcess, "pipeline.postprocess")
