"""MONAI's networks by class name, with their arguments checked before anything is built."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from pipeline.errors import ConfigError, ModelError
from pipeline.networks.base import Network, Size, networks
from pipeline.plugin import did_you_mean

_IN_CHANNELS = ("in_channels", "n_input_channels")
_OUT_CHANNELS = ("out_channels", "num_classes", "n_classes", "classes")
_PATCH_SIZE = ("img_size", "input_image_size")


@networks.register
class MonaiNetwork(Network):
    """A network of `monai.networks.nets`.

    Channels, classes, three dimensions and, where the class asks for it, the patch size are filled in;
    everything else is under `arguments`, by the names of MONAI's documentation.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    name: Literal["monai"] = "monai"
    class_name: str = Field(alias="class")
    """Name of the class or function, e.g. SegResNet, DynUNet, DenseNet121, resnet18."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of its constructor; lists stand for tuples."""

    def build(self, in_channels: int, out_channels: int, patch_size: Size) -> nn.Module:
        """Make the network, and run it once without data to see that it fits the patch.

        Raises:
            ConfigError: MONAI has no such network, or it has no such argument, or refuses its value.
            ModelError: the network cannot take the patch, or gives logits of another shape.
        """
        maker = _find(self.class_name)
        known = _parameters(maker)
        self._check_arguments(known)
        arguments = _filled_in(known, in_channels, out_channels, patch_size) | _tuples(self.arguments)
        try:
            network = maker(**arguments)
        except ImportError as error:
            raise ConfigError(
                f"network monai {self.class_name}: a package that it needs is not installed: {_first_line(error)} "
                "Install it, or choose another network."
            ) from error
        except Exception as error:
            raise ConfigError(
                f"network monai {self.class_name}: refuses its arguments: {type(error).__name__}: {_first_line(error)} "
                f"Given: {arguments}. Correct network.arguments."
            ) from error
        adapted = Adapter(network, out_channels)
        _try_without_data(self.class_name, adapted, in_channels, out_channels, patch_size)
        return adapted

    def _check_arguments(self, known: Mapping[str, inspect.Parameter]) -> None:
        for argument in self.arguments:
            if argument not in known:
                raise ConfigError(
                    f"network monai {self.class_name}: no argument called {argument!r}"
                    f"{did_you_mean(argument, known)}. Known: {', '.join(known)}"
                )
        if self.arguments.get("pretrained"):
            raise ConfigError(
                f"network monai {self.class_name}: pretrained weights would be downloaded; expected pretrained: false. "
                "Leave it out, or start from a model of your own."
            )


class Adapter(nn.Module):
    """Gives the output of a MONAI network the one form of ours: logits, or in training mode a list of them.

    MONAI's deep supervision comes as a list, a tuple or one stacked tensor (B, n, K, D, H, W), with or
    without things that are no logits (hidden states, a reconstruction loss); these are left out.
    """

    def __init__(self, network: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.network = network
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Map (B, C, D, H, W) to logits (B, K, D, H, W) or (B, K)."""
        levels = self._levels(self.network(x), x.ndim)
        return levels if self.training and len(levels) > 1 else levels[0]

    def _levels(self, output: Any, ndim: int) -> list[Tensor]:
        if isinstance(output, Tensor):
            return list(output.unbind(1)) if output.ndim == ndim + 1 else [output]
        levels = [
            level
            for level in output
            if isinstance(level, Tensor) and level.ndim in (2, ndim) and level.shape[1] == self.out_channels
        ]
        if not levels:
            raise ModelError(
                f"network monai {type(self.network).__name__}: gives {type(output).__name__} without logits of "
                f"{self.out_channels} classes. Choose a network for segmentation or classification."
            )
        return levels


def _find(name: str) -> Any:
    from monai.networks import nets

    known = [each for each, value in vars(nets).items() if _is_maker(value)]
    if name not in known:
        raise ConfigError(
            f"network monai: MONAI has no network called {name!r}{did_you_mean(name, known)}. "
            "Expected a class of monai.networks.nets."
        )
    return getattr(nets, name)


def _is_maker(value: object) -> bool:
    """Tell whether `value` is a network class, or a function said to return one (resnet18 ...)."""
    if inspect.isclass(value):
        return issubclass(value, nn.Module)
    return inspect.isfunction(value) and value.__name__.startswith("resnet")


def _parameters(maker: Any) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor; where it passes **kwargs on, those of the class behind it too."""
    sources: list[Any] = [maker]
    if inspect.isfunction(maker):
        from monai.networks import nets

        sources.append(nets.ResNet)
    elif any(each.kind is each.VAR_KEYWORD for each in inspect.signature(maker).parameters.values()):
        sources += [base for base in maker.__mro__[1:] if issubclass(base, nn.Module) and base is not nn.Module]
    found: dict[str, inspect.Parameter] = {}
    for source in sources:
        for name, parameter in inspect.signature(source).parameters.items():
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                found.setdefault(name, parameter)
    if inspect.isfunction(maker):
        # a resnet function sets these itself
        found = {name: each for name, each in found.items() if name not in ("block", "layers", "block_inplanes")}
    return found


def _filled_in(known: Mapping[str, object], in_channels: int, out_channels: int, patch_size: Size) -> dict[str, Any]:
    """Return the arguments that follow from the data, under the names that this network has for them."""
    values: dict[str, Any] = {"spatial_dims": 3, "in_shape": (in_channels, *patch_size), "pretrained": False}
    values |= dict.fromkeys(_IN_CHANNELS, in_channels) | dict.fromkeys(_OUT_CHANNELS, out_channels)
    values |= dict.fromkeys(_PATCH_SIZE, patch_size)
    return {name: value for name, value in values.items() if name in known}


def _tuples(value: Any) -> Any:
    """Turn lists into tuples at any depth: YAML has no tuples, and MONAI asks for them here and there."""
    if isinstance(value, dict):
        return {key: _tuples(each) for key, each in value.items()}
    return tuple(_tuples(each) for each in value) if isinstance(value, list) else value


def _try_without_data(name: str, network: nn.Module, in_channels: int, out_channels: int, patch_size: Size) -> None:
    """Run the shapes through the network on the meta device, which holds no numbers."""
    empty = copy.deepcopy(network).to("meta").eval()
    try:
        with torch.no_grad():
            logits = empty(torch.empty(1, in_channels, *patch_size, device="meta"))
    except NotImplementedError:
        return  # an operation without a meta version: the first step will tell
    except RuntimeError as error:
        raise ModelError(
            f"network monai {name}: cannot take a patch of {list(patch_size)}: {_first_line(error)} "
            "Change sample.patch_size to a multiple of the network's strides, or network.arguments."
        ) from error
    expected = [(1, out_channels), (1, out_channels, *patch_size)]
    if tuple(logits.shape) not in expected:
        raise ModelError(
            f"network monai {name}: a patch of {list(patch_size)} gives logits of shape {list(logits.shape)}; "
            f"expected {list(expected[1])} for segmentation or {list(expected[0])} for classification. "
            "Change sample.patch_size or network.arguments."
        )


def _first_line(error: Exception) -> str:
    """Return the first line of a message, as a sentence."""
    line = (str(error).splitlines() or [""])[0].rstrip(" .")
    return f"{line}."
