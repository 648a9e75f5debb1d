"""The generator of synthetic series, as the tests of `dicom/` have it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The module that makes series."""
    name = "tests_dicom_synthetic"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "dicom" / "synthetic.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]
