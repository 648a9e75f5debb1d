"""File patterns with named fields, such as `images/{case}.nii.gz`, and the files of a tree that fit them."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import DataError

FIELDS = ("case", "group", "site")
_TOKEN = re.compile(r"\{(\w*)\}|\*\*/|\*|\?")
_WILD = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}


@dataclass(frozen=True)
class Pattern:
    """A compiled pattern."""

    text: str
    expression: re.Pattern[str]
    literal: int
    """Characters that stand for themselves: of two patterns that fit a file, the one with more of them has it."""

    def fields(self, path: str) -> dict[str, str] | None:
        """Return the fields of a path, or None where it does not fit."""
        found = self.expression.fullmatch(path)
        return None if found is None else found.groupdict()


def compile_pattern(text: str, where: str) -> Pattern:
    """Compile a pattern.

    `{case}`, `{group}` and `{site}` stand for a part of a name; a field that stands twice must be equal both
    times. `*` is any part of a name, `?` one character, `**/` any folders.

    Args:
        text: The pattern, with `/` between folders.
        where: Option that it comes from, named in errors.

    Raises:
        DataError: an unknown field, or no `{case}`.
    """
    parts, at, literal, seen = [], 0, 0, set[str]()
    for token in _TOKEN.finditer(text):
        parts.append(re.escape(text[at : token.start()]))
        literal += token.start() - at
        at = token.end()
        name = token[1]
        if name is not None and name not in FIELDS:
            known = ", ".join(f"{{{field}}}" for field in FIELDS)
            raise DataError(f"{where}: {text!r} has the field {{{name}}}; expected {known}. Correct it.")
        if name is None:
            parts.append(_WILD[token[0]])
        else:
            parts.append(f"(?P={name})" if name in seen else f"(?P<{name}>[^/]+)")
            seen.add(name)
    if "case" not in seen:
        raise DataError(f"{where}: {text!r} has no field {{case}}; expected it where the cases differ. Add it.")
    return Pattern(text, re.compile("".join([*parts, re.escape(text[at:])])), literal + len(text) - at)


def files_below(folder: Path) -> list[str]:
    """Return the files of a tree as paths relative to it, in order; hidden ones are left out.

    Links to folders are followed, unless they lead back to a folder that they lie in.
    """
    return sorted(_walk(folder, ""))


def assign(files: list[str], patterns: Mapping[str, Pattern]) -> dict[str, dict[str, dict[str, str]]]:
    """Give each file to the most literal pattern that it fits.

    Returns:
        Name of the pattern -> file -> its fields.
    """
    found: dict[str, dict[str, dict[str, str]]] = {name: {} for name in patterns}
    ordered = sorted(patterns.items(), key=lambda item: -item[1].literal)
    for file in files:
        for name, pattern in ordered:
            fields = pattern.fields(file)
            if fields is not None:
                found[name][file] = fields
                break
    return found


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                yield prefix + entry.name
            elif entry.is_dir() and not _leads_back(entry):
                yield from _walk(folder / entry.name, f"{prefix}{entry.name}/")


def _leads_back(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())
