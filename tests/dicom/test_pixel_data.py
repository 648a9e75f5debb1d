"""Lengths and sizes of compressed pixel data, told from headers and from the first bytes of the coded image."""

import pytest

from pipeline.dicom.header import read_planes

ROWS = b"\x28\x00\x10\x00US\x02\x00"
CODED = ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm"]


def fault(path) -> str:
    return read_planes(str(path), b"key")[0].header.pixels.fault


@pytest.mark.parametrize("name", CODED)
def test_sound_files_have_no_fault(name, pydicom_files):
    assert fault(pydicom_files / name) == ""


@pytest.mark.parametrize("name", CODED[:2])
def test_header_of_another_size_than_the_coded_image_lies(name, pydicom_files, tmp_path):
    raw = (pydicom_files / name).read_bytes()
    assert ROWS in raw
    at = raw.index(ROWS) + len(ROWS)
    lying = tmp_path / "lying"
    lying.write_bytes(raw[:at] + (60000).to_bytes(2, "little") + raw[at + 2 :])
    assert fault(lying) == "lying lengths"


@pytest.mark.parametrize("name", CODED)
def test_file_cut_short_is_truncated(name, pydicom_files, tmp_path):
    raw = (pydicom_files / name).read_bytes()
    cut = tmp_path / "cut"
    cut.write_bytes(raw[: len(raw) - 600])
    assert fault(cut) == "truncated"


@pytest.mark.parametrize("name", CODED[:2])
def test_coded_image_without_end_is_truncated(name, pydicom_files, tmp_path):
    raw = (pydicom_files / name).read_bytes()
    at = raw.rindex(b"\xff\xd9")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(raw[:at] + b"\0\0" + raw[at + 2 :])
    assert fault(damaged) == "truncated"


def test_truncated_native_file(pydicom_files):
    assert fault(pydicom_files / "MR_truncated.dcm") == "truncated"
