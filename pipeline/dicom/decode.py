"""A judged series decoded into a volume on a right-angled grid, in the unit that its rescale gives."""

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pipeline.dicom.codec import decode_frame, inflated, is_compressed
from pipeline.dicom.geometry import grid_of, stack_of
from pipeline.dicom.pixel_data import BIG_ENDIAN, DEFLATED
from pipeline.dicom.plane import Header, Plane
from pipeline.dicom.series import Series
from pipeline.dicom.straighten import even_out, straighten
from pipeline.dicom.verdict import judge
from pipeline.errors import DataError
from pipeline.imaging.volume import Volume

_PADDING_MARGIN = 0.01
"""Padding nearer to the real values than this share of their range stays: it cannot be told from air."""


def read_series(series: Series, *, allow_uneven: bool = False, case_id: str = "") -> Volume:
    """Decode a series; D runs along the normal of its slices, H and W as they are stored.

    It needs about twice the memory of the volume, and native code: call it in a child process whose memory
    is limited where the files come from outside.

    Args:
        series: From an audit; its files must still be there.
        allow_uneven: Resample uneven steps to even ones.
        case_id: Named in errors; that of the series where empty.

    Returns:
        Volume (1, D, H, W): int16, uint16 or int32 where every rescale is whole, float32 otherwise. CT is in HU.
        A tilted gantry's slices are sheared onto a right-angled grid, which is a little higher then.

    Raises:
        DataError: the verdict refuses it, or its pixels turn out to be damaged; names the case id.
    """
    case_id = case_id or series.case_id
    verdict = judge(series, allow_uneven=allow_uneven)
    if not verdict.is_usable:
        raise DataError(f"case {case_id}: refused: {verdict.kind}: {verdict.reason}.")
    try:
        stored = stored_values(series.planes)
        voxels = _without_padding(stored, series.header, _rescaled(stored, series.planes))
    except DataError as error:
        raise DataError(f"case {case_id}: {error}") from None
    stack = stack_of(series.planes)
    if verdict.is_uneven:
        voxels, stack = even_out(voxels, stack)
    if stack.is_sheared:
        return straighten(voxels, stack)
    return Volume(voxels[None], grid_of(stack))


def acquired(series: Series) -> NDArray[np.bool_] | None:
    """Return which voxels (D, H, W) of a series that `read_series` shears some slice covers; None where all are."""
    stack = stack_of(series.planes)
    if not stack.is_sheared:
        return None
    ones = np.ones((len(series.planes), *stack.shape), np.uint8)
    if judge(series, allow_uneven=True).is_uneven:
        ones, stack = even_out(ones, stack)
    return np.asarray(straighten(ones, stack, fill=0).voxels[0] > 0)


def stored_values(planes: Sequence[Plane]) -> NDArray[Any]:
    """Return the stored values (N, H, W) of planes of one matrix, before any rescale.

    Bits outside those that are stored (overlays) are taken off, and MONOCHROME1 is inverted unless the values
    have a unit (CT, PET).

    Raises:
        DataError: a file is gone, cut short or damaged, or has values in bits that it calls unused.
    """
    first = planes[0].header
    out = np.empty((len(planes), first.rows, first.columns), _stored_type(first))
    for number, plane in enumerate(planes):
        values = _unpacked(_words(plane), plane.header)
        out[number] = _inverted(values, plane.header) if _is_inverted(plane.header) else values
    return out


def _stored_type(header: Header) -> str:
    return f"{'i' if header.signed else 'u'}{header.bits_allocated // 8}"


def _words(plane: Plane) -> NDArray[Any]:
    """Return the words of a plane (H, W) as they stand in the file."""
    header = plane.header
    try:
        if header.transfer_syntax == DEFLATED:
            return _native(inflated(header), header, plane.frame)
        with open(header.path, "rb") as stream:
            if is_compressed(header):
                return decode_frame(stream, header, plane.frame).astype(_stored_type(header), copy=False)
            return _native(stream, header, plane.frame)
    except OSError as error:
        raise DataError(f"a slice cannot be read ({error.strerror}). Restore the file.") from None


def _native(stream: BinaryIO, header: Header, frame: int) -> NDArray[Any]:
    count = header.rows * header.columns
    length = count * header.bits_allocated // 8
    stream.seek(header.pixels.offset + frame * length)
    raw = stream.read(length)
    if len(raw) < length:
        raise DataError("a slice is cut short since it was looked at. Export the series again.")
    order = ">" if header.transfer_syntax == BIG_ENDIAN else "<"
    words = np.frombuffer(raw, order + _stored_type(header)).astype(_stored_type(header), copy=False)
    return np.reshape(words, (header.rows, header.columns))


def _unpacked(words: NDArray[Any], header: Header) -> NDArray[Any]:
    """Take the stored bits out of the words and extend their sign."""
    allocated, stored, high = header.bits_allocated, header.bits_stored, header.high_bit
    if stored == allocated:
        return words
    up, down = allocated - 1 - high, allocated - stored
    # Shifting to the top and back leaves zeros, or copies of the sign, above the stored bits.
    values: NDArray[Any] = np.right_shift(np.left_shift(words, up), down)
    if not header.overlay_bits:
        _refuse_used_bits(words, values, header)
    return values


def _refuse_used_bits(words: NDArray[Any], values: NDArray[Any], header: Header) -> None:
    """Refuse words that hold more than their stored bits: cut off, they would be wrong without a word."""
    if header.high_bit != header.bits_stored - 1:
        return
    odd = words != values
    if header.signed and odd.any():
        # Some writers leave the bits above a negative value empty.
        odd &= (words & ((1 << header.bits_stored) - 1)) != words
    if odd.any():
        raise DataError(
            f"{int(odd.sum())} pixels of a slice use more than the {header.bits_stored} bits that it declares, up to "
            f"{int(words.max())}; expected an overlay to be declared there. Export the series again."
        )


def _is_inverted(header: Header) -> bool:
    return header.photometric == "MONOCHROME1" and header.modality not in ("CT", "PT")


def _inverted(values: NDArray[Any], header: Header) -> NDArray[Any]:
    """Turn white-is-low into white-is-high within the range of the stored bits."""
    if header.signed:
        return np.asarray(np.invert(values))
    return np.asarray((1 << header.bits_stored) - 1 - values.astype(np.int64)).astype(values.dtype)


def _rescaled(stored: NDArray[Any], planes: Sequence[Plane]) -> NDArray[Any]:
    scales = [(plane.slope, plane.intercept) for plane in planes]
    flat = stored.reshape(len(stored), -1)
    slopes, intercepts = np.array(scales).T
    with np.errstate(over="ignore", invalid="ignore"):
        ends = np.stack([flat.min(axis=1) * slopes + intercepts, flat.max(axis=1) * slopes + intercepts])
    if not np.abs(ends).max() < np.finfo(np.float32).max:
        raise DataError(
            f"its rescale (slope {slopes[0]:g}, intercept {intercepts[0]:g}) makes values beyond all numbers; expected "
            "those of the scanner. Export the series again."
        )
    dtype = _type_for(scales, float(ends.min()), float(ends.max()))
    if all(scale == (1.0, 0.0) for scale in scales):
        return stored.astype(dtype, copy=False)
    out = np.empty(stored.shape, dtype)
    for section, values, (slope, intercept) in zip(out, stored, scales, strict=True):
        section[...] = values * slope + intercept
    return out


def _type_for(scales: list[tuple[float, float]], low: float, high: float) -> type[np.generic]:
    """Return the smallest type that holds the values exactly; float32 where they are not whole."""
    if all(slope.is_integer() and intercept.is_integer() for slope, intercept in scales):
        for dtype in (np.int16, np.uint16, np.int32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return dtype
    return np.float32


def _without_padding(stored: NDArray[Any], header: Header, voxels: NDArray[Any]) -> NDArray[Any]:
    """Give padding that lies far outside the real values the lowest of these.

    Scanners pad the corners of a slice with values such as -2000, which would shift every statistic.
    """
    if header.padding is None:
        return voxels
    low, high = header.padding
    padded = (stored >= low) & (stored <= high)
    if not padded.any() or padded.all():
        return voxels
    real = voxels[~padded]
    lowest, highest = float(real.min()), float(real.max())
    margin = _PADDING_MARGIN * (highest - lowest)
    fill = voxels[padded]
    if float(fill.min()) >= lowest - margin and float(fill.max()) <= highest + margin:
        return voxels
    out = voxels.copy()
    out[padded] = lowest
    return out
