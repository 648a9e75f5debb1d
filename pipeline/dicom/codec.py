"""Compressed frames decoded by GDCM, each wrapped in a minimal file of our own so that it sees no other header."""

import hashlib
import io
import logging
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from numpy.typing import NDArray

from pipeline.dicom.pixel_data import DEFLATED, ENCAPSULATED, frame_fragments
from pipeline.dicom.plane import Header
from pipeline.errors import DataError

logger = logging.getLogger(__name__)

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_PIECE_BYTES = 4 << 20


def is_compressed(header: Header) -> bool:
    """Whether the frames stand in fragments."""
    return header.transfer_syntax in ENCAPSULATED


def decode_frame(stream: BinaryIO, header: Header, frame: int) -> NDArray[Any]:
    """Decode one compressed frame to its stored values (H, W).

    Raises:
        DataError: the frame is not there, or its decoder refuses it or gives another size.
    """
    import SimpleITK as sitk

    try:
        frames = frame_fragments(stream, header.pixels.offset, header.size, header.frames)
    except ValueError:
        frames = None
    if frames is None:
        raise DataError("the compressed pixel data is cut short; export the series again.")
    coded = b"".join(_read(stream, begin, length) for begin, length in frames[frame])
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with _file_of(_wrap(header, coded)) as path:
        try:
            image = sitk.ReadImage(path, imageIO="GDCMImageIO")
        except RuntimeError as error:
            logger.debug("GDCM: %s", error)
            name = ENCAPSULATED[header.transfer_syntax]
            raise DataError(f"a {name} image cannot be decoded: it is damaged. Export the series again.") from None
    voxels: NDArray[Any] = sitk.GetArrayFromImage(image)
    if voxels.size != header.rows * header.columns:
        raise DataError(f"a compressed image has {voxels.shape} pixels; expected {header.rows} x {header.columns}.")
    return voxels.reshape(header.rows, header.columns)


def inflated(header: Header) -> BinaryIO:
    """Return the data set of a deflated file as a stream, no longer than its pixels need.

    Raises:
        DataError: the file ends too early.
    """
    if header.transfer_syntax != DEFLATED:
        raise ValueError("not a deflated file")
    with open(header.path, "rb") as stream:
        head = stream.read(144)
        stream.seek(144 + int.from_bytes(head[140:144], "little"))
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            return io.BytesIO(inflater.decompress(stream.read(), header.pixels.offset + header.pixels.length))
        except zlib.error:
            raise DataError("a deflated file is damaged. Export the series again.") from None


def hash_inflated(header: Header) -> bytes:
    """Hash the pixels of a deflated file piece by piece, so that no small file fills the memory."""
    digest, at, wanted = hashlib.sha256(), 0, header.pixels.offset
    with open(header.path, "rb") as stream:
        head = stream.read(144)
        stream.seek(144 + int.from_bytes(head[140:144], "little"))
        inflater, rest = zlib.decompressobj(-zlib.MAX_WBITS), stream.read()
    try:
        while piece := inflater.decompress(rest, _PIECE_BYTES):
            digest.update(piece[max(0, wanted - at) :])
            at, rest = at + len(piece), inflater.unconsumed_tail
    except zlib.error:
        digest.update(b"damaged" + rest)
    return digest.digest()


@contextmanager
def _file_of(content: bytes) -> Iterator[str]:
    """Give a path that GDCM can open; of a file without a name where the system can, so that no kill leaves one."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryDirectory(prefix="dicom-frame-") as folder:
            path = os.path.join(folder, "frame.dcm")
            with open(path, "wb") as wrapped:
                wrapped.write(content)
            yield path
        return
    with os.fdopen(os.memfd_create("frame"), "wb") as wrapped:
        wrapped.write(content)
        wrapped.flush()
        yield f"/proc/self/fd/{wrapped.fileno()}"


def _read(stream: BinaryIO, begin: int, length: int) -> bytes:
    stream.seek(begin)
    return stream.read(length)


def _wrap(header: Header, coded: bytes) -> bytes:
    """Return a file of one frame whose header says nothing but what a decoder needs: no rescale, no overlay."""
    lossless_words = header.transfer_syntax.endswith(".5")
    stored, high = (header.bits_allocated,) * 2 if lossless_words else (header.bits_stored, header.high_bit + 1)
    meta = _element(2, 2, b"UI", _uid(_SECONDARY_CAPTURE)) + _element(2, 3, b"UI", _uid("1.2.3"))
    meta += _element(2, 0x10, b"UI", _uid(header.transfer_syntax))
    body = _element(8, 0x16, b"UI", _uid(_SECONDARY_CAPTURE)) + _element(8, 0x18, b"UI", _uid("1.2.3"))
    body += _element(0x28, 2, b"US", _us(1)) + _element(0x28, 4, b"CS", b"MONOCHROME2 ")
    for element, value in (
        (0x10, header.rows), (0x11, header.columns), (0x100, header.bits_allocated), (0x101, stored), (0x102, high - 1),
        (0x103, int(header.signed)),
    ):  # fmt: skip
        body += _element(0x28, element, b"US", _us(value))
    padded = coded + b"\0" * (len(coded) % 2)
    pixels = struct.pack("<HH2sHL", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0)
    pixels += struct.pack("<HHL", 0xFFFE, 0xE000, len(padded)) + padded + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    return b"\0" * 128 + b"DICM" + _element(2, 0, b"UL", struct.pack("<L", len(meta))) + meta + body + pixels


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _uid(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def _us(value: int) -> bytes:
    return struct.pack("<H", value)
