"""The command line: sets up the process, then hands over to one command."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

COMMANDS = {
    "run": "run a configuration, stage by stage",
    "predict": "predict new volumes with a trained model",
    "package": "put a trained model into one file",
    "verify": "predict a case again and compare",
    "check": "tell what is wrong with a data set, and repair what is safe",
    "plan": "propose a configuration from the facts of the data and this machine",
    "folds": "show how cases are divided into folds, and whether anything leaks between them",
    "options": "list the plug-ins and their options",
    "schema": "print the JSON Schema of the configuration",
    "evaluate": "score masks made elsewhere against a manifest",
    "import": "write a manifest of a data set",
    "export-dataset": "write a data set in the layout of nnU-Net or the Decathlon",
    "series": "list the series of a scanner's export, and what can be used",
    "inspect": "show a network, or one layer, as a table",
    "new-plugin": "write a small tested package with a data set or a network of your own",
}
"""Command -> one line of help; each lives in `commands/`, `import` in `import_.py`, `new-plugin` in `new_plugin.py`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that `arguments` names; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help") or words[0] not in COMMANDS:
        return _outer(words)
    name, rest = words[0], words[1:]
    module = importlib.import_module(f"pipeline.commands.{'import_' if name == 'import' else name.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"python -m pipeline {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(parser)
    return _guarded(module.main, parser.parse_args(rest))


def _outer(words: list[str]) -> int:
    width = max(len(name) for name in COMMANDS)
    table = "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m pipeline",
        description="Segmentation and classification of CT and MR volumes in 3-D.",
        epilog=f"commands:\n{table}\n\n'python -m pipeline COMMAND --help' tells a command's arguments.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    if not words:
        parser.print_help()
        return 2
    parser.parse_args(words)
    return 2


def _guarded(command, arguments: argparse.Namespace) -> int:  # type: ignore[no-untyped-def]
    """Run a command; what a user can mend becomes one message, a bug keeps its traceback."""
    import signal

    from pipeline.errors import PipelineError
    from pipeline.machine import keep_freed_memory

    keep_freed_memory()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return int(command(arguments))
    except PipelineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted. What was finished is kept; the same command goes on.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        import errno

        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOENT):
            logging.debug("", exc_info=True)
            print(f"ConfigError: {error.filename or error}: {error.strerror}. Name another place.", file=sys.stderr)
            return 2
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"StoppedError: the disk is full ({error.filename or error}). Free some space; the same command goes on.",
            file=sys.stderr,
        )
        return 3


def _terminated(signal_number: int, frame: object) -> None:
    print("Terminated. What was finished is kept; the same command goes on.", file=sys.stderr)
    sys.exit(128 + signal_number)


if __name__ == "__main__":
    sys.exit(main())
