"""Mean probability of what is found: against SciPy's softmax, and slab by slab as in one piece."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from pipeline.errors import ModelError
from pipeline.imaging.confidence import sum_probabilities
from pipeline.learning.confidence import Confidence, _sums_in_torch
from pipeline.learning.sliding_window import Slab
from pipeline.learning.step_clock import StepClock

NAMES = ("background", "liver", "spleen", "kidney")


def logits(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (4, 6, 7, 8)).astype(np.float32))


def test_is_the_mean_softmax_of_the_voxels_of_a_class():
    made, found = logits(), Confidence(NAMES, exclusive=True)
    found.take(made)
    shares = softmax(made.numpy().astype(np.float64), axis=0)
    best = shares.argmax(0)
    assert found.means() == pytest.approx({NAMES[k]: shares[k][best == k].mean() for k in (1, 2, 3)}, rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_say_what_the_whole_says(axis, monkeypatch):
    monkeypatch.setattr("pipeline.learning.confidence._PIECE_VALUES", 4 * 7 * 8 * 2)
    made, whole, parts = logits(), Confidence(NAMES, exclusive=True), Confidence(NAMES, exclusive=True)
    whole.take(made)
    before = made.clone()
    slabs = [Slab(0, 2, axis, made.narrow(axis + 1, 0, 2)), Slab(2, 6, axis, made.narrow(axis + 1, 2, 4))]
    rest = made.narrow(axis + 1, 6, made.shape[axis + 1] - 6)
    passed = list(parts.watching([*slabs, Slab(6, made.shape[axis + 1], axis, rest)], clock := StepClock()))
    assert [slab.start for slab in passed] == [0, 2, 6]
    assert parts.means() == pytest.approx(whole.means(), rel=1e-6)
    assert "confidence" in clock.seconds
    assert torch.equal(made, before)


def test_regions_are_each_on_their_own():
    made, found = logits(1), Confidence(("whole", "core", "none"), exclusive=False)
    made[2] = -5
    found.take(made[:3].half())
    values = made.half().float().numpy()
    assert found.means() == pytest.approx(
        {name: expit(values[k])[values[k] > 0].mean() for k, name in enumerate(("whole", "core"))}, rel=1e-5
    )


def test_what_is_not_found_has_none():
    made, found = torch.zeros(4, 2, 2, 2), Confidence(NAMES, exclusive=True)
    made[0] = 3
    found.take(made)
    assert found.means() == {}


def test_torch_says_what_the_compiled_loop_says():
    made = logits(2)
    ours, torchs = sum_probabilities(made.numpy(), threads=2), _sums_in_torch(made.flatten(1))
    np.testing.assert_allclose(ours[0], torchs[0], rtol=1e-5)
    np.testing.assert_array_equal(ours[1], torchs[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("exclusive", [True, False])
def test_an_answer_that_is_no_number_is_refused(value, exclusive):
    made = logits()
    made[2, 3, 4, 5] = value
    with pytest.raises(ModelError, match=r"NaN or infinite.*fp32"):
        Confidence(NAMES, exclusive=exclusive).take(made)
