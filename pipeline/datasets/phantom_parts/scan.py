"""From a made-up patient to a CT scan: grid, slices, blur, noise, and orientation."""

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.phantom_parts.body import PHASES, Body, Visit
from pipeline.datasets.phantom_parts.canvas import Array, Axes
from pipeline.datasets.phantom_parts.trunk import paint_trunk
from pipeline.imaging.geometry import from_affine
from pipeline.imaging.volume import Geometry

_PATIENT, _VISIT, _NOISE, _BLOCK = range(4)
_FINEST_STEP_MM = 3.2
_PADDING_HU = -1024
_STYLES = ("plain", "thick", "turned", "oblique")
_KERNEL = ((0.55, 1.3), (0.35, 0.75))  # of each site: blur of the image and of the noise, in voxels
_MAX_TILT = 16.0
_CENTRE_Y_MM = 8.0

_FEWEST = 8

Matrix = NDArray[np.float64]
Mask = NDArray[np.uint8]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Scanner:
    """What the scans have in common; lengths in mm, in the order of `Phantom`'s options."""

    spacing_mm: tuple[float, float]
    slice_mm: tuple[float, float]
    field_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Scan:
    """Image and label on one grid.

    image:  (D, H, W), HU.
    label:  (D, H, W), class numbers.
    affine: 4 x 4, from the index (d, h, w, 1) to (x, y, z, 1) in mm, LPS+.
    """

    image: NDArray[np.int16]
    label: NDArray[np.uint8]
    affine: Matrix

    @property
    def geometry(self) -> Geometry:
        """Where the voxels lie."""
        return from_affine(self.affine, self.image.shape)


def make_scan(seed: int, number: int, patient: int, scanner: Scanner, *, site: int) -> Scan:
    """Draw a patient, scan it, and lay the voxels down in some order; a pure function of its arguments.

    Of four cases in a row, in an order drawn from the seed, each contrast phase is used once. The first is
    stored as scanners do (LPS), the second has thick slices, the third any of the 48 orders of axes, the
    fourth is oblique as well.
    """
    block, place = divmod(number, 4)
    style = _STYLES[place]
    phase = PHASES[int(_draws(seed, _BLOCK, block).permutation(4)[place])]
    body = Body.draw(_draws(seed, _PATIENT, patient))
    rng = _draws(seed, _VISIT, number)
    visit = Visit.draw(rng, phase)
    shape, affine = _draw_grid(rng, scanner, style)
    hu, label = _expose(body, visit, shape, affine)
    sharp = _Sharpness(*_KERNEL[site], reach=tuple(float(part) for part in _steps(affine)[2] / _steps(affine)))
    image = _add_noise(hu, rng.uniform(8, 17), sharp, _draws(seed, _NOISE, number))
    if rng.random() < 0.4:
        image = _cut_circle(image)
    order = _ORDERS[int(rng.integers(len(_ORDERS)))] if style in ("turned", "oblique") else _ORDERS[0]
    return _reorder(Scan(np.round(image).astype(np.int16), label, affine), *order)


def _draws(seed: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, purpose, number))))


def _draw_grid(rng: np.random.Generator, scanner: Scanner, style: str) -> tuple[Shape, Matrix]:
    """Return the shape (z, y, x) and the affine of a scan."""
    step = rng.uniform(*scanner.spacing_mm)
    middle, most = float(np.mean(scanner.slice_mm)), scanner.slice_mm[1]
    thick = rng.uniform(0.5 * (middle + most), most)
    slices = thick if style == "thick" else rng.uniform(scanner.slice_mm[0], middle)
    size = np.array(scanner.field_mm) * rng.uniform((0.9, 0.97, 0.97), (1.0, 1.0, 1.0))
    centre = np.array((rng.uniform(-14, 14), _CENTRE_Y_MM, rng.uniform(-6, 6)))
    spacing = np.array((slices, step, step))
    count = np.maximum(np.round(size / spacing), _FEWEST).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = (_tilt(rng) if style == "oblique" else np.eye(3))[:, ::-1] * spacing
    affine[:3, 3] = centre[::-1] - affine[:3, :3] @ ((count - 1) / 2)
    return (int(count[0]), int(count[1]), int(count[2])), affine


def _tilt(rng: np.random.Generator) -> Matrix:
    """Return a small rotation about any axis."""
    axis = rng.standard_normal(3)
    x, y, z = axis / np.linalg.norm(axis)
    angle = np.radians(rng.uniform(0.4, 1) * _MAX_TILT)
    cross = np.array(((0, -z, y), (z, 0, -x), (-y, x, 0)))
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def _steps(affine: Matrix) -> Matrix:
    """Return the voxel size along the axes of the array."""
    return np.asarray(np.linalg.norm(affine[:3, :3], axis=0))


def _expose(body: Body, visit: Visit, shape: Shape, affine: Matrix) -> tuple[Array, Mask]:
    """Return intensities without noise, and labels, on the scan's grid.

    Patients are painted along their own axes. A thick slice is the mean of thinner ones, with the label
    of the most; an oblique one is sampled from a straight painting that holds it.
    """
    steps = _steps(affine)
    if not np.allclose(affine[:3, :3], np.eye(3)[:, ::-1] * steps):
        return _sample_obliquely(body, visit, shape, affine)
    parts = max(1, round(steps[0] / _FINEST_STEP_MM))
    fine = steps / (parts, 1, 1)
    first = affine[2::-1, 3] - (0.5 * (steps[0] - fine[0]), 0, 0)
    hu, label = paint_trunk(body, visit, _axes(first, fine, (shape[0] * parts, *shape[1:])), float(steps[2]))
    return _thicken(hu, label, parts)


def _axes(first: Matrix, steps: Matrix, shape: Shape) -> Axes:
    z, y, x = (
        (start + step * np.arange(count)).astype(np.float32)
        for start, step, count in zip(first, steps, shape, strict=True)
    )
    return z, y, x


def _thicken(hu: Array, label: Mask, parts: int) -> tuple[Array, Mask]:
    """Join `parts` slices into one: mean intensity, and the label of the most."""
    if parts == 1:
        return hu, label
    labels = label.reshape(-1, parts, *hu.shape[1:])
    best, votes = labels[:, 0], np.zeros(labels[:, 0].shape, np.uint8)
    for value in range(int(label.max()) + 1):
        count = (labels == value).sum(1, dtype=np.uint8)
        best = np.where(count > votes, np.uint8(value), best)
        votes = np.maximum(count, votes)
    return hu.reshape(-1, parts, *hu.shape[1:]).mean(1), best


def _sample_obliquely(body: Body, visit: Visit, shape: Shape, affine: Matrix) -> tuple[Array, Mask]:
    from scipy.ndimage import affine_transform

    step = float(_steps(affine)[2])
    corners = np.array(list(itertools.product(*((0, count - 1) for count in shape))))
    places = corners @ affine[:3, :3].T + affine[:3, 3]
    low, high = places.min(0)[::-1], places.max(0)[::-1]
    count = np.ceil((high - low) / step).astype(int) + 1
    axes = _axes(low, np.full(3, step), (int(count[0]), int(count[1]), int(count[2])))
    hu, label = paint_trunk(body, visit, axes, step)
    matrix, offset = affine[2::-1, :3] / step, (affine[2::-1, 3] - low) / step
    image = affine_transform(hu, matrix, offset, shape, order=1, mode="nearest")
    return np.asarray(image, np.float32), affine_transform(label, matrix, offset, shape, order=0, mode="nearest")


@dataclass(frozen=True)
class _Sharpness:
    """How far the reconstruction blurs the image and its noise.

    blur:  Standard deviation of the point spread within a slice, in voxels.
    grain: Width of the noise's grains within a slice, in voxels.
    reach: Both along (D, H, W), relative to within a slice.
    """

    blur: float
    grain: float
    reach: tuple[float, ...]


def _add_noise(hu: Array, sigma: float, sharp: _Sharpness, rng: np.random.Generator) -> Array:
    """Blur as the reconstruction does and add its grainy noise, strongest where the body is thickest.

    `sigma` is the noise's standard deviation in the middle of the trunk, in HU.
    """
    from scipy.ndimage import gaussian_filter

    def smooth(volume: Array, width: float, cut: float) -> Array:
        return np.asarray(gaussian_filter(volume, [width * part for part in sharp.reach], truncate=cut), np.float32)

    white = rng.standard_normal(hu.shape, np.float32)
    noise = smooth(white, 0.6 * sharp.grain, 2.5) - smooth(white, 2.2 * sharp.grain, 2.0)
    dense = gaussian_filter(np.clip(hu[::4, ::4, ::4] + 1000, 0, 1400), 5, truncate=2) / 1000
    thickness = np.kron(dense, np.ones((4, 4, 4), np.float32))[: hu.shape[0], : hu.shape[1], : hu.shape[2]]
    noise *= np.float32(sigma) / noise.std() * (0.35 + 0.75 * thickness)
    return np.asarray(smooth(hu, sharp.blur, 2.5) + noise)


def _cut_circle(image: Array) -> Array:
    """Fill what lies outside the scanner's circle with the value that scanners put there."""
    _, height, width = image.shape
    y, x = (np.arange(count) - (count - 1) / 2 for count in (height, width))
    outside = np.hypot(y[:, None], x[None, :]) > width / 2
    return np.where(outside, np.float32(_PADDING_HU), image)


_ORDERS = tuple(itertools.product(itertools.permutations(range(3)), itertools.product((False, True), repeat=3)))
"""Every way to permute and reverse three axes: 48 orientations; the first leaves them."""


def _reorder(scan: Scan, axes: tuple[int, ...], reverse: tuple[bool, ...]) -> Scan:
    """Lay the same voxels down in another order of axes; the affine says so."""
    affine, shape = scan.affine.copy(), scan.image.shape
    for axis, flip in enumerate(reverse):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (shape[axis] - 1)
            affine[:3, axis] *= -1
    affine[:3, :3] = affine[:3, list(axes)]
    flips = tuple(slice(None, None, -1 if flip else 1) for flip in reverse)
    image, label = scan.image[flips].transpose(axes), scan.label[flips].transpose(axes)
    return Scan(np.ascontiguousarray(image), np.ascontiguousarray(label), affine)
