"""One DICOM file's header as planes: read with pydicom, never further than the pixel data."""

import hashlib
import io
import logging
import os
import warnings
import zlib
from typing import Any, BinaryIO

from pipeline.dicom import elements
from pipeline.dicom.frames import PER_FRAME, SHARED, planes_of
from pipeline.dicom.pixel_data import DEFLATED, Shape, locate
from pipeline.dicom.plane import Header, PixelData, Plane, Triple, Unread

# pydicom's warnings quote paths and values, which may name a patient; what is wrong is told in words of our own.
logging.getLogger("pydicom").addFilter(lambda record: record.levelno >= logging.CRITICAL)

HEADER_BYTES = 4 << 20
"""How much of a deflated file is inflated to look for its header."""
_HEAD = 1024
_DICOMDIR_CLASS = b"1.2.840.10008.1.3.10"
_PATIENT = (0x00100020, 0x00100021, 0x00100010)
_OVERLAYS = tuple(0x60000102 + (group << 16) for group in range(0, 0x20, 2))
"""Bit positions of the sixteen overlays that an image may have."""
_TAGS = [
    0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x00081030, 0x0008103E, *_PATIENT, 0x00180010, 0x00180015,
    0x00180050, 0x00180086, 0x00180088, 0x00181030, 0x00181060, 0x00181210, 0x00189087, 0x00189089, 0x0019100C,
    0x0019100E, 0x0020000D, 0x0020000E, 0x00200011, 0x00200012, 0x00200032, 0x00200037, 0x00200052, 0x00200100,
    0x00201002, 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100, 0x00280101,
    0x00280102, 0x00280103, 0x00280120, 0x00280121, 0x00281052, 0x00281053, 0x00283000, 0x00431039, 0x00541001,
    0x00541330, SHARED, PER_FRAME, *_OVERLAYS,
]  # fmt: skip


def read_planes(path: str, key: bytes) -> tuple[Plane, ...] | Unread:
    """Read the header of a file.

    Args:
        path: Any file.
        key: Makes the hashes of patients of one scan comparable, and useless afterwards.

    Returns:
        Its planes (one, without a size, for an object that is no image), or why there are none.
    """
    folder = os.path.dirname(path)
    try:
        with open(path, "rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind = _kind(stream)
            return Unread(kind, folder) if kind else _planes(stream, path, key) or Unread("damaged", folder)
    except Exception:
        # Whatever a damaged header makes a reader raise must not end the look at all other files.
        return Unread("damaged", folder)


def read_elements(path: str, tags: list[int]) -> Any:
    """Return a pydicom dataset of some elements of a file's header; of a deflated one never more than 4 MiB.

    Raises:
        OSError: it cannot be read.
        ValueError: it has no readable header.
    """
    with open(path, "rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _dataset(stream, os.fstat(stream.fileno()).st_size, tags)[0]
        except OSError:
            raise
        except Exception as error:
            # Whatever a damaged header makes pydicom raise; its text may quote what stands there.
            raise ValueError(f"no readable header: {type(error).__name__}") from None


def _kind(stream: BinaryIO) -> str:
    """Say from its first bytes what a file is if it is no DICOM instance; an empty text where it may be one."""
    head = stream.read(_HEAD)
    stream.seek(0)
    if not head:
        return "damaged"
    if head[128:132] == b"DICM":
        return "DICOMDIR" if _DICOMDIR_CLASS in head else ""
    # Without the preamble a data set begins with group 2 or 8, in either byte order.
    group = int.from_bytes(head[:2], "little"), int.from_bytes(head[:2], "big")
    return "" if {2, 8} & set(group) and b"1.2." in head else "not DICOM"


def _planes(stream: BinaryIO, path: str, key: bytes) -> tuple[Plane, ...]:
    """Return no plane where there is no header that says what the file is."""
    size = os.fstat(stream.fileno()).st_size
    dataset, source, length, syntax = _dataset(stream, size)
    # Exports that were made anonymous may have lost any of these, but never all.
    if not any(elements.text(dataset, tag) for tag in (0x0020000E, 0x00080016, 0x00080060)):
        return ()
    header = _header(dataset, path, size, syntax, key, _pixels(dataset, source, length, syntax))
    return planes_of(dataset, _common(dataset, header))


def _dataset(stream: BinaryIO, size: int, tags: list[int] = _TAGS) -> tuple[Any, BinaryIO, int, str]:
    """Return the header, the stream that stands at its end, the bytes which that has, and the transfer syntax."""
    from pydicom import dcmread
    from pydicom.filereader import read_dataset

    head = stream.read(_HEAD)
    if head[128:132] == b"DICM" and DEFLATED.encode() in head:
        inflated, total = _inflate(stream, head)
        return read_dataset(inflated, False, True, None, _at_pixels, None, tags), inflated, total, DEFLATED
    stream.seek(0)
    dataset = dcmread(stream, stop_before_pixels=True, force=True, specific_tags=tags)
    return dataset, stream, size, _syntax(dataset)


def _inflate(stream: BinaryIO, head: bytes) -> tuple[BinaryIO, int]:
    """Inflate the header only, and count the rest piece by piece, so that no small file fills the memory."""
    stream.seek(144 + int.from_bytes(head[140:144], "little"))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    start = inflater.decompress(stream.read(), HEADER_BYTES)
    total = len(start)
    try:
        while inflater.unconsumed_tail and (piece := inflater.decompress(inflater.unconsumed_tail, HEADER_BYTES)):
            total += len(piece)
    except zlib.error:
        pass
    return io.BytesIO(start), total


def _at_pixels(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) in (0x7FE00010, 0x7FE00008, 0x7FE00009)


def _syntax(dataset: Any) -> str:
    declared = str(getattr(dataset.file_meta, "TransferSyntaxUID", "") or "")
    if declared:
        return declared.strip("\0 ")
    implicit, little = dataset.original_encoding
    return "1.2.840.10008.1.2" if implicit else f"1.2.840.10008.1.2.{1 if little else 2}"


def _pixels(dataset: Any, source: BinaryIO, size: int, syntax: str) -> PixelData:
    if 0x00280010 not in dataset:
        return PixelData(fault="no image", detail="the object holds no image")
    shape = Shape(
        rows=elements.whole(dataset, 0x00280010),
        columns=elements.whole(dataset, 0x00280011),
        frames=int(elements.number(dataset, 0x00280008) or 1),
        samples=elements.whole(dataset, 0x00280002, 1),
        bits_allocated=elements.whole(dataset, 0x00280100),
    )
    return locate(source, size, syntax, shape)


def _header(dataset: Any, path: str, size: int, syntax: str, key: bytes, pixels: PixelData) -> Header:
    signed = elements.whole(dataset, 0x00280103) == 1
    stored = elements.whole(dataset, 0x00280101) or elements.whole(dataset, 0x00280100)
    return Header(
        path=path,
        size=size,
        patient=_patient(dataset, key),
        study_uid=elements.text(dataset, 0x0020000D),
        series_uid=elements.text(dataset, 0x0020000E),
        instance_uid=elements.text(dataset, 0x00080018),
        frame_of_reference=elements.text(dataset, 0x00200052),
        sop_class=elements.text(dataset, 0x00080016),
        modality=elements.text(dataset, 0x00080060),
        series_number=elements.text(dataset, 0x00200011),
        description=elements.text(dataset, 0x0008103E),
        study_description=elements.text(dataset, 0x00081030),
        protocol=elements.text(dataset, 0x00181030),
        body_part=elements.text(dataset, 0x00180015),
        contrast=elements.text(dataset, 0x00180010),
        transfer_syntax=syntax,
        rows=elements.whole(dataset, 0x00280010),
        columns=elements.whole(dataset, 0x00280011),
        frames=int(elements.number(dataset, 0x00280008) or 1),
        samples=elements.whole(dataset, 0x00280002, 1),
        photometric=elements.text(dataset, 0x00280004),
        bits_allocated=elements.whole(dataset, 0x00280100),
        bits_stored=stored,
        high_bit=elements.whole(dataset, 0x00280102, stored - 1),
        signed=signed,
        overlay_bits=any(elements.whole(dataset, tag) > 0 for tag in _OVERLAYS if tag in dataset),
        padding=_padding(dataset, signed),
        units=elements.text(dataset, 0x00541001),
        modality_lut=0x00283000 in dataset,
        images_in_acquisition=int(elements.number(dataset, 0x00201002) or 0),
        pixels=pixels,
    )


def _patient(dataset: Any, key: bytes) -> str:
    words = [" ".join(elements.text(dataset, tag).replace("^", " ").upper().split()) for tag in _PATIENT]
    return hashlib.blake2b("\n".join(words).encode(), key=key, digest_size=16).hexdigest()


def _padding(dataset: Any, signed: bool) -> tuple[int, int] | None:
    value = elements.word(dataset, 0x00280120, signed=signed)
    if value is None:
        return None
    limit = elements.word(dataset, 0x00280121, signed=signed)
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _common(dataset: Any, header: Header) -> Plane:
    position = elements.numbers(dataset, 0x00200032)
    b_value = elements.binary(dataset, 0x00189087)
    return Plane(
        header=header,
        position=_triple(position),
        orientation=elements.numbers(dataset, 0x00200037),
        pixel_spacing=elements.numbers(dataset, 0x00280030),
        thickness=elements.number(dataset, 0x00180050),
        spacing_between=elements.number(dataset, 0x00180088),
        slope=elements.number_or(dataset, 0x00281053, 1.0),
        intercept=elements.number_or(dataset, 0x00281052, 0.0),
        image_type=elements.texts(dataset, 0x00080008),
        echo=elements.text(dataset, 0x00180086),
        temporal=elements.text(dataset, 0x00200100),
        # Siemens and GE keep it in private elements of theirs; only whether it differs matters.
        b_value=f"{b_value:g}" if b_value is not None else _private(dataset, 0x0019100C, 0x00431039),
        gradient=elements.text(dataset, 0x00189089) or _private(dataset, 0x0019100E),
        kernel=elements.text(dataset, 0x00181210),
        acquisition=elements.text(dataset, 0x00200012),
        trigger=elements.text(dataset, 0x00181060),
    )


def _private(dataset: Any, *tags: int) -> str:
    for tag in tags:
        element = dataset.get_item(tag)
        value = getattr(element, "value", None)
        if value:
            return (
                value[:256].hex() if isinstance(value, bytes) and not value.isascii() else elements.text(dataset, tag)
            )
    return ""


def _triple(values: tuple[float, ...]) -> Triple | None:
    return (values[0], values[1], values[2]) if len(values) == 3 else None
