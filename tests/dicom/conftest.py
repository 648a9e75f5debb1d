"""The generator of synthetic series as a fixture, and the folder of pydicom's own test files."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pydicom
import pytest

from pipeline.dicom.audit import Judged, audit


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """The module that makes series."""
    return load_synthetic()


def load_synthetic() -> ModuleType:
    name = "tests_dicom_synthetic"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("synthetic.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `broken_kind` once for each kind of breakage."""
    if "broken_kind" in metafunc.fixturenames:
        metafunc.parametrize("broken_kind", list(load_synthetic().BROKEN))


@pytest.fixture(scope="session")
def pydicom_files() -> Path:
    """The test files that pydicom's wheel carries."""
    return Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.fixture
def judge_one(tmp_path, synthetic):
    """Write a series and return the one verdict on it."""

    def run(made, **options) -> Judged:
        synthetic.write(made, tmp_path)
        judged = audit([tmp_path], **options).judged
        assert len(judged) == 1, [(one.series.case_id, one.series.split_by) for one in judged]
        return judged[0]

    return run
