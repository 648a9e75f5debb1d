"""Fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several test processes share the cores: threads of each would only wait for one another.
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def _kernels_stay() -> Iterator[None]:
    """Nearly each test has a cache of its own: compiling every kernel anew into it would take minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.imaging.compiled.keep_kernels_in", lambda folder: None)
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real medical volumes that are not part of the repository; the test skips where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PIPELINE_TEST_DATA", default))
    if not (folder / "README.md").exists():
        pytest.skip(f"no real data at {folder}; set PIPELINE_TEST_DATA to a copy")
    return folder
