"""Byte streams of volume files, plain or compressed, read with their checksums and lengths verified."""

import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from pipeline.errors import DataError

_BLOCK = 1 << 20
"""Bytes decoded at a time: what fits in the processor's cache costs no trip through memory."""
_MOST_EXPANSION = 1032
"""Deflate cannot make more bytes than this out of one."""
_DAMAGED: Any = (gzip.BadGzipFile, isal_zlib.IsalError)
_GZIP_MAGIC = b"\x1f\x8b"
_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip


@contextmanager
def open_checked(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading; where its first bytes say gzip, through its decoder.

    The decoder checks the CRC and the length of each gzip member when its end is reached, so a reader
    must go on to the end (`expect_end`). Several members, one after the other, are one stream.

    Raises:
        DataError: the file cannot be opened, or while it is read, its stream is cut short or damaged.
    """
    try:
        with path.open("rb") as file:
            if is_gzip(path):
                with igzip.open(file, "rb") as stream:
                    yield stream
            else:
                yield file
    except EOFError:
        raise DataError("the file is cut short: its compressed stream has no end. Copy or export it again.") from None
    except _DAMAGED as error:
        raise DataError(f"the file is damaged ({_short(error)}). Copy or export it again.") from None
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or type(error).__name__}.") from None


def is_gzip(path: Path) -> bool:
    """Say whether a file is gzip by its first bytes, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == _GZIP_MAGIC


def can_hold(path: Path, expected: int) -> bool:
    """Say whether a file can give so many bytes at all; asked before memory is taken for them."""
    return expected <= path.stat().st_size * (_MOST_EXPANSION if is_gzip(path) else 1)


def fill(stream: IO[bytes], array: NDArray[Any]) -> None:
    """Read a contiguous array's bytes straight into it.

    Raises:
        DataError: the stream ends before.
    """
    view = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(view):
        count = stream.readinto(view[done : done + _BLOCK])  # type: ignore[attr-defined]
        if not count:
            raise DataError(
                f"the file is cut short or its header lies: found {done} bytes of voxels; expected {len(view)}. "
                "Copy or export it again."
            )
        done += count


def expect_end(stream: IO[bytes], expected: int) -> None:
    """Read the end of a stream, where its checksum is, and refuse bytes beyond.

    Raises:
        DataError: there is more than the `expected` number of voxel bytes that were read.
    """
    if stream.read(1):
        raise DataError(
            f"the header lies: there are more bytes than the {expected} of its voxels. Export the file again."
        )


def check_metaimage(path: Path) -> None:
    """Verify length and checksum of the voxels of an `.mha` or `.mhd` file.

    SimpleITK reads a damaged compressed MetaImage and returns what it could decode, with a note on stderr.

    Raises:
        DataError: the voxels are cut short or damaged, or their file is missing.
    """
    with open_checked(path) as file:
        fields, start = _fields(file, separator="=", last="ElementDataFile")
    place = fields.get("elementdatafile", "")
    if not place or "ndims" not in fields:
        raise DataError("it is no MetaImage: its header is not there, or not whole. Check the file.")
    if place == "LIST" or "%" in place:
        return
    data = path if place.upper() == "LOCAL" else path.parent / place
    if not data.is_file():
        raise DataError(f"its voxel file {place!r} is missing beside it.")
    expected = _meta_bytes(fields)
    if fields.get("compresseddata", "").lower() == "true":
        _check_zlib(data, start if data == path else 0, expected)
    elif expected is not None and data == path and data.stat().st_size - start < expected:
        found = data.stat().st_size - start
        raise DataError(f"the file is cut short: found {found} bytes of voxels; expected {expected}.")


def check_nrrd(path: Path) -> None:
    """Verify the checksum of the gzip stream of a `.nrrd` or `.nhdr` file, which SimpleITK may pass over.

    Raises:
        DataError: the voxels are cut short or damaged, or their file is missing.
    """
    with open_checked(path) as file:
        fields, start = _fields(file, separator=":", last="")
    place = fields.get("data file", fields.get("datafile", ""))
    if place.startswith("LIST") or "%" in place:
        return
    data = path.parent / place if place else path
    if not data.is_file():
        raise DataError(f"its voxel file {place!r} is missing beside it.")
    if fields.get("encoding", "") in ("gzip", "gz"):
        _check_gzip(data, 0 if place else start)


def _check_gzip(path: Path, start: int) -> None:
    with open_checked(path) as file:
        if start == 0:
            _drain(file)
            return
        file.seek(start)
        with igzip.open(file, "rb") as stream:
            _drain(stream)


def _drain(stream: IO[bytes]) -> None:
    while stream.read(_BLOCK):
        pass


def _check_zlib(path: Path, start: int, expected: int | None) -> None:
    decoder, found = isal_zlib.decompressobj(), 0
    with open_checked(path) as file:
        file.seek(start)
        while not decoder.eof and (block := file.read(_BLOCK)):
            found += len(decoder.decompress(block))
    if not decoder.eof:
        raise DataError("the file is cut short: its compressed stream has no end. Copy or export it again.")
    if expected is not None and found != expected:
        raise DataError(f"the header lies: found {found} bytes of voxels; expected {expected}. Export the file again.")


def _fields(file: IO[bytes], *, separator: str, last: str) -> tuple[dict[str, str], int]:
    """Read `key = value` lines up to the key `last` or an empty line; return them and where the data starts."""
    fields: dict[str, str] = {}
    for _ in range(10_000):
        line = file.readline(65_536).decode("latin-1")
        if not line.strip():
            break
        key, _, value = line.partition(separator)
        fields[key.strip().lower()] = value.strip()
        if last and key.strip() == last:
            break
    return fields, file.tell()


def _meta_bytes(fields: Mapping[str, str]) -> int | None:
    """Return the number of bytes that a MetaImage header promises, or None where it says that in other ways."""
    size = fields.get("dimsize", "").split()
    each = _META_BYTES.get(fields.get("elementtype", "").removesuffix("_ARRAY"))
    channels = fields.get("elementnumberofchannels", "1")
    if each is None or not size or not all(text.isdecimal() for text in [*size, channels]):
        return None
    return prod(map(int, size)) * int(channels) * each


def _short(error: Exception) -> str:
    """Return an error's text in one line, without the bytes that some quote."""
    return str(error).split("(b")[0].strip().rstrip(".") or type(error).__name__
