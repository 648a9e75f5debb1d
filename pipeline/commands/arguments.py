"""Arguments that several commands share."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import RunConfig
    from pipeline.datasets.base import Dataset


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


def named_dataset(arguments: argparse.Namespace) -> "Dataset":
    """Return the data set plug-in `arguments.format` on `arguments.source`, with its options from `--set`.

    Raises:
        ConfigError: there is no such plug-in, it reads no folder or file, or an option does not fit.
    """
    from pydantic import ValidationError

    from pipeline.config import merge, problems
    from pipeline.config import override as parse_override
    from pipeline.datasets.base import datasets
    from pipeline.errors import join_problems

    cls = datasets.get(arguments.format)
    field = "folder" if "folder" in cls.model_fields and "path" not in cls.model_fields else "path"
    if field not in cls.model_fields:
        raise ConfigError(
            f"import {arguments.format}: this data set reads no folder or file; name it in a config instead."
        )
    options: dict[str, object] = {"name": arguments.format, field: str(arguments.source)}
    for text in arguments.overrides:
        option, _, value = text.partition("=")
        # YAML would take a pattern that starts with a field for a mapping.
        is_pattern = value.startswith(("{case}", "{group}", "{site}"))
        options = merge(options, {option: value} if is_pattern else parse_override(text))
    try:
        return cls.model_validate(options)
    except ValidationError as error:
        raise ConfigError(join_problems(f"import {arguments.format}", list(problems(error.errors(), cls)))) from None
