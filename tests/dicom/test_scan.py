"""Looking through trees: what is DICOM and what is not, files that break readers, and privacy of what is kept."""

import dataclasses

import pytest

from pipeline.dicom import header
from pipeline.dicom import scan as scan_module
from pipeline.dicom.scan import scan
from pipeline.errors import DataError


def test_counts_what_is_not_dicom(tmp_path, synthetic, pydicom_files):
    synthetic.write(synthetic.make(1), tmp_path / "deep" / "er")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "empty.dcm").write_bytes(b"")
    (tmp_path / "INDEX").write_bytes((pydicom_files / "dicomdirtests" / "DICOMDIR").read_bytes())
    found = scan([tmp_path])
    assert found.counts == {"files": 13, "not DICOM": 1, "DICOMDIR": 1, "damaged": 1}
    assert len(found.planes) == 10


def test_file_without_preamble_is_dicom(tmp_path, synthetic):
    (path, *_) = synthetic.write(synthetic.make(1), tmp_path / "a")
    bare = tmp_path / "bare"
    bare.write_bytes(path.read_bytes()[132:])
    assert len(scan([bare]).planes) == 1


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such file or folder"):
        scan([tmp_path / "gone"])


def test_every_prefix_of_a_file_is_survived(tmp_path, synthetic):
    (path, *_) = synthetic.write(synthetic.make(1), tmp_path / "a")
    raw = path.read_bytes()
    cut = tmp_path / "cut"
    for length in range(1, len(raw), 97):
        cut.write_bytes(raw[:length])
        for plane in scan([cut]).planes:
            assert plane.header.pixels.fault in ("truncated", "no image")


def test_random_damage_is_survived(tmp_path, synthetic):
    made = synthetic.make(1)
    (path, *_) = synthetic.write(made, tmp_path / "a")
    raw = bytearray(path.read_bytes())
    for number in range(30):
        damaged = bytearray(raw)
        for at in made.rng.integers(132, 1200, 4):
            damaged[at] = int(made.rng.integers(256))
        file = tmp_path / "damaged"
        file.write_bytes(damaged)
        counts = scan([file]).counts
        assert counts["files"] == 1, number


def test_workers_find_the_same(tmp_path, synthetic, monkeypatch):
    synthetic.write(synthetic.make(1), tmp_path)
    monkeypatch.setattr(scan_module, "CHUNK", 4)
    monkeypatch.setattr(scan_module, "_WORTH_WORKERS", 1)
    alone = scan([tmp_path], workers=1)
    together = scan([tmp_path], workers=2)
    unkeyed = [dataclasses.replace(plane.header, patient="") for plane in alone.planes]
    assert [dataclasses.replace(plane.header, patient="") for plane in together.planes] == unkeyed
    assert len({plane.header.patient for plane in together.planes}) == 1


def test_no_identity_is_kept(tmp_path, synthetic):
    synthetic.write(synthetic.make(1), tmp_path)
    kept = repr(scan([tmp_path])).lower()
    assert not any(word in kept for word in synthetic.PRIVATE_WORDS)


def test_small_deflated_bomb_is_not_inflated(tmp_path, synthetic):
    import zlib

    from pydicom.uid import DeflatedExplicitVRLittleEndian

    made = synthetic.make(1)
    made.syntax = DeflatedExplicitVRLittleEndian
    (path, *_) = synthetic.write(made, tmp_path / "a")
    raw = path.read_bytes()
    start = 144 + int.from_bytes(raw[140:144], "little")
    body = zlib.decompress(raw[start:], -15)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = tmp_path / "bomb"
    bomb.write_bytes(raw[:start] + packer.compress(body + bytes(50 << 20)) + packer.flush())
    assert len(scan([bomb]).planes) == 1


def test_header_that_no_reader_expects_costs_its_file_only(tmp_path, synthetic, monkeypatch):
    bad, *_ = synthetic.write(synthetic.make(1), tmp_path)

    def planes_of(dataset, common):
        if common.header.path == str(bad):
            raise NotImplementedError("Unknown Value Representation")
        return (common,)

    monkeypatch.setattr(header, "planes_of", planes_of)
    found = scan([tmp_path])
    assert (len(found.planes), found.counts["damaged"]) == (9, 1)


def test_link_that_leads_nowhere_and_closed_folder_are_told(tmp_path, synthetic, monkeypatch):
    synthetic.write(synthetic.make(1), tmp_path / "a")
    (tmp_path / "a" / "gone").symlink_to(tmp_path / "nowhere")
    assert scan([tmp_path]).counts["damaged"] == 1
    walk = scan_module.os.walk

    def closed(path, onerror):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "closed")))
        return walk(path)

    monkeypatch.setattr(scan_module.os, "walk", closed)
    assert scan([tmp_path]).counts["damaged"] == 2
