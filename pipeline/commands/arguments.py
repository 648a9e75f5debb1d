"""Arguments that several commands share."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import RunConfig


def config_of(arguments: argparse.Namespace) -> "RunConfig":
    """Load the configuration that the arguments name, with its overrides."""
    from pipeline.config import load_config

    overrides = list(getattr(arguments, "overrides", []))
    if getattr(arguments, "max_memory", None) is not None:
        overrides.append(f"machine.max_memory_gb={arguments.max_memory}")
    return load_config(arguments.config, overrides)


def folds_of(text: str) -> Sequence[int] | None:
    """Turn `all`, `none` or `0,2` into None, an empty list, or the list of folds.

    Raises:
        ConfigError: it is none of these.
    """
    if text == "all":
        return None
    if text == "none":
        return []
    try:
        return sorted({int(word) for word in text.split(",")})
    except ValueError:
        raise ConfigError(f"--folds {text}: expected 'all', 'none', or numbers such as 0,2.") from None
