"""MONAI's networks by name: arguments filled in and checked, outputs brought to one form."""

import importlib.util

import pytest
import torch
from pydantic import ValidationError

from pipeline.errors import ConfigError, ModelError
from pipeline.networks.base import networks
from pipeline.networks.monai_nets import MonaiNetwork

PATCH = (32, 32, 32)
DYNUNET = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2], "filters": [4, 8, 8]}


TRANSFORMER = {"hidden_size": 24, "mlp_dim": 32, "num_heads": 2}
NEEDS_EINOPS = pytest.mark.skipif(importlib.util.find_spec("einops") is None, reason="MONAI's transformers need einops")


def make(name, out_channels=3, patch=PATCH, **arguments):
    return MonaiNetwork.model_validate({"class": name, "arguments": arguments}).build(2, out_channels, patch)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("SegResNet", {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}),
        ("DynUNet", DYNUNET),
        ("UNet", {"channels": [4, 8, 8], "strides": [2, 2], "num_res_units": 1}),
        ("BasicUNet", {"features": [4, 4, 4, 8, 8, 4]}),
        ("BasicUNetPlusPlus", {"features": [4, 4, 4, 8, 8, 4]}),
        pytest.param("UNETR", {"feature_size": 4, **TRANSFORMER}, marks=NEEDS_EINOPS),
        ("SegResNetVAE", {"init_filters": 8}),
        ("VNet", {}),
    ],
)
def test_segmentation_networks(name, arguments):
    module = make(name, **arguments).eval()
    with torch.no_grad():
        assert module(torch.randn(1, 2, *PATCH)).shape == (1, 3, *PATCH)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("DenseNet121", {"init_features": 8, "growth_rate": 4, "block_config": [2, 2]}),
        ("ResNet", {"block": "basic", "layers": [1, 1, 1, 1], "block_inplanes": [4, 8, 8, 8]}),
        ("resnet18", {"widen_factor": 0.25}),
        ("Classifier", {"channels": [4, 8], "strides": [2, 2]}),
        pytest.param("ViT", {"patch_size": 16, "classification": True, **TRANSFORMER}, marks=NEEDS_EINOPS),
    ],
)
def test_classification_networks(name, arguments):
    module = make(name, **arguments)
    assert module(torch.randn(2, 2, *PATCH)).shape == (2, 3)


def test_stacked_deep_supervision_becomes_a_list():
    module = make("DynUNet", **DYNUNET | {"strides": [1, 2, 2], "deep_supervision": True})
    levels = module(torch.randn(2, 2, *PATCH))
    assert [tuple(level.shape) for level in levels] == [(2, 3, *PATCH)] * 2
    assert module.eval()(torch.randn(2, 2, *PATCH)).shape == (2, 3, *PATCH)


def test_listed_deep_supervision_is_finest_first():
    module = make("SegResNetDS", init_filters=4, blocks_down=[1, 1, 1], dsdepth=2)
    levels = module(torch.randn(2, 2, *PATCH))
    assert [level.shape[2] for level in levels] == [32, 16]


def test_what_is_no_logits_is_left_out():
    module = make("SegResNetVAE", init_filters=8)
    assert module.train()(torch.randn(1, 2, *PATCH)).shape == (1, 3, *PATCH)


def test_no_weights_are_downloaded():
    make("EfficientNetBN", model_name="efficientnet-b0")  # whose own default is to download
    with pytest.raises(ConfigError, match="would be downloaded"):
        make("DenseNet121", pretrained=True)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("SegResnet", {}, "no network called 'SegResnet', did you mean 'SegResNet'"),
        ("SegResNet", {"init_filter": 8}, "no argument called 'init_filter', did you mean 'init_filters'"),
        ("DenseNet121", {"growth": 8}, "no argument called 'growth'"),
        ("resnet18", {"layers": [1]}, "no argument called 'layers'"),
        ("DynUNet", {}, "refuses its arguments: TypeError.*kernel_size"),
        ("DynUNet", DYNUNET | {"strides": [1, 2]}, "refuses its arguments: (Assertion|Value)Error"),
    ],
)
def test_wrong_arguments_are_named(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **arguments)


def test_patch_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"cannot take a patch of \[32, 30, 32\]"):
        make("UNet", patch=(32, 30, 32), channels=[4, 8, 8], strides=[2, 2])


def test_network_without_logits_is_refused():
    with pytest.raises(ModelError, match="logits of shape"):
        make("AutoEncoder", out_channels=3, patch=PATCH, channels=[4, 8], strides=[2, 2], inter_channels=[8], padding=0)


@pytest.mark.skipif(importlib.util.find_spec("einops") is not None, reason="einops is installed")
def test_missing_package_is_named():
    with pytest.raises(ConfigError, match=r"is not installed: .*einops"):
        make("ViT", patch_size=16, **TRANSFORMER)


def test_round_trip_keeps_the_name_class():
    options = MonaiNetwork.model_validate({"class": "SegResNet", "arguments": {"init_filters": 8}})
    dumped = options.model_dump(mode="json")
    assert dumped == {"name": "monai", "class": "SegResNet", "arguments": {"init_filters": 8}}
    assert networks.parse(dumped) == options
    with pytest.raises(ValidationError, match="class"):
        MonaiNetwork.model_validate({"name": "monai"})


def test_arguments_given_by_hand_win():
    assert make("SegResNet", init_filters=8, out_channels=3).network.init_filters == 8
