"""A plan as YAML: every section, with the reason for each value as a comment above it."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

_WIDTH = 118


@dataclass(frozen=True)
class Plan:
    """A proposed configuration."""

    tree: Mapping[str, Any]
    """Sections as plain values, in the order of the configuration; only what is stated or planned."""
    reasons: Mapping[str, str]
    """Path of a value, such as `sample.patch_size` -> why it is so."""
    heading: Sequence[str]
    """Lines on top: what it was made from, and what it will cost."""

    def to_yaml(self) -> str:
        """Return the file; read back, it gives `tree`."""
        lines = [line for text in self.heading for line in _comment(text, 0)]
        for name, value in self.tree.items():
            lines += _section(name, value, self.reasons)
        return "\n".join(lines) + "\n"


def _section(name: str, value: Any, reasons: Mapping[str, str]) -> list[str]:
    """Write a section: on lines of their own where some of its values have reasons, else on one."""
    inside = isinstance(value, Mapping) and any(path.startswith(f"{name}.") for path in reasons)
    lines = _comment(reasons[name], 0) if name in reasons else []
    if not inside:
        return [*lines, *_value(name, value, 0)]
    lines.append(f"{name}:")
    for key, inner in value.items():
        reason = reasons.get(f"{name}.{key}")
        lines += [*(_comment(reason, 2) if reason else []), *_value(key, inner, 2)]
    return lines


def _comment(text: str, indent: int) -> list[str]:
    space = " " * indent
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{space}# ", subsequent_indent=f"{space}# ", break_long_words=False
    )


def _value(key: Any, value: Any, indent: int) -> list[str]:
    style = None if isinstance(value, Mapping | list) else False
    text = yaml.safe_dump(
        {key: value}, default_flow_style=style, sort_keys=False, allow_unicode=True, width=_WIDTH - indent
    )
    if isinstance(value, Mapping | list):
        flow = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6).strip()
        label = yaml.safe_dump(key).splitlines()[0]
        if len(flow) + indent + len(label) + 2 <= _WIDTH:
            text = f"{label}: {flow}"
    return [" " * indent + line for line in text.splitlines()]
