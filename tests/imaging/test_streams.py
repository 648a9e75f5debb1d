"""Damage in compressed streams is found, whatever the format that carries them."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.errors import DataError
from pipeline.imaging import streams


def _read_all(path, count):
    array = np.empty(count, np.uint8)
    with streams.open_checked(path) as stream:
        streams.fill(stream, array)
        streams.expect_end(stream, count)
    return array.tobytes()


CONTENT = np.random.default_rng(1).integers(0, 60, 3_000_000).astype(np.uint8).tobytes()


@pytest.fixture
def packed():
    return gzip.compress(CONTENT, 1)


def test_plain_and_compressed_files_are_known_by_content(tmp_path, packed):
    for name, content in {"a.gz": CONTENT, "b.nii": packed}.items():
        (tmp_path / name).write_bytes(content)
        assert _read_all(tmp_path / name, len(CONTENT)) == CONTENT


def test_several_members_are_one_stream(tmp_path):
    # The last member's trailer speaks of 10 bytes only: the size there is no more than a hint.
    (tmp_path / "a.gz").write_bytes(gzip.compress(CONTENT[:1000]) + gzip.compress(CONTENT[1000:-10]) +
                                    gzip.compress(CONTENT[-10:]))  # fmt: skip
    assert _read_all(tmp_path / "a.gz", len(CONTENT)) == CONTENT


@pytest.mark.parametrize("keep", [0.0001, 0.5, 0.999, -1, -5, -9])
def test_a_truncated_stream_is_refused(tmp_path, packed, keep):
    (tmp_path / "a.gz").write_bytes(packed[: int(len(packed) * keep) if keep > 0 else keep])
    with pytest.raises(DataError, match="cut short"):
        _read_all(tmp_path / "a.gz", len(CONTENT))


@pytest.mark.parametrize("at", [0.2, 0.7, -6, -2])
def test_a_damaged_stream_is_refused(tmp_path, packed, at):
    damaged = bytearray(packed)
    damaged[int(len(packed) * at) if at > 0 else at] ^= 0x11
    (tmp_path / "a.gz").write_bytes(damaged)
    with pytest.raises(DataError, match=r"damaged|cut short|header lies"):
        _read_all(tmp_path / "a.gz", len(CONTENT))


def test_bytes_beyond_the_expected_are_refused(tmp_path, packed):
    (tmp_path / "a.gz").write_bytes(packed)
    with pytest.raises(DataError, match="more bytes"):
        _read_all(tmp_path / "a.gz", len(CONTENT) - 1)


def test_a_file_that_cannot_be_opened_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="No such file"), streams.open_checked(tmp_path / "absent.gz"):
        pass


def test_memory_is_not_taken_for_what_a_file_cannot_hold(tmp_path, packed):
    (tmp_path / "a.gz").write_bytes(packed)
    assert streams.can_hold(tmp_path / "a.gz", len(CONTENT))
    assert not streams.can_hold(tmp_path / "a.gz", len(packed) * 1033)


def _volume_file(path, compressed):
    voxels = np.random.default_rng(2).integers(0, 50, (20, 30, 40)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), compressed)
    return path


FORMATS = [("a.mha", streams.check_metaimage), ("a.mhd", streams.check_metaimage),
           ("a.nrrd", streams.check_nrrd), ("a.nhdr", streams.check_nrrd)]  # fmt: skip


@pytest.mark.parametrize(("name", "check"), FORMATS)
@pytest.mark.parametrize("compressed", [True, False])
def test_sound_metaimages_and_nrrds_pass(tmp_path, name, check, compressed):
    check(_volume_file(tmp_path / name, compressed))


def _data_file(header):
    others = [file for file in header.parent.iterdir() if file != header]
    return others[0] if others else header


@pytest.mark.parametrize(("name", "check"), FORMATS)
@pytest.mark.parametrize("damage", ["cut", "flip", "trailer"])
def test_damaged_compressed_metaimages_and_nrrds_are_refused(tmp_path, name, check, damage):
    header = _volume_file(tmp_path / name, compressed=True)
    data = _data_file(header)
    content = bytearray(data.read_bytes())
    if damage == "cut":
        content = content[: len(content) * 2 // 3]
    else:
        content[len(content) // 2 if damage == "flip" else -3] ^= 0x11
    data.write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|cut short|header lies"):
        check(header)


def test_a_truncated_plain_metaimage_is_refused(tmp_path):
    path = _volume_file(tmp_path / "a.mha", compressed=False)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="cut short"):
        streams.check_metaimage(path)


@pytest.mark.parametrize(("name", "check"), [FORMATS[1], FORMATS[3]])
def test_a_header_without_its_voxel_file_is_refused(tmp_path, name, check):
    header = _volume_file(tmp_path / name, compressed=True)
    _data_file(header).unlink()
    with pytest.raises(DataError, match="missing beside it"):
        check(header)
