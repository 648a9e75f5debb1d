"""Reading `.nii` and `.nii.gz`: voxels decoded here, fast and checked; the grid as SimpleITK reads the header."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.imaging import streams
from pipeline.imaging.geometry import from_affine, from_xyz, shear_degrees
from pipeline.imaging.volume import Geometry, Volume

_Order = Literal["little", "big"]

logger = logging.getLogger(__name__)

_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_OTHER_TYPES = {
    1: "one bit", 32: "complex", 128: "RGB", 1536: "128-bit float", 1792: "complex", 2048: "complex", 2304: "RGBA",
}  # fmt: skip
_MM_PER_UNIT = {1: 1000.0, 3: 0.001}
"""xyzt_units: metres and micrometres; all others are taken for mm, as ITK does."""
_SCANNER = 1
_MAX_SHEAR_DEGREES = 0.1

# Where the fields lie that are needed here; the rest of the header is ITK's business.
_NIFTI1 = {
    "dim": ("8i2", 40), "datatype": ("i2", 70), "pixdim": ("8f4", 76), "vox_offset": ("f4", 108), "slope": ("f4", 112),
    "inter": ("f4", 116), "units": ("u1", 123), "qform": ("i2", 252), "sform": ("i2", 254), "quaternion": ("6f4", 256),
    "srow": ("(3,4)f4", 280), "magic": ("S4", 344),
}  # fmt: skip
_NIFTI2 = {
    "magic": ("S4", 4), "datatype": ("i2", 12), "dim": ("8i8", 16), "pixdim": ("8f8", 104), "vox_offset": ("i8", 168),
    "slope": ("f8", 176), "inter": ("f8", 184), "qform": ("i4", 344), "sform": ("i4", 348), "quaternion": ("6f8", 352),
    "srow": ("(3,4)f8", 400), "units": ("i4", 500),
}  # fmt: skip
LAYOUTS = {348: (_NIFTI1, b"n+1"), 540: (_NIFTI2, b"n+2")}


@dataclass(frozen=True)
class _Header:
    """What is needed to decode the voxels."""

    size: tuple[int, ...]
    """Voxels along x, y, z and the further axes."""
    dtype: np.dtype[Any]
    """With the file's byte order."""
    offset: int
    """Where the voxels start in the (decoded) stream."""
    slope: float
    inter: float
    mm_per_unit: float
    version: int

    @property
    def channels(self) -> int:
        return prod(self.size[3:])

    @property
    def bytes(self) -> int:
        return prod(self.size) * self.dtype.itemsize


def read_nifti(path: Path, *, channels: int = 1) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 file of any real voxel type and byte order.

    Compression is known by the content. The stream's checksum and length are verified, which SimpleITK
    does not do, and voxels come from `path` even where an uncompressed twin lies beside it.

    Args:
        path: An existing file.
        channels: Number of volumes along the fourth (or a further) axis.

    Returns:
        Volume (channels, D, H, W) in the file's own type; float32 where whole numbers carry a slope or
        intercept.

    Raises:
        DataError: not NIfTI, cut short, damaged, contradicting itself, or with other than so many channels.
            The text names no case: the caller does.
    """
    with streams.open_checked(path) as stream:
        header, used = _read_header(stream)
        _expect_channels(header, channels)
        if not streams.can_hold(path, header.offset + header.bytes):
            raise DataError(f"the header lies: a file this small cannot hold {header.bytes} bytes of voxels.")
        stream.read(header.offset - used)
        raw = np.empty((header.channels, *header.size[2::-1]), header.dtype)
        streams.fill(stream, raw)
        streams.expect_end(stream, header.bytes)
    return Volume(_scaled(_native(raw), header), _geometry(path, header))


def _read_header(stream: IO[bytes]) -> tuple[_Header, int]:
    """Return the header and the number of bytes that it took."""
    start = stream.read(4)
    orders: tuple[_Order, ...] = ("little", "big")
    for order in orders:
        length = int.from_bytes(start, order)
        if length in LAYOUTS:
            rest = stream.read(length - 4)
            if len(rest) == length - 4:
                return _parse(start + rest, order), length
    raise DataError("it is no NIfTI file: the first bytes are not those of a header. Check the file.")


def _parse(block: bytes, order: _Order) -> _Header:
    fields, magic = LAYOUTS[len(block)]
    formats, offsets = zip(*fields.values(), strict=True)
    layout: Any = {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": len(block)}
    found = np.frombuffer(block, np.dtype(layout).newbyteorder(order))[0]
    if found["magic"] != magic:
        raise DataError("it is no single-file NIfTI: its magic word is missing. Convert it to .nii.gz.")
    _check_grid(found)
    return _Header(
        size=_size([int(n) for n in found["dim"]]),
        dtype=_dtype(int(found["datatype"])).newbyteorder(order),
        offset=max(int(found["vox_offset"]), len(block) + 4),
        slope=float(found["slope"]),
        inter=float(found["inter"]),
        mm_per_unit=_MM_PER_UNIT.get(int(found["units"]) & 7, 1.0),
        version=2 if magic == b"n+2" else 1,
    )


def _size(dim: list[int]) -> tuple[int, ...]:
    axes = dim[0]
    if not 1 <= axes <= 7 or min(dim[1 : axes + 1]) < 1:
        raise DataError(f"the header lies: its dimensions are {dim}; expected at least one voxel along each axis.")
    if axes < 3:
        raise DataError(f"it has {axes} axes; expected a 3-D volume.")
    return tuple(dim[1 : axes + 1])


def _dtype(code: int) -> np.dtype[Any]:
    if code not in _TYPES:
        kind = _OTHER_TYPES.get(code, f"unknown (type {code})")
        raise DataError(f"its voxels are {kind}; expected one real number a voxel. Convert it.")
    return np.dtype(_TYPES[code])


def _check_grid(found: Any) -> None:
    """Refuse a voxel size that is none, and a transform that is no number or contradicts it.

    ITK silently takes 1 mm for a size of zero, 0 for what is not finite, and where the sform decides, its
    direction but the size of pixdim.
    """
    pixdim = np.asarray(found["pixdim"][1:4], float)
    if not np.all(np.isfinite(pixdim) & (pixdim > 0)):
        raise DataError(f"the voxel size along (D, H, W) is {_numbers(pixdim)}; expected above 0 mm. Mend the header.")
    for form, numbers in (("qform", "quaternion"), ("sform", "srow")):
        if found[form] > 0 and not np.isfinite(found[numbers]).all():
            raise DataError(f"the header's {form} has NaN or infinite numbers; expected finite ones. Mend the header.")
    decides = found["sform"] == _SCANNER or (found["sform"] > 0 and found["qform"] <= 0)
    lengths = np.linalg.norm(np.asarray(found["srow"][:, :3], float), axis=0)
    if decides and not np.allclose(lengths, pixdim, rtol=1e-3, atol=1e-6):
        raise DataError(
            f"the header contradicts itself: voxel size along (D, H, W) {_numbers(pixdim)} mm by pixdim, "
            f"{_numbers(lengths)} mm by sform. Mend the header."
        )


def _expect_channels(header: _Header, channels: int) -> None:
    if header.channels == 1 < channels:
        raise DataError(f"it holds 1 channel; expected {channels}. Give a file for each channel.")
    if header.channels != channels:
        raise DataError(
            f"it holds {header.channels} volumes along a fourth axis; expected {channels}. "
            "Where they are channels, give the file once for each of them."
        )


def _native(raw: NDArray[Any]) -> NDArray[Any]:
    if raw.dtype.isnative:
        return raw
    return raw.byteswap(inplace=True).view(raw.dtype.newbyteorder("="))


def _scaled(voxels: NDArray[Any], header: _Header) -> NDArray[Any]:
    """Apply slope and intercept as ITK does: in double precision, slice by slice, a slope of none being 1."""
    slope = header.slope if np.isfinite(header.slope) and header.slope != 0 else 1.0
    inter = header.inter if np.isfinite(header.inter) else 0.0
    if slope == 1 and inter == 0:
        return voxels
    out = voxels if voxels.dtype.kind == "f" else np.empty(voxels.shape, np.float32)
    for place in np.ndindex(voxels.shape[:2]):
        out[place] = voxels[place] * np.float64(slope) + inter
    return out


def _geometry(path: Path, header: _Header) -> Geometry:
    """Read the grid with SimpleITK, so that no volume lies elsewhere than SimpleITK would put it.

    The choice between sform and qform, with what they may contradict, is ITK's and changes between its versions.
    """
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    with _alone(path) as link:
        reader.SetFileName(str(link))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            logger.debug("SimpleITK refuses the header: %s", error)
            return _geometry_by_nibabel(link, header)
    axes = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (axes, axes))[:3, :3]
    return from_xyz(header.size[:3], reader.GetSpacing()[:3], reader.GetOrigin()[:3], direction.ravel().tolist())


def _geometry_by_nibabel(path: Path, header: _Header) -> Geometry:
    """Read the grid of a header that ITK refuses: NIfTI-2, or axes that are not at right angles."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        ras = np.asarray(nibabel.load(path).affine, float)
    except (ImageFileError, HeaderDataError):
        raise DataError("neither SimpleITK nor nibabel understands its header. Export it again.") from None
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ ras
    lps[:3] *= header.mm_per_unit
    if (degrees := shear_degrees(lps[:3, :3].ravel())) > _MAX_SHEAR_DEGREES:
        raise DataError(
            f"its axes are {degrees:.2g} degrees off a right angle (the sform is sheared); expected a rectangular "
            "grid. Resample it onto one."
        )
    lps[:3, :3] = lps[:3, 2::-1]
    return from_affine(lps, header.size[2::-1])


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """Give the file a name in an empty folder, with the ending that its content asks for.

    Asked for `x.nii.gz` where `x.nii` lies beside it, ITK takes parts of the one for the other.
    """
    with tempfile.TemporaryDirectory(prefix="nifti-") as folder:
        link = Path(folder) / ("volume.nii.gz" if streams.is_gzip(path) else "volume.nii")
        link.symlink_to(path.absolute())
        yield link


def _numbers(xyz: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in xyz[::-1]) + ")"
