"""Many volumes in one file: names of members, reading, facts, and the store against single volumes."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, DataError
from pipeline.imaging.block import Member, member_of, read_block, source_file, survey_block
from pipeline.imaging.block_store import BlockCase, ingest_block, open_block
from pipeline.imaging.facts import PERCENTILES
from pipeline.imaging.normalise import measure
from pipeline.imaging.prepare import PrepareOptions

KEPT = PrepareOptions(crop="none")


@pytest.fixture
def block(tmp_path):
    values = np.random.default_rng(0).random((7, 4 * 4 * 4)).astype(np.float32)
    values[values < 0.5] = 0
    file = tmp_path / "grids.npz"
    np.savez_compressed(file, X_train=values, y_train=np.arange(7) % 3)
    return file, values.reshape(7, 4, 4, 4)


def test_a_member_comes_back_from_its_path():
    member = Member(Path("/data/some folder/grids.npz"), "X_train", 12)
    assert member_of(member.path) == member
    assert member_of(Path(str(member.path))) == member
    assert source_file(member.path) == member.file
    assert member_of(Path("/data/case#1/image.nii.gz")) is None
    assert source_file(Path("/data/image.nii.gz")) == Path("/data/image.nii.gz")


def test_flat_cubes_are_read_row_by_row(block):
    file, values = block
    assert np.array_equal(read_block(file, "X_train"), values)


def test_whole_numbers_are_kept_small(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.arange(2 * 27.0).reshape(2, 3, 3, 3))
    assert read_block(tmp_path / "a.npz", "X").dtype == np.int16


@pytest.mark.parametrize(
    ("array", "said"),
    [(np.zeros((3, 10)), "expected numbers"), (np.full((2, 8), np.nan), "NaN"), (np.zeros((0, 8)), "expected numbers")],
)
def test_what_is_no_block_is_refused(tmp_path, array, said):
    np.savez(tmp_path / "a.npz", X=array)
    with pytest.raises(DataError, match=said):
        read_block(tmp_path / "a.npz", "X")


def test_a_missing_array_and_a_missing_file_are_named(block, tmp_path):
    with pytest.raises(DataError, match="no array 'X_valid'"):
        read_block(block[0], "X_valid")
    with pytest.raises(DataError, match="cannot be read"):
        read_block(tmp_path / "none.npz", "X")


def test_an_npz_with_objects_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="cannot be read"):
        read_block(tmp_path / "a.npz", "X")


def test_h5_files_are_read_too(block, tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "grids.h5", "w") as file:
        file["X_train"] = block[1].reshape(7, -1)
    assert np.array_equal(read_block(tmp_path / "grids.h5", "X_train"), block[1])


def test_facts_are_those_of_each_volume(block):
    file, values = block
    facts = survey_block(file, "X_train", {"a": 5, "b": 0})
    assert list(facts) == ["a", "b"]
    found = facts["a"].channels["image"]
    assert found.all.mean == pytest.approx(values[5].mean(), rel=1e-6)
    assert found.all.percentiles == pytest.approx(np.percentile(values[5], PERCENTILES).tolist(), rel=1e-6)
    assert found.nonzero == pytest.approx((values[5] != 0).mean())
    assert found.voxels_sha256 != facts["b"].channels["image"].voxels_sha256
    assert facts["a"].geometry.shape == (4, 4, 4)


def test_an_index_beyond_the_end_is_refused(block):
    with pytest.raises(DataError, match="holds 7 volumes"):
        survey_block(block[0], "X_train", {"a": 7})


def test_stored_volumes_come_back_bit_by_bit_with_the_statistics_of_single_ones(block, tmp_path):
    file, values = block
    assert ingest_block(file, "X_train", KEPT, tmp_path / "entry") == (4, 4, 4)
    stored = open_block(tmp_path / "entry")
    for index in range(7):
        case = BlockCase(f"c{index}", stored, index)
        assert np.array_equal(case.read((0, 0, 0), case.shape)[0], values[index])
        assert np.array_equal(case.read((1, 0, 2), (3, 4, 4))[0], values[index, 1:3, :, 2:])
        alone, found = measure(values[index]), case.meta.stats[0]
        assert (found.minimum, found.maximum) == (alone.minimum, alone.maximum)
        assert found.body.mean == pytest.approx(alone.body.mean)
        assert found.body.std == pytest.approx(alone.body.std)
        for percent in (0.5, 50, 99.5):
            assert found.body.percentile(percent) == pytest.approx(alone.body.percentile(percent), abs=1e-6)


def test_storing_again_does_nothing(block, tmp_path):
    ingest_block(block[0], "X_train", KEPT, tmp_path / "entry")
    before = (tmp_path / "entry" / "block.json").stat().st_mtime_ns
    ingest_block(block[0], "X_train", KEPT, tmp_path / "entry")
    assert (tmp_path / "entry" / "block.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("changed", [{"crop": "body"}, {"spacing_mm": (2, 2, 2)}, {"resize": (8, 8, 8)}])
def test_options_that_would_change_volumes_are_refused(block, tmp_path, changed):
    with pytest.raises(ConfigError, match="kept as they are"):
        ingest_block(block[0], "X_train", PrepareOptions.model_validate({"crop": "none"} | changed), tmp_path / "entry")


def test_a_damaged_entry_is_named(tmp_path):
    with pytest.raises(DataError, match="Delete the folder"):
        open_block(tmp_path)
