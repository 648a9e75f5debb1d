"""What every registered metric on masks must keep to; a new one is tested by being registered."""

import math

import numpy as np
import pytest

from pipeline.metrics.base import MaskPair, Metric, metrics

CLASSES = [cls for cls in metrics if cls.kind is MaskPair]
SPACING = (3.0, 1.0, 0.8)


def ball(shift: int = 0) -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (12, 24, 26)), indexing="ij"), axis=-1)
    return ((grid - (6, 11 + shift, 12)) * SPACING) ** 2 @ np.ones(3) < 49


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.model_fields["name"].default)
class TestEveryMetric:
    def test_has_defaults_and_documentation(self, cls: type[Metric]) -> None:
        assert metrics.parse(cls.model_fields["name"].default) == cls()
        assert cls.__doc__
        assert cls.score.__doc__

    def test_same_columns_whatever_is_empty(self, cls: type[Metric]) -> None:
        mask, nothing = ball(), np.zeros_like(ball())
        pairs = [(mask, mask), (mask, nothing), (nothing, mask), (nothing, nothing)]
        found = [cls().score(MaskPair(one, other, SPACING)) for one, other in pairs]
        assert len({tuple(row) for row in found}) == 1
        assert all(type(value) is float for row in found for value in row.values())
        assert all(math.isfinite(value) for value in found[0].values())

    def test_none_is_infinite(self, cls: type[Metric]) -> None:
        mask, nothing = ball(), np.zeros_like(ball())
        for one, other in ((mask, nothing), (nothing, mask), (nothing, nothing)):
            assert not any(math.isinf(value) for value in cls().score(MaskPair(one, other, SPACING)).values())

    def test_first_column_gets_no_better_with_distance(self, cls: type[Metric]) -> None:
        if cls.model_fields["name"].default == "volume":
            pytest.skip("a volume does not change when it is moved")
        sign = 1 if cls.higher_is_better else -1
        found = [next(iter(cls().score(MaskPair(ball(shift), ball(), SPACING)).values())) for shift in (0, 4, 8)]
        assert sign * found[0] > sign * found[1] > sign * found[2]

    def test_surroundings_do_not_matter(self, cls: type[Metric]) -> None:
        small = MaskPair(ball(2), ball(), SPACING)
        large = MaskPair(np.pad(ball(2), 3), np.pad(ball(), 3), SPACING)
        assert cls().score(small) == pytest.approx(cls().score(large))

    def test_mirrors_and_turns_do_not_matter(self, cls: type[Metric]) -> None:
        one, other = ball(2), ball()
        expected = cls().score(MaskPair(one, other, SPACING))
        turned = MaskPair(
            one.transpose(2, 0, 1)[::-1], other.transpose(2, 0, 1)[::-1], (SPACING[2], SPACING[0], SPACING[1])
        )
        assert cls().score(turned) == pytest.approx(expected)

    def test_masks_stay_as_they_were(self, cls: type[Metric]) -> None:
        pair = MaskPair(ball(2), ball(), SPACING)
        cls().score(pair)
        assert np.array_equal(pair.prediction, ball(2))
        assert np.array_equal(pair.reference, ball())
