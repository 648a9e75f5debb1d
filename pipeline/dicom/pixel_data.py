"""Where a file's pixels lie and whether the lengths it declares can be true, without decoding any."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.dicom.plane import PixelData

NATIVE = {
    "1.2.840.10008.1.2": "implicit little endian",
    "1.2.840.10008.1.2.1": "explicit little endian",
    "1.2.840.10008.1.2.1.99": "deflated",
    "1.2.840.10008.1.2.2": "explicit big endian",
}
"""Transfer syntaxes whose pixels stand in the file as they are."""
DEFLATED, BIG_ENDIAN, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"
ENCAPSULATED = {
    "1.2.840.10008.1.2.4.50": "JPEG baseline",
    "1.2.840.10008.1.2.4.51": "JPEG extended",
    "1.2.840.10008.1.2.4.57": "JPEG lossless",
    "1.2.840.10008.1.2.4.70": "JPEG lossless, first order",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    RLE: "RLE",
}
"""Compressed transfer syntaxes that GDCM decodes."""

_PIXEL_DATA, _FLOATS = 0x7FE00010, (0x7FE00008, 0x7FE00009)
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_STARTS = (b"\xff\xd8", b"\xff\x4f")
_MOST_FRAGMENTS = 1 << 20
_LARGE_FRAME, _MOST_SHRUNK = 64 << 20, 500
"""A frame beyond this many bytes that is coded in less than one byte for so many is there to fill the memory."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of the pixels that a header promises."""

    rows: int
    columns: int
    frames: int
    samples: int
    bits_allocated: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame, uncompressed."""
        return self.rows * self.columns * self.samples * self.bits_allocated // 8

    @property
    def total_bytes(self) -> int:
        """Bytes of all frames; single bits are packed across frames."""
        return (self.rows * self.columns * self.samples * self.bits_allocated * self.frames + 7) // 8


def locate(stream: BinaryIO, size: int, syntax: str, shape: Shape) -> PixelData:
    """Say where the pixels begin and whether their lengths fit what the header promises.

    Args:
        stream: Stands at the first byte of the pixel data element.
        size: Bytes that the stream has.
        syntax: UID of the transfer syntax.
        shape: What the header promises.
    """
    if syntax not in NATIVE and syntax not in ENCAPSULATED:
        return PixelData(fault="transfer syntax", detail=f"transfer syntax {syntax or 'not given'} cannot be read here")
    tag, length = _element(stream, syntax)
    if tag in _FLOATS:
        return PixelData(fault="transfer syntax", detail="floating-point pixel data cannot be read here")
    if tag != _PIXEL_DATA:
        return PixelData(fault="truncated", detail="the file ends before its pixel data")
    offset = stream.tell()
    if min(shape.rows, shape.columns, shape.frames, shape.bits_allocated) < 1:
        return PixelData(offset, length, "lying lengths", "the header gives no size of the pixels")
    if syntax in ENCAPSULATED:
        return _encapsulated(stream, offset, size, syntax, shape)
    return _native(offset, length, size, shape)


def frame_fragments(stream: BinaryIO, offset: int, size: int, frames: int) -> list[list[tuple[int, int]]] | None:
    """Return for every frame its fragments (offset, length); None where the list does not end as it must.

    Raises:
        ValueError: the fragments cannot be told apart into that many frames.
    """
    fragments = _fragments(stream, offset, size)
    if fragments is None:
        return None
    if frames == 1:
        return [fragments]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    grouped: list[list[tuple[int, int]]] = []
    for begin, length in fragments:
        stream.seek(begin)
        if stream.read(2) in _STARTS or not grouped:
            grouped.append([])
        grouped[-1].append((begin, length))
    if len(grouped) != frames:
        raise ValueError(f"{len(fragments)} fragments for {frames} frames")
    return grouped


def _element(stream: BinaryIO, syntax: str) -> tuple[int, int]:
    """Read tag and length, and leave the stream at the value."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    head = stream.read(8)
    if len(head) < 8:
        return 0, 0
    group, element = struct.unpack(f"{order}HH", head[:4])
    if head[4:6] in (b"OW", b"OB", b"UN", b"OF", b"OD"):
        tail = stream.read(4)
        length = struct.unpack(f"{order}L", tail)[0] if len(tail) == 4 else 0
    else:
        length = struct.unpack(f"{order}L", head[4:])[0]
    return group << 16 | element, length


def _native(offset: int, length: int, size: int, shape: Shape) -> PixelData:
    expected, there = shape.total_bytes, size - offset
    promised = f"{shape.rows} x {shape.columns} pixels need {expected} bytes"
    if there < min(length, expected) or (there < expected and length >= expected):
        return PixelData(offset, length, "truncated", f"{promised}, the file holds {max(there, 0)}")
    row = max(2, shape.columns * shape.samples * shape.bits_allocated // 8)
    if length < expected or (length != 0xFFFFFFFF and length - expected >= row):
        return PixelData(offset, length, "lying lengths", f"{promised}, the element declares {length}")
    return PixelData(offset, length)


def _encapsulated(stream: BinaryIO, offset: int, size: int, syntax: str, shape: Shape) -> PixelData:
    try:
        frames = frame_fragments(stream, offset, size, shape.frames)
    except ValueError as error:
        return PixelData(offset, -1, "lying lengths", f"found {error}")
    if frames is None or not frames[0]:
        return PixelData(offset, -1, "truncated", "the compressed pixel data ends before its last fragment")
    for fragments in frames:
        fault, detail = _frame_fault(stream, fragments, syntax, shape)
        if fault:
            return PixelData(offset, -1, fault, detail)
    return PixelData(offset, -1)


def _fragments(stream: BinaryIO, offset: int, size: int) -> list[tuple[int, int]] | None:
    """List the fragments after the offset table; None where the file ends or breaks before the delimiter."""
    found: list[tuple[int, int]] = []
    at = offset
    while at + 8 <= size and len(found) < _MOST_FRAGMENTS:
        stream.seek(at)
        head = stream.read(8)
        if head[:4] == _END:
            return found[1:]
        length = int.from_bytes(head[4:], "little")
        if head[:4] != _ITEM or at + 8 + length > size:
            return None
        found.append((at + 8, length))
        at += 8 + length
    # Some writers leave the delimiter out: then the last fragment ends with the file.
    return found[1:] if at == size and len(found) > 1 else None


def _frame_fault(stream: BinaryIO, fragments: list[tuple[int, int]], syntax: str, shape: Shape) -> tuple[str, str]:
    coded = sum(length for _, length in fragments)
    if shape.frame_bytes > max(_LARGE_FRAME, _MOST_SHRUNK * coded):
        return "lying lengths", f"{coded} bytes for {shape.rows} x {shape.columns} pixels"
    begin, length = fragments[0]
    stream.seek(begin)
    head = stream.read(min(length, 4096))
    if syntax == RLE:
        return _rle_fault(head, length, shape)
    last, last_length = fragments[-1]
    stream.seek(last + max(0, last_length - 16))
    if b"\xff\xd9" not in stream.read(min(16, last_length)):
        return "truncated", "a compressed image has no end"
    size = _coded_size(head)
    if size is not None and size != (shape.rows, shape.columns):
        return "lying lengths", (
            f"the header says {shape.rows} x {shape.columns} pixels, the compressed image {size[0]} x {size[1]}"
        )
    return "", ""


def _rle_fault(head: bytes, length: int, shape: Shape) -> tuple[str, str]:
    if len(head) < 64:
        return "truncated", "an RLE image is shorter than its own header"
    count, *offsets = struct.unpack("<16L", head[:64])
    expected = shape.samples * shape.bits_allocated // 8
    if count != expected:
        return "lying lengths", f"an RLE image has {count} segments, its header needs {expected}"
    if max(offsets[:count]) >= length:
        return "truncated", "an RLE image ends before its last segment"
    # A run codes at most 128 bytes in 2: less than that cannot make the frame.
    if length * 64 < shape.frame_bytes:
        return "lying lengths", f"{length} bytes of RLE cannot hold {shape.rows} x {shape.columns} pixels"
    return "", ""


def _coded_size(head: bytes) -> tuple[int, int] | None:
    """Return (rows, columns) as a JPEG, JPEG-LS or JPEG 2000 stream gives them; None where they are not found."""
    at = head.find(b"\xff\x4f\xff\x51", 0, 256)
    if at >= 0 and len(head) >= at + 24:
        x_end, y_end, x_begin, y_begin = struct.unpack(">4L", head[at + 8 : at + 24])
        return y_end - y_begin, x_end - x_begin
    if head[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack(">2H", head[at + 5 : at + 9])
            return (rows, columns) if rows else None
        at += 2 + int.from_bytes(head[at + 2 : at + 4], "big")
    return None
