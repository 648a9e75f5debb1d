"""The compiled gather and the one in torch against SciPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.learning.gather import gather_image, gather_label, gather_on_device
from pipeline.transforms.spatial import rotation

RANDOM = np.random.default_rng(1)
SIZE = (14, 17, 19)
TABLE = np.arange(256, dtype=np.uint8)[::-1].copy()
MATRICES = {
    "turned": (rotation((25, -13, 40)) * 1.2).numpy(),
    "shrunk": np.eye(3) * 0.6,
    "mirrored": np.diag([1.0, -1.0, 1.0]) * 0.9,
    "in plane": rotation((33, 0, 0)).numpy(),
    "half turn": rotation((0, 0, 180)).numpy(),
    "axes exchanged": np.eye(3)[[2, 0, 1]],
    "nearly upright": rotation((1e-7, 1e-9, 1e-12)).numpy(),
}
BOXES = {"larger": (30, 33, 31), "smaller": (7, 20, 9), "flat": (1, 18, 20), "line": (15, 1, 1), "dot": (1, 1, 1)}


def centred(matrix: NDArray[np.float64], shape: tuple[int, ...], shift: float) -> NDArray[np.float64]:
    """Return the offset that puts the centre of the patch on that of the box, and a little beside."""
    return (np.array(shape) - 1) / 2 + shift - matrix @ ((np.array(SIZE) - 1) / 2)


def amid_nan(box: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the box with nothing but NaN before and behind it in memory: reading beyond it shows."""
    wide = np.full((box.shape[0] + 2, *box.shape[1:]), np.nan, np.float32)
    wide[1:-1] = box
    return wide[1:-1]


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("kind", BOXES)
@pytest.mark.parametrize("shift", [0.0, 0.317, -40.0])
def test_agrees_with_scipy(name: str, kind: str, shift: float) -> None:
    shape, matrix = BOXES[kind], MATRICES[name]
    box = amid_nan(RANDOM.normal(size=(2, *shape)).astype(np.float32))
    label = RANDOM.integers(0, 4, shape).astype(np.uint8)
    offset, outside = centred(matrix, shape, shift), np.array([-1.5, 0.25], np.float32)
    image, found = np.full((2, *SIZE), np.nan, np.float32), np.zeros(SIZE, np.uint8)
    gather_image(box, matrix, offset, outside, image)
    gather_label(label, matrix, offset, TABLE, found)

    for channel in range(2):
        beyond = {"mode": "grid-constant", "cval": float(outside[channel])}
        expected = ndimage.affine_transform(box[channel].astype(float), matrix, offset, SIZE, order=1, **beyond)
        assert np.allclose(image[channel], expected, atol=1e-5)

    place = np.einsum("ij,jdhw->idhw", matrix, np.indices(SIZE)) + offset[:, None, None, None]
    near = np.floor(place + 0.5).astype(int)
    inside = ((near >= 0) & (near < np.array(shape)[:, None, None, None])).all(0)
    expected_label = np.full(SIZE, 255)
    expected_label[inside] = TABLE[label[tuple(near[:, inside])]]
    certain = (np.abs(place + 0.5 - np.rint(place + 0.5)) > 1e-5).all(0)  # a tie may fall to either side
    assert np.array_equal(found[certain], expected_label[certain])

    torch_image, torch_label = gather_on_device(
        torch.from_numpy(box), torch.from_numpy(label), matrix=matrix, offset=offset,
        background_C=torch.from_numpy(outside), table=torch.from_numpy(TABLE), size=SIZE,
    )  # fmt: skip
    assert np.allclose(torch_image.numpy(), image, atol=3e-4)
    assert torch_label is not None
    assert np.array_equal(torch_label.numpy()[certain], found[certain])


def test_values_stay_between_those_of_the_box_and_the_background() -> None:
    box = RANDOM.uniform(2, 3, (1, 12, 12, 12)).astype(np.float32)
    for angle in range(0, 180, 7):
        matrix = rotation((angle, angle / 2, -angle)).numpy()
        out = np.empty((1, *SIZE), np.float32)
        gather_image(box, matrix, centred(matrix, (12, 12, 12), 0.1), np.array([2.5], np.float32), out)
        assert 2 <= out.min() <= out.max() <= 3 + 1e-6


def test_never_reads_beyond_a_small_box() -> None:
    """Exactly on the faces of boxes of few voxels, where an error of one would show."""
    for _ in range(400):
        shape = tuple(RANDOM.integers(1, 4, 3).tolist())
        box = amid_nan(RANDOM.normal(size=(1, *shape)).astype(np.float32))
        matrix = np.eye(3)[RANDOM.permutation(3)] * RANDOM.choice([-1, 1, -0.5, 0.5], 3)
        offset = RANDOM.integers(-8, 9, 3) / 2
        out = np.empty((1, 5, 6, 9), np.float32)
        gather_image(box, matrix, offset, np.zeros(1, np.float32), out)
        expected = ndimage.affine_transform(
            box[0].astype(float), matrix, offset, out.shape[1:], order=1, mode="grid-constant"
        )
        assert np.allclose(out[0], expected, atol=1e-6)
