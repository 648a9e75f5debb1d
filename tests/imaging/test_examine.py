"""What one look at a case says agrees with NumPy, hashlib and nibabel."""

import hashlib
from itertools import permutations, product

import numpy as np
import pytest

from pipeline.errors import DataError
from pipeline.imaging.examine import examine_block, examine_case, intensity, label_values, matches
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image, write_mask

RNG = np.random.default_rng(8)
GRID = Geometry(shape=(5, 6, 7), spacing_mm=(2.0, 1.0, 0.5))


@pytest.mark.parametrize("kind", ["u1", "i2", "u4", "i8", "f4", "f8"])
@pytest.mark.parametrize("number", [1, 7, 600_000])
def test_intensity_equals_numpy(kind, number):
    values = RNG.integers(-50 if kind[0] != "u" else 0, 120, number).astype(kind)
    found = intensity(values)
    assert (found.minimum, found.maximum, found.voxels) == (values.min(), values.max(), number)
    assert found.total == pytest.approx(values.astype(float).sum())
    assert found.mean == pytest.approx(values.astype(float).mean())
    assert found.median == pytest.approx(np.median(values), abs=3)
    assert found.std == pytest.approx(values.astype(float).std(), rel=0.02, abs=1e-9)


def test_voxels_that_are_no_numbers_are_counted_and_left_out():
    values = np.arange(10, dtype=np.float32)
    values[2:4], values[7], values[8] = np.nan, np.inf, -np.inf
    found = intensity(values)
    assert (found.nan, found.infinite, found.minimum, found.maximum) == (2, 2, 0, 9)
    found = intensity(np.full(4, np.nan))
    assert (found.nan, found.infinite, found.voxels) == (4, 0, 4)


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "i8", "f4", "f8"])
def test_label_values_equal_numpy(kind):
    values = RNG.choice([0, 0, 0, 1, 2, 100] + ([-3] if kind[0] != "u" else []), (40, 50)).astype(kind)
    counts, fractions = label_values(values)
    expected = dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True))
    assert counts == expected
    assert fractions == {}


def test_wide_labels_and_fractions():
    assert label_values(np.array([0, 1 << 40, 1 << 40]))[0] == {0: 1, 1 << 40: 2}
    counts, fractions = label_values(np.array([0, 0.5, 0.5, 1.00001, 2.25]))
    assert counts == {0: 1, 1: 1}
    assert fractions == {0.5: 2, 2.25: 1}
    assert label_values(np.zeros(5)) == ({0: 5}, {})


def test_case(tmp_path):
    image, mask = RNG.normal(0, 1, GRID.shape).astype(np.float32), np.zeros(GRID.shape, np.uint8)
    mask[1:3] = 4
    write_image(Volume(image[None], GRID), tmp_path / "image.nii.gz")
    write_mask(mask, GRID, tmp_path / "label.nii.gz")
    found = examine_case({"t1": tmp_path / "image.nii.gz"}, tmp_path / "label.nii.gz", "c")
    facts = found.images["t1"]
    assert facts.sha256 == hashlib.sha256((tmp_path / "image.nii.gz").read_bytes()).hexdigest()
    assert (facts.dtype, facts.refused, facts.is_there) == ("float32", "", True)
    assert facts.geometry.shape == GRID.shape
    assert facts.forms.used == "sform"
    assert found.label.counts == {0: 5 * 42 - 84, 4: 84}


def test_channels_of_one_file(tmp_path):
    both = RNG.normal(0, 1, (2, *GRID.shape)).astype(np.float32)
    write_image(Volume(both, GRID), tmp_path / "both.nii.gz")
    found = examine_case({"a": tmp_path / "both.nii.gz", "b": tmp_path / "both.nii.gz"}, None, "c")
    assert [one.intensity.maximum for one in found.images.values()] == [channel.max() for channel in both]
    assert "2 volumes" in examine_case({"a": tmp_path / "both.nii.gz"}, None, "c").images["a"].refused


def test_faults_are_told_and_never_raised(tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"\x1f\x8bnothing")
    found = examine_case({"image": tmp_path / "bad.nii.gz"}, tmp_path / "none.nii.gz", "c")
    assert found.images["image"].refused
    assert found.images["image"].sha256
    assert not found.label.is_there
    assert found.geometry is None


def test_block(tmp_path):
    grids = RNG.random((4, 3, 3, 3)).astype(np.float32)
    grids[3] = grids[0]
    np.savez(tmp_path / "x.npz", X=grids)
    found = examine_block(tmp_path / "x.npz", "X", {"a": 0, "b": 2, "c": 3})
    assert found["a"].images["image"].sha256 == found["c"].images["image"].sha256
    assert found["a"].images["image"].sha256 != found["b"].images["image"].sha256
    assert found["b"].images["image"].intensity.maximum == grids[2].max()
    with pytest.raises(DataError, match="expected at least 10"):
        examine_block(tmp_path / "x.npz", "X", {"a": 9})


def test_every_turned_copy_matches_and_no_other(tmp_path):
    voxels = RNG.integers(0, 1000, (4, 5, 6)).astype(np.int16)
    paths = []
    for number, (axes, steps) in enumerate(product(permutations(range(3)), product((1, -1), repeat=3))):
        turned = voxels.transpose(axes)[tuple(slice(None, None, step) for step in steps)]
        paths.append(tmp_path / f"{number}.nii")
        write_image(
            Volume(np.ascontiguousarray(turned)[None].astype(np.float32), Geometry(shape=turned.shape)), paths[-1]
        )
    other = voxels.copy()
    other[0, 0, 0] += 1
    write_image(Volume(other[None], Geometry(shape=other.shape)), tmp_path / "other.nii")
    found = matches([*paths, tmp_path / "other.nii", tmp_path / "absent.nii"])
    assert {at for at, earlier, how in found if earlier == 0 and how == "turned"} == set(range(1, 48))
    assert matches([paths[0], paths[0]]) == [(1, 0, "re-saved")]
    assert matches([paths[0], paths[1]], is_label=True) == []
