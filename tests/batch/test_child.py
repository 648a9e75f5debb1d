"""The child that decodes: what kills it costs one case, its cause is told, and its voxels are those of the file."""

import os
import signal
import time
import timeit

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.batch.child import Child, read_in
from pipeline.batch.sources import Source
from pipeline.errors import DataError
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image


@pytest.fixture(scope="module")
def child():
    with Child(memory_bytes=1 << 30, seconds=30) as one:
        yield one


@pytest.fixture
def image(tmp_path):
    voxels = np.random.default_rng(1).normal(size=(1, 5, 6, 7)).astype(np.float32)
    volume = Volume(voxels, Geometry(shape=(5, 6, 7), spacing_mm=(2, 1, 0.5), origin=(1, 2, 3)))
    write_image(volume, tmp_path / "image.nii.gz")
    write_image(volume, tmp_path / "image.mha")
    write_image(volume, tmp_path / "image.nrrd")
    return volume


@pytest.mark.parametrize("name", ["image.nii.gz", "image.mha", "image.nrrd"])
def test_reads_files_as_they_are(name, child, image, tmp_path):
    read = read_in(child, ["image"])(Source("case", {"image": (tmp_path / name,)}))
    np.testing.assert_array_equal(read.voxels, image.voxels)
    np.testing.assert_allclose(read.geometry.origin, image.geometry.origin)
    assert read.voxels.dtype == np.float32


def test_is_reused_while_healthy(child, image, tmp_path):
    child.run("first", len, "abc")
    starts = child.starts
    for _ in range(3):
        read_in(child, ["image"])(Source("case", {"image": (tmp_path / "image.mha",)}))
    assert child.starts == starts


def test_never_imports_torch(child):
    look = "import sys; assert not {'torch', 'monai'} & set(sys.modules)"
    child.run("look", timeit.timeit, look, "pass", time.perf_counter, 1)


def test_crash_costs_one_case_and_is_named(child):
    with pytest.raises(DataError, match=r"case broken: .*killed by SIGABRT"):
        child.run("broken", os.abort)
    assert child.run("next", len, "abc") == 3


def test_exit_in_the_child_is_told(child):
    with pytest.raises(DataError, match="exit code 3"):
        child.run("odd", os._exit, 3)


def test_hang_is_ended():
    with Child(seconds=0.5) as hasty:
        with pytest.raises(DataError, match=r"case slow: .*more than 0.5 seconds"):
            hasty.run("slow", time.sleep, 60)
        assert hasty.run("next", len, "abc") == 3


def test_bomb_is_refused_and_the_child_replaced(child):
    child.run("first", len, "abc")
    starts = child.starts
    with pytest.raises(DataError, match=r"case bomb: .*more than the 1.0 GiB"):
        child.run("bomb", bytearray, 3 << 30)
    assert child.run("next", len, "abc") == 3
    assert child.starts == starts + 1


def test_bomb_in_native_code_is_refused(child):
    with pytest.raises(DataError, match=r"case bomb: "):
        child.run("bomb", sitk.Image, 2000, 2000, 1000, sitk.sitkFloat32)


def test_refusal_keeps_its_words(child, tmp_path):
    starts = child.starts
    with pytest.raises(DataError, match="case gone: image: there is no file"):
        read_in(child, ["image"])(Source("gone", {"image": (tmp_path / "gone.nii",)}))
    assert child.starts in (starts, starts + 1)


def test_bug_is_no_refusal(child):
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        child.run("odd", divmod, 1, 0)


def test_killed_child_is_replaced(child):
    child.run("first", len, "abc")
    os.kill(child._process.pid, signal.SIGKILL)
    child._process.join()
    assert child.run("next", len, "abc") == 3


def test_series_comes_back_as_it_was_written(child, tmp_path, synthetic):
    from pipeline.batch.exports import find_exports

    made = synthetic.make(1)
    synthetic.write(made, tmp_path)
    (source,) = find_exports([tmp_path]).sources
    np.testing.assert_array_equal(read_in(child, ["image"])(source).voxels[0], made.truth)
