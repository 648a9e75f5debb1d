"""Each term against torch, MONAI or its formula; and what masks do to its gradient."""

import pytest
import torch
from torch.nn import functional

from pipeline.losses import terms
from pipeline.losses.base import Target
from pipeline.losses.comparison import compare

WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 4.0])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_equals_torch(batch, ignored, weights, smoothing):
    logits, classes = batch
    for truth in (classes, classes.masked_fill(ignored, 255)):
        expected = functional.cross_entropy(logits, truth, weights, ignore_index=255, label_smoothing=smoothing)
        loss = terms.cross_entropy(compare(logits, Target(truth)), weights, smoothing=smoothing)
        assert torch.allclose(loss, expected, rtol=1e-5)
        ours, theirs = torch.autograd.grad(loss, logits)[0], torch.autograd.grad(expected, logits)[0]
        assert torch.allclose(ours, theirs, atol=1e-7)


def test_binary_cross_entropy_equals_torch(region_batch):
    logits, members = region_batch
    weights = torch.tensor([1.0, 2.0, 3.0])
    plain = functional.binary_cross_entropy_with_logits(logits, members, reduction="none")
    assert torch.allclose(terms.cross_entropy(compare(logits, Target(None, members))), plain.mean())
    weighed = (plain * weights[None, :, None, None, None]).mean() / weights.mean()
    assert torch.allclose(terms.cross_entropy(compare(logits, Target(None, members)), weights), weighed)


def test_focal_loss_equals_its_formula_and_monai(batch, region_batch):
    from monai.losses import FocalLoss

    logits, classes = batch
    p = logits.softmax(1).gather(1, classes[:, None])
    expected = (-((1 - p) ** 2) * p.log()).mean()
    assert torch.allclose(terms.cross_entropy(compare(logits, Target(classes)), focus=2.0), expected, rtol=1e-5)
    logits, members = region_batch
    found = terms.cross_entropy(compare(logits, Target(None, members)), focus=2.0)
    assert torch.allclose(found, FocalLoss(gamma=2.0)(logits, members), rtol=1e-4)


def test_focal_loss_has_a_finite_gradient_where_the_network_is_sure():
    logits = torch.tensor([[[100.0], [-100.0]]], requires_grad=True)
    terms.cross_entropy(compare(logits, Target(torch.tensor([[0]]))), focus=0.5).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("over_batch", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_dice_equals_monai(batch, over_batch, background):
    from monai.losses import DiceLoss

    logits, classes = batch
    theirs = DiceLoss(include_background=background, to_onehot_y=True, softmax=True, batch=over_batch)
    ours = terms.dice(compare(logits, Target(classes)), over_batch=over_batch, background=background)
    assert torch.allclose(ours, theirs(logits, classes[:, None]), rtol=1e-5)


def test_dice_of_regions_equals_monai(region_batch):
    from monai.losses import DiceLoss

    logits, members = region_batch
    ours = terms.dice(compare(logits, Target(None, members)), over_batch=False)
    assert torch.allclose(ours, DiceLoss(sigmoid=True)(logits, members), rtol=1e-5)


def test_tversky_equals_monai_and_with_halves_is_dice(batch):
    from monai.losses import TverskyLoss

    logits, classes = batch
    compared = compare(logits, Target(classes))
    theirs = TverskyLoss(include_background=False, to_onehot_y=True, softmax=True, alpha=0.3, beta=0.7, batch=True)
    ours = terms.tversky(compared, false_positive=0.3, false_negative=0.7)
    assert torch.allclose(ours, theirs(logits, classes[:, None]), rtol=1e-5)
    halves = terms.tversky(compared, false_positive=0.5, false_negative=0.5)
    assert torch.allclose(halves, terms.dice(compared), rtol=1e-5)


def test_dice_of_the_truth_itself_is_zero(batch):
    _, classes = batch
    sure = 100.0 * functional.one_hot(classes, 4).movedim(-1, 1)
    assert terms.dice(compare(sure, Target(classes)), background=True) < 1e-6
    assert terms.dice(compare(sure, Target(torch.zeros_like(classes)))) > 0.99


def test_class_weights_choose_among_dice_scores(batch):
    logits, classes = batch
    compared = compare(logits, Target(classes))
    only = [terms.dice(compared, torch.eye(4)[index]) for index in (1, 2, 3)]
    assert torch.allclose(torch.stack(only).mean(), terms.dice(compared))


def test_classes_not_labelled_in_a_row_do_not_count_there(batch):
    logits, classes = batch
    annotated = torch.tensor([[True, True, False, True], [True, True, True, True]])
    truth = classes.clone()
    truth[0][truth[0] == 2] = 0
    compared = compare(logits, Target(truth, annotated=annotated))
    scores = terms.dice(compared, torch.eye(4)[2], over_batch=False)
    only_second = terms.dice(compare(logits[1:], Target(truth[1:])), torch.eye(4)[2])
    assert torch.allclose(scores, only_second)


def test_a_batch_in_which_nothing_counts_has_loss_zero(batch):
    logits, classes = batch
    compared = compare(logits, Target(torch.full_like(classes, 255)))
    assert terms.cross_entropy(compared) == 0
    assert terms.dice(compared) == 0  # every class is absent from both
    (gradient,) = torch.autograd.grad(terms.cross_entropy(compared) + terms.dice(compared), logits)
    assert gradient.abs().max() == 0
