"""The errors a user can meet, each one message and an exit code."""

import re
from collections.abc import Sequence


class PipelineError(Exception):
    """Something the user can mend; the command prints the message and no traceback.

    Write it as: what is wrong, in which case or field: what was found; what is expected. What to do.
    """

    exit_code = 2


class ConfigError(PipelineError):
    """The configuration or the command line cannot be used as it is."""


class DataError(PipelineError):
    """A case, series or manifest cannot be used as it is."""


class ModelError(PipelineError):
    """A network, checkpoint or model package cannot be used as it is."""


class StoppedError(PipelineError):
    """Work began and could not be finished: diverged, disk full, out of memory."""

    exit_code = 3


class Interrupted(PipelineError):
    """A signal asked the work to end; what was done is saved."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def plural(count: int, noun: str) -> str:
    """Return `2 cases`, `1 case`, `3 patches`: a count with its noun in the right number."""
    if count == 1:
        return f"{count} {noun}"
    if re.search(r"[^aeiou]y$", noun):
        return f"{count} {noun[:-1]}ies"
    return f"{count} {noun}{'es' if re.search(r'(s|x|ch|sh)$', noun) else 's'}"


def listed(words: Sequence[str]) -> str:
    """Join words as a sentence does: `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def join_problems(where: str, problems: list[str]) -> str:
    """Put every problem of one place into one message, numbered when there are several."""
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    lines = "".join(f"\n  {number}. {problem}" for number, problem in enumerate(problems, 1))
    return f"{where} has {plural(len(problems), 'problem')}:{lines}"
