"""One layer by itself: made from a short text, with the formula of its output size written out."""

import re
from collections.abc import Sequence
from typing import Any

from torch import nn

from pipeline.errors import ConfigError
from pipeline.plugin import did_you_mean

KINDS: dict[str, tuple[type[nn.Module], int]] = {
    f"{kind}{axes}d": (getattr(nn, f"{kind}{axes}d"), axes)
    for kind in ("Conv", "ConvTranspose", "MaxPool", "AvgPool")
    for axes in (1, 2, 3)
}
"""Name -> class of torch and number of spatial axes."""

_KEYS = {"kernel": "kernel_size", "stride": "stride", "padding": "padding", "dilation": "dilation", "groups": "groups",
         "output_padding": "output_padding"}  # fmt: skip
_AXES = {1: "L", 2: "HW", 3: "DHW"}


def parse_layer(text: str) -> nn.Module:
    """Make a layer from a text such as `Conv3d:1,2,kernel=2x3x3,padding=1` or `MaxPool2d:kernel=2`.

    Behind the colon come the channels in and out (not for poolings), then options; one number stands for all axes.

    Raises:
        ConfigError: no such layer or option, or torch refuses it.
    """
    name, _, rest = text.partition(":")
    if name not in KINDS:
        raise ConfigError(
            f"--layer: no layer called {name!r}{did_you_mean(name, KINDS)}. Known: {', '.join(KINDS)}. Expected for "
            "example Conv3d:1,2,kernel=2x3x3 or MaxPool3d:kernel=2."
        )
    kind, axes = KINDS[name]
    channels: list[int] = []
    options: dict[str, Any] = {}
    for word in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = word.partition("=")
        if not equals:
            channels.append(_number(word, text))
        elif key in _KEYS:
            options[_KEYS[key]] = _numbers(value, axes, text)
        else:
            raise ConfigError(f"--layer {text}: no option {key!r}{did_you_mean(key, _KEYS)}. Known: {', '.join(_KEYS)}")
    lowest = {"padding": 0, "output_padding": 0}
    for key, value in options.items():
        if min(value if isinstance(value, tuple) else (value,)) < lowest.get(key, 1):
            raise ConfigError(f"--layer {text}: {key} is {value}; expected {lowest.get(key, 1)} or more.")
    if isinstance(options.get("groups"), tuple):
        options["groups"] = options["groups"][0]
    try:
        return kind(*channels, **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--layer {text}: {' '.join(str(error).split())}. Expected for example Conv3d:1,2,kernel=2x3x3 or "
            "MaxPool3d:kernel=2."
        ) from None


def size_formula(layer: Any, shape: Sequence[int]) -> list[str]:
    """Return the formula of the output size, and a line for each axis with the numbers put in.

    Args:
        layer: From `parse_layer`.
        shape: Of the input (B, C, ...).
    """
    axes = len(shape) - 2
    if axes != KINDS[type(layer).__name__][1]:
        wanted = KINDS[type(layer).__name__][1] + 2
        raise ConfigError(f"--input: found {len(shape)} numbers; {type(layer).__name__} takes {wanted}, such as "
                          f"{','.join(['1', '1', '64', '96', '96'][:wanted])}.")  # fmt: skip
    numbers = {name: _each(getattr(layer, name, 1 if name == "dilation" else 0), axes)
               for name in ("kernel_size", "stride", "padding", "dilation", "output_padding")}  # fmt: skip
    is_transposed = "Transpose" in type(layer).__name__
    if is_transposed:
        lines = ["out = (in - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1"]
    else:
        lines = ["out = floor((in + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1"]
    for axis, n in enumerate(shape[2:]):
        k, s, p, d, o = (numbers[name][axis] for name in numbers)
        if is_transposed:
            text, out = (
                f"({n} - 1) * {s} - 2 * {p} + {d} * ({k} - 1) + {o} + 1",
                (n - 1) * s - 2 * p + d * (k - 1) + o + 1,
            )
        else:
            text, out = (
                f"floor(({n} + 2 * {p} - {d} * ({k} - 1) - 1) / {s}) + 1",
                (n + 2 * p - d * (k - 1) - 1) // s + 1,
            )
        lines.append(f"{_AXES[axes][axis]}:  {text} = {out}")
    return lines


def parse_shape(text: str) -> tuple[int, ...]:
    """Turn `1,1,301,512,512` into numbers.

    Raises:
        ConfigError: it is no list of three to five numbers above 0.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d*", word) for word in words) or not 3 <= len(words) <= 5:
        raise ConfigError(f"--input {text}: expected batch, channels and one to three sides, such as 1,1,64,96,96.")
    return tuple(map(int, words))


def _number(word: str, text: str) -> int:
    if not re.fullmatch(r"\d+", word):
        raise ConfigError(f"--layer {text}: found {word!r}; expected a whole number, or an option such as kernel=3.")
    return int(word)


def _numbers(value: str, axes: int, text: str) -> int | tuple[int, ...]:
    found = tuple(_number(word, text) for word in value.split("x"))
    if len(found) not in (1, axes):
        raise ConfigError(f"--layer {text}: found {value!r}; expected one number, or {axes} joined by x.")
    return found[0] if len(found) == 1 else found


def _each(value: Any, axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)
