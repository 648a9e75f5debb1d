"""Who made a result: versions, machine, and the contents of source files."""

import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

from pipeline.version import __version__
from pipeline.workspace import write_json

LIBRARIES = ("torch", "monai", "SimpleITK", "numpy", "pandas", "scipy", "scikit-learn", "numba", "blosc2", "pydantic")


def package_version() -> str:
    """Return the version of this package."""
    return __version__


def environment() -> dict[str, Any]:
    """Return versions and machine facts that are recorded beside results, and never enter a stage key."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "pipeline": package_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "libraries": versions,
    }


def digest(value: object) -> str:
    """Return the sha256 of a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


class FileHashes:
    """sha256 of source files, remembered by path, size and modification time."""

    def __init__(self, folder: Path, *, forget: bool = False, remember: bool = True) -> None:
        self.folder, self.forget, self.remember = folder, forget, remember

    def sha256(self, path: Path) -> str:
        """Return the hash of a file, or of all files below a folder; `missing` where there is none."""
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            return digest([(str(file.relative_to(path)), self.sha256(file)) for file in inside])
        try:
            state = path.stat()
        except OSError:
            return "missing"
        note = self.folder / f"{hashlib.sha1(str(path.absolute()).encode()).hexdigest()}.json"
        key = [str(path.absolute()), state.st_size, state.st_mtime_ns]
        known = _read(note)
        if not self.forget and known.get("key") == key:
            return str(known["sha256"])
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if self.remember:
            write_json(note, {"key": key, "sha256": found})
        return found


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
