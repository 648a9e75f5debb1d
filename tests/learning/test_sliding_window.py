"""The streaming sliding window against brute force, MONAI's inferer and its own invariants."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.learning.sliding_window import (
    Box,
    Forward,
    Member,
    Size,
    Skip,
    WindowGrid,
    average,
    axis_weights,
    mirrored,
    plan_windows,
    slide,
)

CLASSES = 3


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def member(volume_CDHW: Tensor, forward: Forward, background: tuple[float, ...] = (-1.0, -1.0)) -> Member:
    return Member(lambda box: volume_CDHW[(slice(None), *box)], forward, background)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    first, last = nn.Conv3d(2, 6, 3, padding=1), nn.Conv3d(6, CLASSES, 1)
    return nn.Sequential(first, nn.InstanceNorm3d(6), nn.LeakyReLU(), last).eval()


def volume(shape: Size, channels: int = 2) -> Tensor:
    return torch.randn((channels, *shape), generator=torch.Generator().manual_seed(7))


def together(grid: WindowGrid, members: list[Member], **options: Any) -> Tensor:
    """All slabs in one tensor, checked to follow each other without a gap."""
    parts, at = [], 0
    for slab in slide(grid, members, CLASSES, **options):
        assert slab.start == at
        assert slab.axis == grid.axis
        assert slab.logits.shape[1 + grid.axis] == slab.stop - slab.start
        at = slab.stop
        parts.append(slab.logits.clone())
    assert at == grid.shape[grid.axis]
    return torch.cat(parts, 1 + grid.axis)


@torch.no_grad()
def brute_force(
    grid: WindowGrid, volume_CDHW: Tensor, forwards: list[Forward], profile: Callable[[int], Any], background: float
) -> Tensor:
    """The plain way: everything in memory, in double precision, divided by the sum of weights."""
    padded = torch.full((volume_CDHW.shape[0], *grid.padded), background)
    inner = (slice(None), *(slice(b, b + n) for b, n in zip(grid.before, grid.shape, strict=True)))
    padded[inner] = volume_CDHW
    d, h, w = (torch.as_tensor(profile(n)) for n in grid.window)
    weight = d[:, None, None] * h[:, None] * w
    total = torch.zeros((CLASSES, *grid.padded), dtype=torch.float64)
    weights = torch.zeros(grid.padded, dtype=torch.float64)
    for start in itertools.product(*grid.starts):
        box = tuple(slice(s, s + n) for s, n in zip(start, grid.window, strict=True))
        part = padded[(slice(None), *box)][None]
        total[(slice(None), *box)] += weight * sum(forward(part)[0].double() for forward in forwards) / len(forwards)
        weights[box] += weight
    return (total / weights)[inner]


def gaussian(n: int) -> np.ndarray:
    return np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2)


PROFILES = {"gaussian": gaussian, "constant": np.ones, "hann": lambda n: np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2}
SHAPES = [(33, 20, 27), (20, 41, 19), (17, 18, 50), (16, 12, 14), (9, 30, 7), (5, 4, 3), (16, 12, 40)]
WINDOW = (16, 12, 14)


@pytest.mark.parametrize("weights", PROFILES)
@pytest.mark.parametrize("shape", SHAPES)
def test_equals_brute_force(shape: Size, weights: Any) -> None:
    grid, data, net = plan_windows(shape, WINDOW, (0.5, 0.25, 0.7)), volume(shape), network()
    found = together(grid, [member(data, net)], weights=weights, batch=3)
    expected = brute_force(grid, data, [net], PROFILES[weights], -1.0)
    assert found.shape == (CLASSES, *shape)
    torch.testing.assert_close(found.double(), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("shape", "overlap"), [((48, 24, 35), 0.5), ((40, 21, 14), 0.25), ((16, 12, 56), 0.5)])
def test_equals_monai(shape: Size, overlap: float) -> None:
    """On shapes where MONAI's fixed steps and our even ones give the same windows."""
    from monai.inferers.utils import sliding_window_inference

    grid, data, net = plan_windows(shape, WINDOW, overlap), volume(shape), network()
    d, h, w = (torch.as_tensor(gaussian(n), dtype=torch.float32) for n in WINDOW)
    with torch.no_grad():
        expected = sliding_window_inference(
            data[None], WINDOW, 1, net, overlap=overlap, roi_weight_map=d[:, None, None] * h[:, None] * w
        )[0]
        plain = sliding_window_inference(data[None], WINDOW, 1, net, overlap=overlap, mode="constant")[0]
    torch.testing.assert_close(together(grid, [member(data, net)]), expected, atol=3e-5, rtol=0)
    torch.testing.assert_close(together(grid, [member(data, net)], weights="constant"), plain, atol=3e-5, rtol=0)


def test_gaussian_is_that_of_monai() -> None:
    from monai.data.utils import compute_importance_map

    expected = compute_importance_map((32, 1, 1), "gaussian", 0.125).numpy()[:, 0, 0]
    found = axis_weights([0, 32], 32, 64, "gaussian")
    assert np.allclose(found[0], 1)  # alone everywhere
    ours = np.exp(-0.5 * ((np.arange(32) - 15.5) / 4) ** 2)
    assert np.allclose(ours / ours.max(), expected / expected.max(), atol=2e-3)  # MONAI lifts what is below 1e-3


@pytest.mark.parametrize("weights", PROFILES)
@pytest.mark.parametrize("shape", SHAPES)
def test_identity_is_identity(shape: Size, weights: Any) -> None:
    data = volume(shape, CLASSES)
    found = together(plan_windows(shape, WINDOW), [member(data, lambda x: x, (0.0,) * CLASSES)], weights=weights)
    torch.testing.assert_close(found, data, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", PROFILES)
@pytest.mark.parametrize(("length", "overlap"), [(96, 0.0), (97, 0.0), (200, 0.5), (1000, 0.75), (33, 0.5), (32, 0.5)])
def test_axis_weights_sum_to_one(length: int, overlap: float, kind: Any) -> None:
    starts = plan_windows((length, 32, 32), (32, 32, 32), overlap).starts[0]
    total = np.zeros(length)
    for start, weight in zip(starts, axis_weights(starts, 32, length, kind), strict=True):
        assert (weight > 0).all()
        total[start : start + 32] += weight
    assert np.allclose(total, 1)


def test_windows_cover_and_keep_their_overlap() -> None:
    for length in range(20, 120, 7):
        starts = plan_windows((length, 16, 16), (16, 16, 16), 0.5).starts[0]
        assert starts[0] == 0
        assert starts[-1] == max(0, length - 16)
        steps = np.diff(starts)
        assert len(steps) == 0 or (steps.max() <= 8 and steps.max() - steps.min() <= 1)


def test_slab_axis_follows_the_shape() -> None:
    assert plan_windows((64, 128, 128), (64, 64, 64)).axis == 1
    assert plan_windows((300, 256, 256), (96, 96, 96)).axis == 0
    assert plan_windows((20, 200, 300), (16, 128, 64)).axis == 2
    assert plan_windows((8, 8, 8), (16, 16, 16)).axis == 0


def test_overlap_of_a_whole_window_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        plan_windows((8, 8, 8), (4, 4, 4), 1.0)


def test_ensemble_is_the_mean_of_logits() -> None:
    shape = (30, 18, 20)
    grid, data = plan_windows(shape, WINDOW), volume(shape)
    nets = [network(seed) for seed in range(3)]
    # Each member has its own normalisation.
    scaled = [data, data * 2, data * 3]
    shifted = [member(one, net, (0.0, 0.0)) for one, net in zip(scaled, nets, strict=True)]
    expected = torch.stack([together(grid, [one]) for one in shifted]).mean(0)
    torch.testing.assert_close(together(grid, shifted, batch=2), expected, atol=1e-5, rtol=0)


def test_mirroring_averages_all_images_and_swaps_sides() -> None:
    net, data = network(), volume((6, 7, 8))[None]
    with torch.no_grad():
        found = mirrored(net, (1, 2), ((1, 2),))(data)
        parts = [net(data), net(data.flip(3)).flip(3)]
        parts += [net(data.flip(dims)).flip(dims)[:, [0, 2, 1]] for dims in ((4,), (3, 4))]
    torch.testing.assert_close(found, torch.stack(parts).mean(0))
    assert mirrored(net, ()) is net


def test_mirroring_knows_left_from_right() -> None:
    """A network that tells the sides by their place says the same of a mirrored patient; swapping back mends it."""

    def sides(x: Tensor) -> Tensor:
        right = torch.zeros_like(x)
        right[..., :4] = 1
        return torch.cat([torch.zeros_like(x), right, 1 - right], 1)

    image = torch.zeros(1, 1, 4, 4, 8)
    assert torch.equal(mirrored(sides, (0, 2), ((1, 2),))(image), sides(image))
    assert not torch.equal(mirrored(sides, (0, 2))(image), sides(image))


def test_scratch_file_gives_equal_numbers(tmp_path: Any) -> None:
    shape = (40, 20, 20)
    grid, data, net = plan_windows(shape, WINDOW), volume(shape), network()
    in_memory = together(grid, [member(data, net)])
    assert torch.equal(in_memory, together(grid, [member(data, net)], memory_limit=1000, scratch=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_half_precision_sum_is_close() -> None:
    shape = (40, 20, 20)
    grid, data, net = plan_windows(shape, WINDOW), volume(shape), network()
    half = together(grid, [member(data, net)], accumulator=torch.float16)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), together(grid, [member(data, net)]), atol=1e-2, rtol=0)


def test_bfloat16_logits_are_summed_in_float32() -> None:
    shape = (40, 20, 20)
    grid, data, net = plan_windows(shape, WINDOW), volume(shape), network()
    found = together(grid, [member(data, lambda x: net(x).bfloat16())])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, together(grid, [member(data, net)]), atol=3e-2, rtol=0)


def test_air_is_skipped_and_is_background() -> None:
    shape = (48, 12, 14)
    data = volume(shape)
    data[:, 24:] = -1
    seen = []

    def forward(x: Tensor) -> Tensor:
        seen.append(len(x))
        return torch.stack([-x[:, 0], x[:, 0], torch.full_like(x[:, 0], -5)], 1)

    def is_empty(box: Box) -> bool:
        return bool((data[(slice(None), *box)] == -1).all())

    grid = plan_windows(shape, WINDOW, 0.5)
    everything = together(grid, [member(data, forward)], batch=2)
    assert sum(seen) == len(grid) == 5
    seen.clear()
    found = together(grid, [member(data, forward)], batch=2, skip=Skip(is_empty, (10.0, 0.0, 0.0)))
    assert sum(seen) == 3  # windows at 0, 8, 16, of 0, 8, 16, 24, 32
    assert torch.equal(found.argmax(0)[24:], torch.zeros((24, 12, 14), dtype=torch.int64))
    assert torch.equal(found.argmax(0)[:24], everything.argmax(0)[:24])


def test_only_a_slab_is_held() -> None:
    """The slab's size does not depend on the length of the volume, and rows are given as soon as they are final."""
    short, long = (plan_windows((n, 24, 24), (16, 16, 16)) for n in (64, 6400))
    assert short.slab == long.slab == (16, 24, 24)
    data = volume((64, 24, 24))
    read: list[int] = []

    def watch(box: Box) -> Tensor:
        read.append(box[0].start)
        return data[(slice(None), *box)]

    for slab in slide(short, [Member(watch, network(), (0.0, 0.0))], CLASSES):
        later = [start for start in short.starts[0] if start > max(read)]
        assert slab.stop == (later[0] if later else 64)


def test_wrong_number_of_classes_is_named() -> None:
    data = volume((16, 12, 14))
    with pytest.raises(ValueError, match="3 classes"):
        next(slide(plan_windows((16, 12, 14), WINDOW), [member(data, lambda x: x)], CLASSES))


def test_windows_done_are_counted() -> None:
    data, done = volume((40, 20, 20)), []
    grid = plan_windows((40, 20, 20), WINDOW)
    together(grid, [member(data, network())], batch=3, advance=done.append)
    assert sum(done) == len(grid)
    assert max(done) == 3


def test_whole_volume_logits_are_the_mean_over_windows_and_members() -> None:
    data = volume((40, 20, 20))
    grid = plan_windows((40, 20, 20), WINDOW)

    def judge(x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3, 4)), x.amax((1, 2, 3, 4))], 1)

    done: list[int] = []
    twice = member(data * 2, judge)
    found = average(grid, [member(data, judge), twice], batch=4, advance=done.append)
    d, h, w = WINDOW
    windows = [data[None, :, i : i + d, j : j + h, k : k + w] for i, j, k in itertools.product(*grid.starts)]
    expected = torch.stack([judge(one)[0] for one in windows]).mean(0) * 1.5
    torch.testing.assert_close(found, expected)
    assert sum(done) == len(grid)


def test_memory_does_not_grow_with_the_length_of_the_volume() -> None:
    """What is held of the logits has the size of a slab, ten times the slices or not."""

    def held(length: int) -> set[int]:
        grid = plan_windows((length, 12, 10), (8, 8, 8), 0.5)
        member = Member(lambda box: torch.zeros(1, *(part.stop - part.start for part in box)), lambda x: x, (0.0,))
        return {slab.logits.untyped_storage().nbytes() for slab in slide(grid, [member], 1)}

    assert held(30) == held(300) == {8 * 12 * 10 * 4}


def test_members_take_turns_once_a_row() -> None:
    grid, turns = plan_windows((20, 12, 8), (8, 8, 8), 0.5), []

    def member(name: str) -> Member:
        def read(box: tuple[slice, slice, slice]) -> torch.Tensor:
            return torch.zeros(1, *(part.stop - part.start for part in box))

        return Member(read, lambda x: x, (0.0,), lambda: turns.append(name))

    done: list[int] = []
    for _ in slide(grid, [member("a"), member("b")], 1, advance=done.append):
        pass
    assert "".join(turns) == "ab" * len(grid.starts[0])
    assert sum(done) == len(grid)


def test_a_network_that_keeps_tensors_can_be_trained_after_a_validation() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.kept = nn.Conv3d(2, CLASSES, 1), None

        def forward(self, x: Tensor) -> Tensor:
            if self.kept is None:
                self.kept = torch.ones(1, 2, 1, 1, 1) * 2
            return self.layer(x * self.kept).square()

    for judge in (False, True):
        module, image = Keeping(), volume((4, 4, 4))
        grid = plan_windows((4, 4, 4), (4, 4, 4))
        if judge:
            average(grid, [member(image, lambda x, module=module: module(x).mean((2, 3, 4)))])
        else:
            together(grid, [member(image, module)])
        (module(image[None].requires_grad_()) * module.kept[:, :1]).sum().backward()
        assert module.layer.weight.grad is not None
