"""MONAI's losses by name: equal to MONAI where all counts, and exact under masks."""

import pytest
import torch
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.losses.base import Target, losses


def make(name, class_weights=None, **arguments):
    return losses.parse({"name": "monai", "class": name, "arguments": arguments}).build(class_weights)


@pytest.mark.parametrize("name", ["DiceLoss", "DiceCELoss", "DiceFocalLoss", "GeneralizedDiceLoss", "TverskyLoss"])
def test_equal_to_monai_without_masks(batch, region_batch, name):
    import monai.losses

    cls = getattr(monai.losses, name)
    logits, classes = batch
    expected = cls(softmax=True, to_onehot_y=True)(logits, classes[:, None])
    assert torch.allclose(make(name)(logits, Target(classes)), expected, rtol=1e-5)
    logits, members = region_batch
    assert torch.allclose(make(name)(logits, Target(None, members)), cls(sigmoid=True)(logits, members), rtol=1e-5)


def test_focal_and_hausdorff(batch):
    from monai.losses import FocalLoss, HausdorffDTLoss

    logits, classes = batch
    expected = FocalLoss(use_softmax=True, to_onehot_y=True, gamma=3.0)(logits, classes[:, None])
    assert torch.allclose(make("FocalLoss", gamma=3.0)(logits, Target(classes)), expected, rtol=1e-5)
    expected = HausdorffDTLoss(softmax=True, to_onehot_y=True)(logits, classes[:, None])
    assert torch.allclose(make("HausdorffDTLoss")(logits, Target(classes)), expected, rtol=1e-4)


@pytest.mark.parametrize("together", [False, True])
def test_masked_dice_equals_ours(batch, ignored, together):
    logits, classes = batch
    target = Target(classes.masked_fill(ignored, 255))
    ours = losses.parse({"name": "dice_ce", "ce_weight": 0, "over_batch": together, "background": True}).build()
    assert torch.allclose(make("DiceLoss", batch=together)(logits, target), ours(logits, target), rtol=1e-5)


def test_row_without_counted_voxels_is_left_out(batch):
    logits, classes = batch
    marked = classes.clone()
    marked[0] = 255
    found = make("DiceLoss")(logits, Target(marked))
    assert torch.allclose(found, make("DiceLoss")(logits[1:], Target(classes[1:])), rtol=1e-5)
    assert make("DiceLoss")(logits, Target(torch.full_like(classes, 255))) == 0


def test_losses_that_look_at_shapes_refuse_masks(batch, ignored):
    logits, classes = batch
    with pytest.raises(ConfigError, match="HausdorffDTLoss: looks at shapes, and some voxels"):
        make("HausdorffDTLoss")(logits, Target(classes.masked_fill(ignored, 255)))


def test_class_weights(batch):
    from monai.losses import DiceLoss

    logits, classes = batch
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = DiceLoss(softmax=True, to_onehot_y=True, weight=weights)(logits, classes[:, None])
    assert torch.allclose(make("DiceLoss", weights)(logits, Target(classes)), expected, rtol=1e-5)
    assert torch.allclose(make("DiceLoss", weight=weights.tolist())(logits, Target(classes)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("DiceLos", {}, "no loss called 'DiceLos', did you mean 'DiceLoss'"),
        ("DiceLoss", {"smoth_nr": 1}, "no argument called 'smoth_nr', did you mean 'smooth_nr'"),
        ("DiceLoss", {"reduction": "none"}, "expected 'mean' or 'sum'"),
        ("DiceLoss", {"other_act": 3}, "refuses its arguments: other_act must be"),
    ],
)
def test_wrong_arguments_are_named(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **arguments)


def test_class_weights_that_the_loss_cannot_take_are_refused():
    with pytest.raises(ConfigError, match="has no argument weight"):
        make("GeneralizedDiceLoss", torch.ones(3))
    with pytest.raises(ConfigError, match="is given others"):
        make("DiceLoss", torch.ones(3), weight=[1, 2, 3])


def test_round_trip_keeps_the_name_class():
    options = losses.parse({"name": "monai", "class": "DiceLoss", "arguments": {"squared_pred": True}})
    dumped = options.model_dump(mode="json")
    assert dumped == {"name": "monai", "class": "DiceLoss", "arguments": {"squared_pred": True}}
    assert losses.parse(dumped) == options
    with pytest.raises(ValidationError, match="class"):
        type(options).model_validate({"name": "monai"})
