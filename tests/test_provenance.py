"""Source files are known by their content."""

import hashlib
import os
from pathlib import Path

from pipeline.provenance import FileHashes, digest


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    file, notes = tmp_path / "x.bin", tmp_path / "notes"
    file.write_bytes(b"one")
    hashes = FileHashes(notes)
    assert hashes.sha256(file) == hashlib.sha256(b"one").hexdigest()
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"two")
    os.utime(file, ns=times)
    assert hashes.sha256(file) == hashlib.sha256(b"one").hexdigest()  # same path, size and time: trusted
    assert FileHashes(notes, forget=True).sha256(file) == hashlib.sha256(b"two").hexdigest()
    file.write_bytes(b"three")
    assert hashes.sha256(file) == hashlib.sha256(b"three").hexdigest()


def test_a_folder_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1").write_bytes(b"a")
    hashes = FileHashes(tmp_path / "notes", remember=False)
    before = hashes.sha256(tmp_path / "series")
    (tmp_path / "series" / "1").write_bytes(b"b")
    assert hashes.sha256(tmp_path / "series") != before
    assert hashes.sha256(tmp_path / "nothing") == "missing"
    assert not (tmp_path / "notes").exists()


def test_the_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
