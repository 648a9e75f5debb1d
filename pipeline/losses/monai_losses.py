"""MONAI's losses by class name, under the same masks as ours."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.losses.base import Loss, LossFunction, Target, losses
from pipeline.losses.comparison import IMPOSSIBLE, Comparison, compare
from pipeline.plugin import did_you_mean

_ANY_ORDER = {
    "AsymmetricUnifiedFocalLoss",
    "DiceCELoss",
    "DiceFocalLoss",
    "DiceLoss",
    "FocalLoss",
    "GeneralizedDiceFocalLoss",
    "GeneralizedDiceLoss",
    "GeneralizedWassersteinDiceLoss",
    "MCCLoss",
    "TverskyLoss",
}
"""Losses that look at voxels in no order, so that those which do not count can be taken out of the row."""

_LISTS = ("weight", "alpha", "dist_matrix")
"""Arguments for which a list stands for a tensor."""


@losses.register
class MonaiLoss(Loss):
    """A loss of `monai.losses` that compares logits with a mask.

    The form of the target (`to_onehot_y`) and the activation (`softmax`, `use_softmax` or `sigmoid`) follow
    from the task; the rest is under `arguments`, by the names of MONAI's documentation. Voxels that do not
    count are taken out before the loss sees a row. A loss that looks at shapes (HausdorffDTLoss) cannot be
    computed without them, and refuses such a batch.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    name: Literal["monai"] = "monai"
    class_name: str = Field(alias="class")
    """Name of the class, e.g. DiceLoss, GeneralizedDiceLoss, FocalLoss, HausdorffDTLoss."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of its constructor."""

    def build(self, class_weights: Tensor | None = None) -> LossFunction:
        """Make the loss.

        Raises:
            ConfigError: MONAI has no such loss, it has no such argument, or it takes no class weights.
        """
        cls = _find(self.class_name)
        known = self._check_arguments(cls, class_weights)
        arguments = _tensors(self.arguments)
        if class_weights is not None:
            arguments["weight"] = class_weights

        @cache
        def make(exclusive: bool) -> Callable[[Tensor, Tensor], Tensor]:
            try:
                made: Callable[[Tensor, Tensor], Tensor] = cls(**_activation(known, exclusive) | arguments)
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"loss monai {self.class_name}: refuses its arguments: {error}. Mend them."
                ) from error
            return made

        make(True)

        def loss(logits: Tensor, target: Target) -> Tensor:
            compared = _without_unlabelled(compare(logits, target))
            function = make(compared.classes is not None)
            if compared.counted is None:
                grid = logits.shape[2:] or (1,)
                return function(*(each.reshape(*each.shape[:2], *grid) for each in (compared.logits, _truth(compared))))
            if self.class_name not in _ANY_ORDER:
                raise ConfigError(
                    f"loss monai {self.class_name}: looks at shapes, and some voxels of the batch are ignored; "
                    f"expected none. Use one of {', '.join(sorted(_ANY_ORDER))}, or a loss of our own."
                )
            return _over_counted(function, compared, together=bool(self.arguments.get("batch", False)))

        return loss

    def _check_arguments(self, cls: type[Any], class_weights: Tensor | None) -> list[str]:
        known = list(inspect.signature(cls).parameters)
        for argument in self.arguments:
            if argument not in known:
                raise ConfigError(
                    f"loss monai {self.class_name}: no argument called {argument!r}{did_you_mean(argument, known)}. "
                    f"Known: {', '.join(known)}"
                )
        if self.arguments.get("reduction", "mean") not in ("mean", "sum"):
            raise ConfigError(
                f"loss monai {self.class_name}: reduction is {self.arguments['reduction']!r}; "
                "expected 'mean' or 'sum', since a training step needs one number."
            )
        if class_weights is not None and ("weight" not in known or "weight" in self.arguments):
            raise ConfigError(
                f"loss monai {self.class_name}: cannot take the class weights, since it "
                f"{'is given others' if 'weight' in known else 'has no argument weight'}. Leave one of them out."
            )
        return known


def _find(name: str) -> Any:
    import monai.losses

    found = vars(monai.losses)
    known = [each for each, value in found.items() if inspect.isclass(value)]
    if name not in known:
        raise ConfigError(f"loss monai: MONAI has no loss called {name!r}{did_you_mean(name, known)}.")
    return found[name]


def _activation(known: list[str], exclusive: bool) -> dict[str, bool]:
    """Return the switches that fit the kind of classes, under the names that this loss has for them."""
    switches = {"to_onehot_y": exclusive, "softmax": exclusive, "use_softmax": exclusive, "sigmoid": not exclusive}
    return {name: value for name, value in switches.items() if name in known}


def _tensors(arguments: dict[str, Any]) -> dict[str, Any]:
    """Turn the lists that stand for weights or matrices into tensors."""
    return {
        name: torch.tensor(value) if name in _LISTS and isinstance(value, list) else value
        for name, value in arguments.items()
    }


def _without_unlabelled(compared: Comparison) -> Comparison:
    """Make overlapping classes surely absent from rows in which they were not labelled; exclusive ones are merged."""
    if compared.labelled is None or compared.members is None:
        return compared
    labelled = compared.labelled[:, :, None]
    logits = compared.logits.masked_fill(labelled == 0, IMPOSSIBLE)
    return replace(compared, logits=logits, members=compared.members * labelled)


def _truth(compared: Comparison) -> Tensor:
    """Return (B, 1, N) class indices or (B, K, N) members."""
    if compared.classes is not None:
        return compared.classes[:, None].to(torch.float32)
    assert compared.members is not None
    return compared.members


def _over_counted(function: Callable[[Tensor, Tensor], Tensor], compared: Comparison, *, together: bool) -> Tensor:
    """Apply the loss to the counted voxels of each row, averaged, or of all rows as one row."""
    assert compared.counted is not None
    rows = [
        (logits[:, counted], truth[:, counted])
        for logits, truth, counted in zip(compared.logits, _truth(compared), compared.counted[:, 0] > 0, strict=True)
        if counted.any()
    ]
    if not rows:
        return compared.logits.sum() * 0
    if together:
        rows = [(torch.cat([logits for logits, _ in rows], 1), torch.cat([truth for _, truth in rows], 1))]
    return torch.stack([function(logits[None], truth[None]) for logits, truth in rows]).mean()
