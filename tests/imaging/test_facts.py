"""The figures of a case equal those of NumPy and SciPy on the same voxels."""

import gzip
import hashlib

import numpy as np
import pytest
from scipy import ndimage

from pipeline.errors import DataError
from pipeline.imaging import facts as facts_module
from pipeline.imaging.facts import PERCENTILES, CaseFacts, class_facts, content_sha256, intensities, survey_case
from pipeline.imaging.labels import Labels
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image, write_mask
from pipeline.provenance import FileHashes

RNG = np.random.default_rng(12)
LABELS = Labels(values={0: "background", 1: "liver", 2: "spleen", 3: "kidney", 9: "ignore"})
GRID = Geometry(shape=(12, 14, 16), spacing_mm=(2.0, 1.0, 0.5), direction=(0, 0, 1, 1, 0, 0, 0, -1, 0))


def _expect(found, values):
    values = values.astype(np.float64)
    assert found.voxels == values.size
    assert (found.minimum, found.maximum) == (values.min(), values.max())
    np.testing.assert_allclose([found.mean, found.std], [values.mean(), values.std()], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.percentiles, np.percentile(values, PERCENTILES), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["u1", "i1", "i2", "u2", "i4", "u8", "f4", "f8"])
@pytest.mark.parametrize("number", [1, 2, 1001, 200_000])
def test_intensities_equal_numpy(kind, number):
    values = (RNG.gamma(2.0, 20.0, number) - (30 if kind[0] in "if" else 0)).clip(-100, 120).astype(kind)
    _expect(intensities(values), values)


def test_intensities_of_a_wide_range_equal_numpy():
    values = RNG.integers(-2_000_000_000, 2_000_000_000, 10_001).astype(np.int32)
    _expect(intensities(values), values)


def test_percentiles_of_very_many_values_are_those_of_an_even_sample(monkeypatch):
    monkeypatch.setattr(facts_module, "_MOST_SORTED", 5_000)
    values = RNG.normal(size=100_001).astype(np.float32)
    found = intensities(values)
    np.testing.assert_allclose(found.percentiles[2:-2], np.percentile(values, PERCENTILES)[2:-2], atol=0.1)
    np.testing.assert_allclose([found.mean, found.std], [values.mean(), values.std()], rtol=1e-3, atol=1e-6)


def test_percentile_by_its_number():
    found = intensities(np.arange(1001))
    assert found.percentile(50.0) == 500
    assert found.percentile(99.5) == 995


def test_classes_equal_scipy():
    mask = np.where(RNG.random(GRID.shape) < 0.04, RNG.integers(1, 3, GRID.shape), 0).astype(np.uint8)
    mask[0, 0, 0] = 255
    found = class_facts(mask, LABELS, voxel_ml=0.001)
    assert list(found) == ["liver", "spleen", "kidney"]
    for index, name in enumerate(found, 1):
        expected = mask == index
        assert found[name].voxels == expected.sum()
        assert found[name].volume_ml == pytest.approx(expected.sum() * 0.001)
        assert found[name].components == ndimage.label(expected, np.ones((3, 3, 3)))[1]
        if expected.any():
            places = np.argwhere(expected)
            assert found[name].start == tuple(places.min(0))
            assert found[name].stop == tuple(places.max(0) + 1)
    assert (found["kidney"].voxels, found["kidney"].components, found["kidney"].start) == (0, 0, None)


def _case(folder, *, image=None, mask=None):
    image = RNG.integers(-1000, 1000, GRID.shape).astype(np.int16) if image is None else image
    mask = np.zeros(GRID.shape, np.uint8) if mask is None else mask
    write_image(Volume(image[None], GRID), folder / "image.nii.gz")
    write_mask(mask, GRID, folder / "label.nii.gz")
    return {"CT": folder / "image.nii.gz"}, folder / "label.nii.gz"


def test_a_case_in_full(tmp_path):
    image = RNG.integers(-3, 1000, GRID.shape).astype(np.int16)
    mask = np.zeros(GRID.shape, np.uint8)
    mask[2:5, 3:9, 4:5] = 1
    mask[8:9, 10:12, 10:12] = 2
    mask[0] = 9
    images, label = _case(tmp_path, image=image, mask=mask)
    facts = survey_case(images, label, LABELS, "c1")
    assert CaseFacts.model_validate_json(facts.model_dump_json()) == facts

    channel = facts.channels["CT"]
    assert channel.dtype == "int16"
    assert channel.sha256 == hashlib.sha256((tmp_path / "image.nii.gz").read_bytes()).hexdigest()
    assert channel.nonzero == pytest.approx((image != 0).mean())
    _expect(channel.all, image)
    assert channel.foreground is not None
    _expect(channel.foreground, image[(mask > 0) & (mask < 9)])

    assert facts.ignored_voxels == (mask == 9).sum()
    assert facts.classes["liver"].volume_ml == pytest.approx(18 * 0.001)
    assert facts.present == ("liver", "spleen")
    assert facts.geometry.shape == GRID.shape
    # In the file, D runs to the left, H to the feet and W to the back.
    assert facts.canonical_shape == (14, 16, 12)
    assert facts.canonical_spacing_mm == pytest.approx((1.0, 0.5, 2.0))
    assert (facts.classes["liver"].start, facts.classes["liver"].stop) == ((5, 4, 2), (11, 5, 5))


def test_a_case_without_label_and_one_without_foreground(tmp_path):
    images, label = _case(tmp_path)
    bare = survey_case(images, None, Labels(), "c1")
    assert (bare.label_sha256, bare.classes, bare.channels["CT"].foreground) == ("", {}, None)
    empty = survey_case(images, label, LABELS, "c1")
    assert empty.present == ()
    assert empty.channels["CT"].foreground is None
    assert set(empty.classes) == {"liver", "spleen", "kidney"}


def test_copies_are_known_by_their_voxels_however_compressed(tmp_path):
    images, _ = _case(tmp_path)
    (tmp_path / "copy.nii.gz").write_bytes(gzip.compress(gzip.decompress(images["CT"].read_bytes()), 9))
    one = survey_case(images, None, Labels(), "c1").channels["CT"]
    two = survey_case({"CT": tmp_path / "copy.nii.gz"}, None, Labels(), "c2").channels["CT"]
    assert one.sha256 != two.sha256
    assert one.voxels_sha256 == two.voxels_sha256


def test_content_hashes_equal_those_that_are_remembered(tmp_path):
    images, label = _case(tmp_path / "data")
    hashes = FileHashes(tmp_path / "notes")
    for path in (images["CT"], label, tmp_path / "data"):
        assert content_sha256(path) == hashes.sha256(path)


def test_every_problem_of_a_case_is_named(tmp_path):
    images, label = _case(tmp_path, image=np.full(GRID.shape, 7, np.int16), mask=np.full(GRID.shape, 5, np.uint8))
    with pytest.raises(DataError, match=r"case c1: image: every voxel is 7.*; label: found 1 unknown value: 5"):
        survey_case(images, label, LABELS, "c1")


def test_real_hippocampi(real_data):
    folder = real_data / "Task04_Hippocampus"
    labels = Labels(values={0: "background", 1: "anterior", 2: "posterior"})
    for path in sorted((folder / "imagesTr").glob("*.nii.gz"))[::10]:
        facts = survey_case({"MR": path}, folder / "labelsTr" / path.name, labels, path.name[:-7])
        assert facts.present == ("anterior", "posterior")
        assert 0.3 < facts.classes["anterior"].volume_ml < 4
        assert facts.canonical_spacing_mm == (1.0, 1.0, 1.0)
