"""What every registered post-processing step must keep to; a new one is tested by being registered."""

import numpy as np
import pytest

from pipeline.postprocess.base import PostProcess, postprocesses

CLASSES = list(postprocesses)
SPACING = (3.0, 1.0, 1.0)
NEEDED = {"minimum_volume": {"volume_ml": 0.05}}


def name_of(cls: type[PostProcess]) -> str:
    return str(cls.model_fields["name"].default)


def step_of(cls: type[PostProcess]) -> PostProcess:
    return postprocesses.parse({"name": name_of(cls), **NEEDED.get(name_of(cls), {})})


def specks() -> np.ndarray:
    return np.random.default_rng(0).choice(np.array([0, 1, 2], np.uint8), size=(9, 12, 14), p=[0.5, 0.3, 0.2])


@pytest.mark.parametrize("cls", CLASSES, ids=name_of)
class TestEveryPostProcess:
    def test_keeps_shape_and_type_and_invents_no_class(self, cls: type[PostProcess]) -> None:
        found = step_of(cls).apply(specks(), SPACING)
        assert (found.shape, found.dtype) == (specks().shape, np.uint8)
        assert set(np.unique(found)) <= {0, 1, 2}

    def test_leaves_its_input_alone(self, cls: type[PostProcess]) -> None:
        mask = specks()
        mask.flags.writeable = False
        step_of(cls).apply(mask, SPACING)

    def test_twice_is_once(self, cls: type[PostProcess]) -> None:
        once = step_of(cls).apply(specks(), SPACING)
        assert np.array_equal(step_of(cls).apply(once, SPACING), once)

    def test_turning_commutes(self, cls: type[PostProcess]) -> None:
        mask = np.zeros((9, 12, 14), np.uint8)
        mask[1:7, 1:8, 1:9], mask[3:5, 3:5, 3:5], mask[8, 10, 12] = 1, 0, 2
        turned = step_of(cls).apply(np.ascontiguousarray(mask.transpose(2, 0, 1)[::-1]), (1.0, 3.0, 1.0))
        assert np.array_equal(turned[::-1].transpose(1, 2, 0), step_of(cls).apply(mask, SPACING))

    @pytest.mark.parametrize("value", [0, 1])
    def test_empty_and_full_masks(self, cls: type[PostProcess], value: int) -> None:
        mask = np.full((4, 5, 6), value, np.uint8)
        assert np.array_equal(step_of(cls).apply(mask, SPACING), mask)
