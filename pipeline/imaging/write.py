"""Writing masks and images: whole files or none, on the grid that they were made for."""

from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from pipeline.imaging.geometry import affine, image_of
from pipeline.imaging.volume import Geometry, Volume
from pipeline.workspace import atomic_path

_GZIP_LEVEL = 2
"""igzip's default: on masks and CT as small as zlib's lowest levels, at many times their speed."""
_BLOCK = 1 << 22
_SCANNER = 1
"""NIfTI's code for coordinates of the scanner, the only ones known here."""
_MASK_TYPES = ("uint8", "uint16", "int16", "uint32", "int32")


def write_mask(mask: NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write label values on their grid.

    The same mask gives the same bytes, whenever it is written.

    Args:
        mask: (D, H, W) label values of at most 32 bits; any memory order.
        geometry: Where the voxels lie.
        path: Ends with `.nii.gz`, `.nii`, `.mha` or `.nrrd`; its folder is made where absent.

    Raises:
        ValueError: another type, shape or ending.
    """
    if mask.dtype.name not in _MASK_TYPES:
        raise ValueError(f"a mask of {mask.dtype}; expected one of {', '.join(_MASK_TYPES)}")
    write_image(Volume(mask[None], geometry), path)


def write_image(volume: Volume, path: Path) -> None:
    """Write an image with all its channels: a fourth axis in NIfTI, several numbers a voxel in `.mha` and `.nrrd`.

    Args:
        volume: Any real type.
        path: As for `write_mask`.

    Raises:
        ValueError: another ending.
    """
    if path.name.lower().endswith((".nii", ".nii.gz")):
        with atomic_path(path) as temporary:
            _write_nifti(volume, temporary)
    elif path.suffix.lower() in (".mha", ".nrrd"):
        with atomic_path(path) as temporary:
            _write_by_itk(volume, temporary)
    else:
        raise ValueError(f"{path.name}: the ending is not known; expected .nii.gz, .nii, .mha or .nrrd")


def _write_nifti(volume: Volume, path: Path) -> None:
    header = _nifti_header(volume)
    voxels = np.ascontiguousarray(volume.voxels, volume.dtype.newbyteorder("<"))
    with path.open("wb") as file:
        if path.suffix.lower() != ".gz":
            file.write(header)
            file.write(voxels.data)
            return
        # No name and no time in the gzip header, so that equal masks are equal files.
        with igzip.IGzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as stream:
            stream.write(header)
            view = voxels.reshape(-1).view(np.uint8).data
            for start in range(0, len(view), _BLOCK):
                stream.write(view[start : start + _BLOCK])


def _nifti_header(volume: Volume) -> bytes:
    """Return a NIfTI-1 header, up to where the voxels start, with the grid in both its forms, in mm."""
    import nibabel

    # NIfTI counts axes from the fastest and looks to the right and the front: x and y change their sign.
    matrix = affine(volume.geometry)
    matrix[:3, :3] = matrix[:3, 2::-1]
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    header = nibabel.Nifti1Header(endianness="<")
    many = volume.channels > 1
    header.set_data_shape((*volume.geometry.shape[::-1], volume.channels) if many else volume.geometry.shape[::-1])
    header.set_data_dtype(volume.dtype)
    header.set_zooms((*volume.geometry.spacing_mm[::-1], 1.0) if many else volume.geometry.spacing_mm[::-1])
    header.set_xyzt_units("mm", "sec")
    header.set_qform(ras, _SCANNER)
    header.set_sform(ras, _SCANNER)
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = b"n+1"
    return bytes(header.binaryblock).ljust(header.single_vox_offset, b"\0")


def _write_by_itk(volume: Volume, path: Path) -> None:
    import SimpleITK as sitk

    voxels = volume.voxels if volume.channels > 1 else volume.voxels[0]
    sitk.WriteImage(image_of(np.ascontiguousarray(voxels), volume.geometry), str(path), True)
