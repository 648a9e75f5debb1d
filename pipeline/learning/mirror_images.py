"""What mirror images exchange: classes that name a side, and the place of a logit that has none."""

from collections.abc import Sequence

from torch import Tensor

from pipeline.errors import ModelError
from pipeline.learning.sliding_window import Forward, mirrored
from pipeline.records import InferenceRecipe


def mirrored_classes(forward: Forward, axes: Sequence[int]) -> Forward:
    """Average the logits (B, K) of a network over all mirror images along the axes of (D, H, W)."""

    def spread(windows_BCDHW: Tensor) -> Tensor:
        # As a volume of one voxel, so that what `mirrored` turns back stays as it is.
        return forward(windows_BCDHW)[..., None, None, None]

    average = mirrored(spread, axes)
    return lambda windows_BCDHW: average(windows_BCDHW)[..., 0, 0, 0]


def swapped_channels(recipe: InferenceRecipe) -> tuple[tuple[int, int], ...]:
    """Return which channels of the logits a mirror image of the patient exchanges."""
    labels = recipe.labels
    if not recipe.task.reads_masks:
        return ()
    if alone := labels.unpaired_sides():
        raise ModelError(
            f"predict.mirror: {', '.join(alone)} names a side and has no partner; expected one to swap it with in "
            "images mirrored along W. Leave W out."
        )
    if not labels.regions:
        return labels.swaps()
    both_ways = [(one, other) for pair in labels.swaps() for one, other in (pair, pair[::-1])]
    partner = {labels.classes[one]: labels.classes[other] for one, other in both_ways}
    regions = [frozenset(members) for members in labels.regions.values()]
    images = [frozenset(partner.get(name, name) for name in members) for members in regions]
    if not set(images) <= set(regions):
        raise ModelError(
            "predict.mirror: some region has no mirror image among the regions; expected one to swap it with in images "
            "mirrored along W. Leave W out."
        )
    pairs = [(one, regions.index(image)) for one, image in enumerate(images)]
    return tuple((one, other) for one, other in pairs if one < other)
