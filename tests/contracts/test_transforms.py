"""What every registered transform must keep to; a new one is tested by being registered."""

from typing import Any

import numpy as np
import pytest
import torch

from pipeline.transforms.base import Transform, transforms

CLASSES = list(transforms)


def random(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[number, 0]))


def drawn_by(transform: Transform, wanted: int = 5) -> list[Any]:
    """Return draws that change something."""
    found = [transform.draw(random(number)) for number in range(2000)]
    return [one for one in found if one is not None][:wanted]


def plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | type(None)) or (isinstance(value, tuple) and all(map(plain, value)))


def pieces(value: Any) -> list[Any]:
    return [one for part in value for one in pieces(part)] if isinstance(value, tuple) else [value]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.model_fields["name"].default)
class TestEveryTransform:
    def test_has_defaults_and_a_documented_name(self, cls: type[Transform]) -> None:
        assert transforms.parse(cls.model_fields["name"].default) == cls()
        assert cls.__doc__

    def test_draws_are_repeatable_plain_values(self, cls: type[Transform]) -> None:
        draws = drawn_by(cls())
        assert len(draws) == 5, "never changes anything"
        assert draws == drawn_by(cls())
        assert all(plain(one) for one in draws), "only numbers in tuples can be shown and compared"
        kinds = {type(piece) for one in draws for piece in pieces(one)}
        assert kinds <= {bool, int, float, type(None)}, "a NumPy number prints and compares otherwise"

    def test_sometimes_leaves_the_patch_alone(self, cls: type[Transform]) -> None:
        assert any(cls().draw(random(number)) is None for number in range(2000))

    def test_none_changes_nothing(self, cls: type[Transform]) -> None:
        before = torch.eye(3, dtype=torch.float64) if cls.spatial else torch.randn(2, 5, 6, 7)
        assert torch.equal(cls().apply(before.clone(), None), before)

    def test_keeps_shape_and_type_and_is_repeatable(self, cls: type[Transform]) -> None:
        before = torch.eye(3, dtype=torch.float64) if cls.spatial else torch.randn(5, 6, 9, 8)
        for drawn in drawn_by(cls()):
            after = cls().apply(before.clone(), drawn)
            assert (after.shape, after.dtype) == (before.shape, before.dtype)
            assert torch.isfinite(after).all()
            assert not torch.equal(after, before)
            assert torch.equal(after, cls().apply(before.clone(), drawn))

    def test_constant_image_stays_finite(self, cls: type[Transform]) -> None:
        if not cls.spatial:
            for drawn in drawn_by(cls()):
                assert torch.isfinite(cls().apply(torch.full((1, 4, 4, 4), 0.5), drawn)).all()

    def test_spatial_matrix_is_invertible(self, cls: type[Transform]) -> None:
        if cls.spatial:
            for drawn in drawn_by(cls()):
                assert abs(torch.linalg.det(cls().apply(torch.eye(3, dtype=torch.float64), drawn))) > 0.1
