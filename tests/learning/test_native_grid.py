"""Decisions on the native grid against SciPy's interpolation of everything, and streamed against whole."""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor

from pipeline.imaging.geometry import affine, resampled_geometry
from pipeline.imaging.volume import Geometry
from pipeline.learning.native_grid import (
    Decide,
    Grids,
    Output,
    Part,
    decide_class,
    decide_class_torch,
    decide_interpolated,
    in_255ths,
    interpolate,
    write_native,
)
from pipeline.learning.sliding_window import Slab

NATIVE = Geometry(shape=(13, 21, 18), spacing_mm=(3.0, 0.8, 1.1))
SPACINGS = [(1.5, 1.5, 1.5), (4.0, 0.5, 1.1), (3.0, 0.8, 1.1), (40.0, 2.0, 2.0)]
REGIONS = decide_interpolated(lambda logits: (logits > 0).to(torch.uint8))
SOFT = decide_interpolated(partial(in_255ths, exclusive=True))
WHOLE = Part((0, 0, 0), (0, 0, 0), NATIVE.shape)


def logits_on(working: Geometry, classes: int = 4) -> Tensor:
    """Smooth fields, so that classes form regions."""
    random = np.random.default_rng(3)
    fields = [gaussian_filter(random.standard_normal(working.shape), 1.5) for _ in range(classes)]
    return torch.from_numpy(np.stack(fields).astype(np.float32) * 10)


def reference(logits: Tensor, grids: Grids) -> np.ndarray:
    """Every class at the physical place of every native voxel, the edge going on, by SciPy in double precision."""
    to_working = np.linalg.solve(affine(grids.working), affine(grids.native))
    index = np.indices(grids.native.shape).reshape(3, -1)
    points = np.clip((to_working[:3, :3] @ index + to_working[:3, 3:]).T, 0, np.array(grids.working.shape) - 1.0).T
    values = [map_coordinates(one.double().numpy(), points, order=1, mode="nearest") for one in logits]
    return np.stack(values).reshape(len(logits), *grids.native.shape)


def slabs_of(logits: Tensor, axis: int, cuts: Sequence[int]) -> Iterator[Slab]:
    """Slabs in memory that is overwritten afterwards, as the sliding window gives them."""
    count = logits.shape[axis + 1]
    edges = [0, *(cut for cut in cuts if cut < count), count]
    for start, stop in itertools.pairwise(edges):
        part = logits.narrow(axis + 1, start, stop - start).clone()
        yield Slab(start, stop, axis, part)
        part.fill_(float("nan"))


def same_but_ties(found: np.ndarray, values: np.ndarray) -> None:
    """The class is the strongest; another one only where both are equal within rounding."""
    chosen = np.take_along_axis(values, found[None].astype(np.int64), 0)[0]
    assert (values.max(0) - chosen).max() < 1e-5
    assert (found != values.argmax(0)).mean() < 1e-3


def grids_of(spacing: tuple[float, float, float]) -> Grids:
    return Grids(resampled_geometry(NATIVE, spacing), NATIVE)


@pytest.mark.parametrize("decide", [decide_class, decide_class_torch])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_class_is_that_of_full_interpolation(spacing: tuple[float, float, float], decide: Decide) -> None:
    grids = grids_of(spacing)
    logits = logits_on(grids.working)
    same_but_ties(decide(logits, grids, WHOLE), reference(logits, grids))


@pytest.mark.parametrize("spacing", SPACINGS)
def test_torch_equals_numba(spacing: tuple[float, float, float]) -> None:
    grids = grids_of(spacing)
    logits = logits_on(grids.working)
    assert (decide_class(logits, grids, WHOLE) != decide_class_torch(logits, grids, WHOLE)).mean() < 1e-3


@pytest.mark.parametrize("spacing", SPACINGS)
def test_interpolation_equals_scipy(spacing: tuple[float, float, float]) -> None:
    grids = grids_of(spacing)
    logits = logits_on(grids.working)
    assert np.allclose(interpolate(logits, grids, WHOLE).numpy(), reference(logits, grids), atol=1e-5)


@pytest.mark.parametrize("decide", [decide_class, decide_class_torch])
def test_same_grid_changes_nothing(decide: Decide) -> None:
    grids, logits = Grids(NATIVE, NATIVE), logits_on(NATIVE)
    assert np.array_equal(decide(logits, grids, WHOLE), logits.argmax(0).numpy())
    assert np.array_equal(REGIONS(logits, grids, WHOLE), (logits > 0).numpy())


def test_regions_and_probabilities_come_from_interpolated_logits() -> None:
    grids = grids_of(SPACINGS[0])
    logits = logits_on(grids.working)
    values = reference(logits, grids)
    certain = np.abs(values) > 1e-4
    assert np.array_equal(REGIONS(logits, grids, WHOLE)[certain], (values > 0)[certain])
    softmax, sigmoid = np.exp(values) / np.exp(values).sum(0), 1 / (1 + np.exp(-values))
    for exclusive, expected in ((True, softmax), (False, sigmoid)):
        found = decide_interpolated(partial(in_255ths, exclusive=exclusive))(logits, grids, WHOLE)
        assert found.dtype == np.uint8
        assert np.abs(found / 255 - expected).max() < 0.5 / 255 + 1e-4


@pytest.mark.parametrize("limit", [1 << 27, 20_000, 1])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(
    "cuts", [(), (4, 9, 10, 17), *(pytest.param(cuts, marks=pytest.mark.slow) for cuts in [(1, 2, 3), (8,)])]
)
def test_slab_by_slab_equals_whole(
    spacing: tuple[float, float, float], axis: int, cuts: tuple[int, ...], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.learning.native_grid._PIECE_BYTES", {"cpu": limit})
    grids = grids_of(spacing)
    logits = logits_on(grids.working)
    mask, regions, shares = (np.full((*lead, *NATIVE.shape), 99, np.uint8) for lead in ((), (4,), (4,)))
    outputs = [Output(decide_class, mask), Output(REGIONS, regions, True), Output(SOFT, shares, True)]
    write_native(slabs_of(logits, axis, cuts), grids, outputs)
    assert np.array_equal(mask, decide_class(logits, grids, WHOLE))
    assert np.array_equal(regions, REGIONS(logits, grids, WHOLE))
    assert np.abs(shares.astype(int) - SOFT(logits, grids, WHOLE)).max() <= 1


@pytest.mark.parametrize("decide", [decide_class, decide_class_torch])
def test_many_classes(decide: Decide) -> None:
    working = Geometry(shape=(6, 7, 8))
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((200, 6, 7, 8)).astype(np.float32))
    grids = Grids(working, resampled_geometry(working, (0.4, 0.5, 0.6)))
    part = Part((0, 0, 0), (0, 0, 0), grids.native.shape)
    same_but_ties(decide(logits, grids, part), reference(logits, grids))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_gives_the_same() -> None:
    grids = grids_of(SPACINGS[0])
    logits = logits_on(grids.working)
    same_but_ties(decide_class(logits.cuda(), grids, WHOLE), reference(logits, grids))
