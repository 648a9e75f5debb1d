"""Files on disk: whole or not at all, one owner a folder, results found again by their key."""

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

RESULT = "result.json"
"""Its presence means that the stage finished; it is renamed into place last."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary name to write to; rename it to `path` when the block ends well.

    The temporary name keeps the ending of `path`, since image writers choose the format by it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; rename it to `path` when the block ends well.

    Where `path` appeared in the meantime, it stays and the new one is dropped: entries are
    named by their content, so both are equal.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{path.name}")
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


@contextmanager
def only_owner(folder: Path) -> Iterator[None]:
    """Own a folder for the length of the block.

    An advisory lock of the kernel: it ends with the process however that dies, so no lock is ever
    stale. The pid in the file is for the message only.

    Raises:
        ConfigError: another process owns the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise ConfigError(
                f"{folder}: another run owns this folder ({lock.read().strip() or 'process unknown'}). "
                "Wait for it, end it, or give this run another folder with --set machine.runs=FOLDER."
            ) from None
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
        lock.flush()
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed run left directly in `folder`; only its owner may call this."""
    for left in folder.glob(".tmp-*"):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _flush(file: Path) -> None:
    """Make sure that the bytes are on disk before the name is."""
    if file.is_file():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
