"""Crops keep the body and every labelled voxel, and drop air, table and noise."""

import numpy as np

from pipeline.imaging.crop import body_box, cover, nonzero_box, whole_box
from pipeline.imaging.volume import Geometry, Volume


def ct_with_table() -> Volume:
    voxels = np.full((40, 120, 110), -1024, np.int16)
    voxels += np.random.default_rng(0).normal(0, 20, voxels.shape).astype(np.int16)
    voxels[4:36, 20:80, 30:90] = 40
    voxels[8:30, 30:60, 40:80] = -800  # lungs
    voxels[:, 100:102, 10:100] = 200  # table
    return Volume(voxels[None], Geometry(shape=voxels.shape, spacing_mm=(2.0, 0.8, 0.8)))


def test_body_of_a_ct() -> None:
    box = body_box(ct_with_table(), margin_mm=0)
    for begin, end, low, high, step in zip(box.start, box.stop, (4, 20, 30), (36, 80, 90), (1, 3, 3)):
        assert low - step < begin <= low
        assert high <= end < high + 2 * step


def test_margin_and_edges() -> None:
    volume = ct_with_table()
    tight, wide = body_box(volume, 0), body_box(volume, 4.1)
    assert np.subtract(tight.start, wide.start).tolist() == [3, 6, 6]
    assert np.subtract(wide.stop, tight.stop).tolist() == [3, 6, 6]
    assert body_box(volume, 1e4) == whole_box(volume.geometry.shape)


def test_head_in_zeros_and_a_volume_without_air() -> None:
    voxels = np.zeros((20, 30, 30), np.float32)
    voxels[5:15, 6:25, 7:24] = 90.5
    volume = Volume(voxels[None], Geometry(shape=voxels.shape))
    assert nonzero_box(volume, 0).slices == (slice(5, 15), slice(6, 25), slice(7, 24))
    box = body_box(volume, 0)
    assert box.start <= (5, 6, 7)
    assert all(end >= high for end, high in zip(box.stop, (15, 25, 24)))
    full = Volume(np.random.default_rng(0).uniform(5, 9, (1, 20, 30, 30)), volume.geometry)
    assert body_box(full, 0) == whole_box((20, 30, 30))


def test_empty_volumes_are_kept_whole() -> None:
    volume = Volume(np.zeros((1, 4, 5, 6), np.int16), Geometry(shape=(4, 5, 6)))
    assert body_box(volume, 0) == nonzero_box(volume, 0) == whole_box((4, 5, 6))


def test_channels_are_united() -> None:
    voxels = np.zeros((2, 10, 10, 10), np.int16)
    voxels[0, 2:4, 2:4, 2:4] = 1
    voxels[1, 6:8, 2:9, 5] = 1
    box = nonzero_box(Volume(voxels, Geometry(shape=(10, 10, 10))), 0)
    assert (box.start, box.stop) == ((2, 2, 2), (8, 9, 6))


def test_labels_are_covered() -> None:
    label = np.zeros((10, 10, 10), np.uint8)
    box = body_box(Volume(np.ones((1, 10, 10, 10)), Geometry(shape=(10, 10, 10))), 0)._replace(
        start=(4, 4, 4), stop=(6, 6, 6)
    )
    assert cover(box, label) == box
    label[1, 5, 9] = 3
    found = cover(box, label)
    assert (found.start, found.stop) == ((1, 4, 4), (6, 6, 10))
