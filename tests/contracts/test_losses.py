"""What every registered loss promises, for classes, regions and whole volumes, under every mask."""

from dataclasses import replace

import pytest
import torch

from pipeline.losses.base import Loss, Target, losses

EXAMPLES = {"monai": {"class": "DiceLoss"}}
"""Options for plug-ins that have no default for each."""

SHAPE = (2, 3, 4, 5, 6)


@pytest.fixture(params=losses.names())
def loss(request) -> Loss:
    return losses.parse({"name": request.param, **EXAMPLES.get(request.param, {})})


@pytest.fixture(params=["classes", "regions"])
def truth(request) -> Target:
    generator = torch.Generator().manual_seed(1)
    if request.param == "classes":
        return Target(torch.randint(0, 3, (2, 4, 5, 6), generator=generator))
    return Target(None, torch.randint(0, 2, SHAPE, generator=generator).float())


@pytest.fixture
def logits():
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(2), requires_grad=True)


@pytest.fixture
def valid():
    return torch.rand(2, 4, 5, 6, generator=torch.Generator().manual_seed(3)) < 0.7


def changed(target: Target, **fields) -> Target:
    return replace(target, **fields)


def sure_of(target: Target) -> torch.Tensor:
    if target.members is not None:
        return 40 * target.members - 20
    return 40.0 * torch.nn.functional.one_hot(target.classes, 3).movedim(-1, 1)


class TestLosses:
    def test_it_is_one_finite_number_with_a_gradient(self, loss, truth, logits):
        value = loss.build()(logits, truth)
        value.backward()
        assert value.shape == ()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()
        assert logits.grad.abs().sum() > 0

    def test_the_truth_costs_nothing_and_less_than_a_guess(self, loss, truth, logits):
        function = loss.build()
        assert abs(function(sure_of(truth), truth)) < 1e-4 < function(logits, truth)

    def test_ignored_voxels_have_no_gradient_and_no_say(self, loss, truth, logits, valid):
        function, masked = loss.build(), changed(truth, valid=valid)
        (gradient,) = torch.autograd.grad(function(logits, masked), logits)
        assert gradient.movedim(1, -1)[~valid].abs().max() == 0
        assert gradient.movedim(1, -1)[valid].abs().max() > 0
        other = torch.where(valid[:, None], logits, torch.randn_like(logits))
        assert torch.allclose(function(other, masked), function(logits, masked), rtol=1e-5)

    def test_index_255_is_the_same_as_not_valid(self, loss, truth, logits, valid):
        if truth.classes is None:
            pytest.skip("members say it with valid alone")
        function = loss.build()
        marked = changed(truth, classes=truth.classes.masked_fill(~valid, 255))
        assert torch.equal(function(logits, marked), function(logits, changed(truth, valid=valid)))

    def test_nothing_counted_is_no_loss_of_meaning(self, loss, truth, logits):
        value = loss.build()(logits, changed(truth, valid=torch.zeros(2, 4, 5, 6, dtype=torch.bool)))
        (gradient,) = torch.autograd.grad(value, logits)
        assert value == 0
        assert gradient.abs().max() == 0

    def test_classes_not_labelled_are_not_taught(self, loss, truth, logits):
        annotated = torch.tensor([[True, True, False], [True, True, True]])
        function = loss.build()
        hidden = changed(truth, annotated=annotated)
        if truth.classes is not None:
            seen = truth.classes.clone()
            seen[0][seen[0] == 2] = 0
            hidden = changed(hidden, classes=seen)
            sure = sure_of(hidden)
            sure[0, 2] = torch.where(seen[0] == 0, 60.0, sure[0, 2])  # it may well be there, in the background
            assert abs(function(sure, hidden)) < 1e-4
        else:
            (gradient,) = torch.autograd.grad(function(logits, hidden), logits)
            assert gradient[0, 2].abs().max() == 0
            assert gradient[1, 2].abs().max() > 0

    def test_order_of_rows_and_voxels_does_not_matter(self, loss, truth, logits):
        function = loss.build()
        turned = changed(
            truth,
            classes=None if truth.classes is None else truth.classes.flip(0, 2),
            members=None if truth.members is None else truth.members.flip(0, 3),
        )
        assert torch.allclose(function(logits.flip(0, 3), turned), function(logits, truth), rtol=1e-5)

    def test_order_of_foreground_classes_does_not_matter(self, loss, truth, logits):
        function, order = loss.build(), [0, 2, 1]
        turned = changed(
            truth,
            classes=None if truth.classes is None else torch.tensor(order)[truth.classes],
            members=None if truth.members is None else truth.members[:, order],
        )
        assert torch.allclose(function(logits[:, order], turned), function(logits, truth), rtol=1e-5)

    def test_bf16_logits_give_nearly_the_same(self, loss, truth, logits):
        function = loss.build()
        assert torch.allclose(function(logits.bfloat16(), truth), function(logits, truth), rtol=0.02)

    def test_equal_class_weights_change_nothing(self, loss, truth, logits):
        if loss.name == "monai":
            pytest.skip("MONAI multiplies with the weights and does not divide by their sum")
        weighed = loss.build(torch.full((3,), 2.0))(logits, truth)
        assert torch.allclose(weighed, loss.build()(logits, truth), rtol=1e-5)

    def test_whole_volumes(self, loss):
        logits = torch.randn(6, 3, requires_grad=True)
        value = loss.build()(logits, Target(torch.tensor([0, 1, 2, 2, 1, 0])))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()

    def test_options_survive_a_round_trip(self, loss):
        assert losses.parse(loss.model_dump(mode="json")) == loss
