"""A plug-in that misbehaves is named, with what it returned and what is expected."""

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.datasets.base import Case, Dataset, Manifest
from pipeline.errors import ConfigError, DataError
from pipeline.guard import guarded
from pipeline.learning.learner import Learner
from pipeline.learning.options import TrainOptions
from pipeline.losses.base import Loss
from pipeline.losses.base import Target as LossTarget
from pipeline.metrics.base import MaskPair, Metric
from pipeline.networks.base import Network
from pipeline.networks.unet import UNet
from pipeline.plugin import Plugin, Registry
from pipeline.transforms.base import Transform


class Flat(nn.Module):
    """Forgets the classes, or fails, as `fails` says."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.layer, self.fails = nn.Conv3d(1, 1, 1), fails

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.fails:
            raise KeyError("oops")
        return self.layer(x)


def network(result: Any) -> Network:
    class Mine(Network):
        name: Literal["mine"] = "mine"

        def build(self, in_channels: int, out_channels: int, patch_size: Any) -> Any:
            return result() if isinstance(result, type) else result

    return guarded(Mine, "network")()


def test_a_network_that_raises_or_is_none_is_named() -> None:
    class Bad:
        def __init__(self) -> None:
            raise ZeroDivisionError("division by zero")

    with pytest.raises(ConfigError, match=r"plug-in network 'mine' .*: build raised ZeroDivisionError") as raised:
        network(Bad).build(1, 2, (4, 4, 4))
    assert "test_guard.py, line" in str(raised.value)
    with pytest.raises(ConfigError, match=r"build returned None \(NoneType\); expected a torch.nn.Module"):
        network(None).build(1, 2, (4, 4, 4))


def test_logits_of_a_wrong_shape_are_told_whenever_the_network_is_used() -> None:
    module = network(Flat(False)).build(1, 3, (4, 4, 4))
    with pytest.raises(ConfigError, match=r"shape \[2, 1, 4, 4, 4\] .* expected logits of shape \[2, 3, 4, 4, 4\]"):
        module(torch.zeros(2, 1, 4, 4, 4))
    right = network(nn.Conv3d(1, 3, 1)).build(1, 3, (4, 4, 4))
    assert right(torch.zeros(2, 1, 4, 4, 4)).shape == (2, 3, 4, 4, 4)


def test_a_network_that_fails_while_training_is_named() -> None:
    learner = Learner(Flat(True), lambda forward, batch: forward(batch).sum(), TrainOptions(), torch.device("cpu"))
    with pytest.raises(ConfigError, match=r"network .*Flat: forward raised KeyError: 'oops' \(.*test_guard\.py, line"):
        learner.update([torch.zeros(1, 1, 2, 2, 2)], 1.0, 0)


def test_cases() -> None:
    def dataset(*cases: Case, wrong: Any = None) -> Dataset:
        class Mine(Dataset):
            name: Literal["mine"] = "mine"

            def cases(self) -> Any:
                return wrong or Manifest(cases=cases)

        return guarded(Mine, "dataset")()

    case = Case(case_id="a", images={"image": "a.nii"})
    assert dataset(case).cases().cases == (case,)
    with pytest.raises(ConfigError, match=r"cases returned \[1, 2\] \(list\); expected a Manifest"):
        dataset(wrong=[1, 2]).cases()
    with pytest.raises(ConfigError, match="case a twice"):
        dataset(case, case).cases()
    with pytest.raises(ConfigError, match="case b with channel 'CT'"):
        dataset(Case(case_id="b", images={"CT": "b.nii"})).cases()


def test_own_errors_of_a_plugin_pass() -> None:
    class Mine(Dataset):
        name: Literal["mine"] = "mine"

        def cases(self) -> Manifest:
            raise DataError("no table")

    with pytest.raises(DataError, match=r"^no table$"):
        guarded(Mine, "dataset")().cases()


@pytest.mark.parametrize(("value", "part"), [(torch.zeros(2), r"shape \[2\]"), (0.5, r"0.5 \(float\)")])
def test_a_loss_that_is_no_scalar(value: Any, part: str) -> None:
    class Mine(Loss):
        name: Literal["mine"] = "mine"

        def build(self, class_weights: Any = None) -> Any:
            return lambda logits, target: value

    with pytest.raises(ConfigError, match=rf"its loss function returned .*{part}; expected a scalar"):
        guarded(Mine, "loss")().build()(torch.zeros(1, 2), LossTarget(torch.zeros(1)))


@pytest.mark.parametrize("value", [0.9, {"mine": "good"}, {}, {"mine": float("inf")}])
def test_a_metric_without_figures(value: Any) -> None:
    class Mine(Metric):
        name: Literal["mine"] = "mine"

        def score(self, sample: Any) -> Any:
            return value

    mask = np.zeros((2, 2, 2), bool)
    with pytest.raises(ConfigError, match=r"plug-in metric 'mine' .*: score returned .* expected figures by name"):
        guarded(Mine, "metric")().score(MaskPair(mask, mask, (1.0, 1.0, 1.0)))


def test_a_transform_that_changes_the_shape() -> None:
    class Mine(Transform):
        name: Literal["mine"] = "mine"

        def draw(self, random: np.random.Generator) -> Any:
            return 1

        def apply(self, image: torch.Tensor, drawn: Any) -> Any:
            return image[:, 1:]

    with pytest.raises(ConfigError, match=r"apply returned a Tensor of shape \[1, 1, 2, 2\]; .* \[1, 2, 2, 2\]"):
        guarded(Mine, "transform")().apply(torch.zeros(1, 2, 2, 2), 1)


def test_a_class_without_its_verb_is_refused_when_it_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "all", {})
    registry: Registry[Network] = Registry("network", Network, "nowhere")
    with pytest.raises(ConfigError, match="has no method build"):

        @registry.register
        class Mine(Network):
            name: Literal["mine"] = "mine"


def test_what_is_inherited_from_the_package_stays_as_it_is() -> None:
    class Wider(UNet):
        name: Literal["wider"] = "wider"  # type: ignore[assignment]

    assert guarded(Wider, "network").build is UNet.build
    assert issubclass(Wider, Plugin)


def test_a_network_without_weights_is_named() -> None:
    with pytest.raises(ConfigError, match="without weights to train"):
        network(nn.ReLU()).build(1, 1, (4, 4, 4))


def test_a_loss_that_is_cut_off_is_named() -> None:
    class Mine(Loss):
        name: Literal["mine"] = "mine"

        def build(self, class_weights: Any = None) -> Any:
            return lambda logits, target: logits.detach().sum()

    function = guarded(Mine, "loss")().build()
    with pytest.raises(ConfigError, match="cut off from the logits"):
        function(torch.zeros(1, 2, 2, 2, 2, requires_grad=True), None)
    assert function(torch.zeros(1, 2, 2, 2, 2), None) == 0  # in validation there is no graph
