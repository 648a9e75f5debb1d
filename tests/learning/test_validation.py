"""Validation agrees with Dice counted over whole volumes."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.imaging.labels import IGNORE, Labels
from pipeline.imaging.normalise import HuWindow, window
from pipeline.imaging.prepare import PrepareOptions, prepare
from pipeline.imaging.volume import Geometry, Volume
from pipeline.learning.patches import PatchCase
from pipeline.learning.validation import mask_validation, predict_mask
from pipeline.tasks.base import tasks

LABELS = Labels.model_validate({0: "background", 1: "dim", 2: "bright", 255: "ignore"})
NORMALISE = HuWindow(range_hu=(0, 2))  # 0, 1, 2 become -1, 0, 1


class ByThreshold(nn.Module):
    """Say `dim` from 0.5 and `bright` from 1.5 of the raw intensity."""

    def forward(self, image: Tensor) -> Tensor:
        raw = image[:, 0] + 1
        return -torch.stack([(raw - value).abs() for value in (0.0, 1.0, 2.0)], dim=1)


def _case(seed: int, *, ignore: bool = False) -> tuple[PatchCase, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    truth = random.integers(0, 3, (9, 14, 11)).astype(np.uint8)
    seen = np.where(random.random(truth.shape) < 0.2, random.integers(0, 3, truth.shape), truth)
    label = truth.copy()
    if ignore:
        label[:3] = IGNORE
    geometry = Geometry(shape=truth.shape, spacing_mm=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0))
    volume = Volume(seen[None].astype(np.int16), geometry)
    made = prepare(volume, label, PrepareOptions(crop="none"), case_id=f"c{seed}")
    case = PatchCase(made, tuple(window(NORMALISE, stats) for stats in made.meta.stats))
    return case, seen[3:] if ignore else seen, truth[3:] if ignore else truth


def _score(cases: list[PatchCase]) -> dict[str, float]:
    names = ("background", "dim", "bright")
    validate = mask_validation(cases, tasks.parse("segmentation"), LABELS, names, (8, 8, 8), lambda m, x: m(x))
    with torch.inference_mode():
        return validate(ByThreshold().eval())


@pytest.mark.parametrize("ignore", [False, True])
def test_dice_is_that_of_whole_volumes(ignore: bool) -> None:
    made = [_case(seed, ignore=ignore) for seed in (1, 2)]
    found = _score([case for case, _, _ in made])
    for index, name in ((1, "dim"), (2, "bright")):
        dice = [2 * ((s == index) & (t == index)).sum() / ((s == index).sum() + (t == index).sum()) for _, s, t in made]
        assert found[f"dice_{name}"] == pytest.approx(np.mean(dice))
    assert found["dice"] == pytest.approx((found["dice_dim"] + found["dice_bright"]) / 2)


def test_the_mask_is_what_the_network_says_everywhere() -> None:
    case, seen, _ = _case(1)
    names = ("background", "dim", "bright")
    with torch.inference_mode():
        found = predict_mask(
            case, ByThreshold().eval(), tasks.parse("segmentation"), LABELS, names, (8, 8, 8), lambda m, x: m(x)
        )
    assert np.array_equal(found, seen)
