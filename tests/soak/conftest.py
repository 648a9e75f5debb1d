"""Modules of other tests, loaded by their path: long tests do the same things more often."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def load(relative: str) -> ModuleType:
    name = "soak_" + relative.replace("/", "_")
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{relative}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return load("dicom/synthetic")


@pytest.fixture(scope="session")
def watching() -> ModuleType:
    return load("batch/test_watch")
