"""What mirror images exchange: classes that name a side, and the place of a logit that has none."""

from collections.abc import Sequence

from torch import Tensor

from pipeline.errors import ModelError
from pipeline.imaging.labels import pairs_by_name, sided
from pipeline.learning.sliding_window import Forward, mirrored
from pipeline.records import InferenceRecipe


def mirrored_classes(forward: Forward, axes: Sequence[int], swaps: Sequence[tuple[int, int]] = ()) -> Forward:
    """Average the logits (B, K) of a network over all mirror images along the axes of (D, H, W); see `mirrored`."""

    def spread(windows_BCDHW: Tensor) -> Tensor:
        # As a volume of one voxel, so that what `mirrored` turns back stays as it is.
        return forward(windows_BCDHW)[..., None, None, None]

    average = mirrored(spread, axes, swaps)
    return lambda windows_BCDHW: average(windows_BCDHW)[..., 0, 0, 0]


def swapped_channels(recipe: InferenceRecipe) -> tuple[tuple[int, int], ...]:
    """Return which channels of the logits a mirror image of the patient exchanges.

    Raises:
        ModelError: a class or region that names a side has no partner.
    """
    is_of_masks, labels = recipe.task.reads_masks, recipe.labels
    if alone := labels.unpaired_sides() if is_of_masks else _unpaired(recipe.class_names):
        raise ModelError(
            f"predict.mirror: {', '.join(alone)} names a side and has no partner; expected one to swap it with in "
            "images mirrored along W. Leave W out."
        )
    if not is_of_masks:
        names = recipe.class_names
        return tuple((names.index(one), names.index(other)) for one, other in pairs_by_name(names))
    regions = {frozenset(members) for members in labels.regions.values()}
    if not {frozenset(labels.mirrored(members)) for members in regions} <= regions:
        raise ModelError(
            "predict.mirror: some region has no mirror image among the regions; expected one to swap it with in images "
            "mirrored along W. Leave W out."
        )
    return labels.channel_swaps()


def _unpaired(names: tuple[str, ...]) -> tuple[str, ...]:
    paired = {name for pair in pairs_by_name(names) for name in pair}
    return tuple(name for name in sided(names) if name not in paired)
