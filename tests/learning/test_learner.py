"""One update: averaged, clipped, scaled and meaned as the formulas say, and restored to the bit."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ModelError, StoppedError
from pipeline.learning.learner import Forward, Learner
from pipeline.learning.options import TrainOptions

CPU = torch.device("cpu")
Pair = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads only get into each other's way with so few voxels."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv3d(1, 3, 3), nn.LeakyReLU(), nn.Conv3d(3, 3, 3, padding=1), nn.Conv3d(3, 2, 1))


def pair(number: int, rows: int = 2) -> Pair:
    drawn = torch.Generator().manual_seed(number)
    image = torch.randn(rows, 1, 5, 5, 5, generator=drawn)
    return image, (image[:, 0, 1:-1, 1:-1, 1:-1] > 0).long()


def loss_of(forward: Forward, batch: Pair) -> Tensor:
    return nn.functional.cross_entropy(forward(batch[0]), batch[1])


def learner(module: nn.Module | None = None, loss: Any = loss_of, **options: Any) -> Learner[Pair]:
    return Learner(module or network(), loss, TrainOptions(**({"precision": "fp32"} | options)), CPU)


def test_two_batches_are_one_of_twice_the_size() -> None:
    parts, whole = learner(), learner()
    for step in range(3):
        first, second = pair(2 * step), pair(2 * step + 1)
        together = (torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]]))
        assert parts.update([first, second], 1.0, step).loss == pytest.approx(
            whole.update([together], 1.0, step).loss, rel=1e-5
        )
    for one, other in zip(parts.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("clip", "shrunk"), [(1e-3, True), (1e6, False), (None, False)])
def test_clipping_shrinks_the_gradient_to_the_limit(clip: float | None, shrunk: bool) -> None:
    one = learner(gradient_clip=clip)
    norm = one.update([pair(0)], 1.0, 0).gradient_norm
    left = float(torch.cat([weight.grad.flatten() for weight in one.trained if weight.grad is not None]).norm())
    assert left == pytest.approx(1e-3 if shrunk else norm, rel=1e-2)


def test_mean_weights_follow_their_formula() -> None:
    one = learner(ema=0.9)
    assert one.mean is not None
    expected = next(one.mean.parameters()).clone()
    for step in [*range(5), *range(90, 100)]:
        one.update([pair(step)], 1.0, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * next(one.module.parameters()).detach()
    assert torch.allclose(next(one.mean.parameters()), expected, atol=1e-6)
    assert one.best_module is one.mean
    assert learner().best_module is not None


def test_mean_network_has_the_current_statistics() -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2))
    one = learner(module, ema=0.9)
    one.update([pair(0)], 1.0, 0)
    assert one.mean is not None
    assert torch.equal(one.mean[1].running_mean, module[1].running_mean)  # type: ignore[index]


def test_frozen_parts_stay_with_their_statistics() -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Conv3d(2, 2, 1))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    learner(module, freeze=("0.*", "1.*"), optimizer={"name": "adamw", "weight_decay": 0.5}).update([pair(0)], 1.0, 0)
    changed = [name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["2.weight", "2.bias"]


def test_rate_is_that_of_the_optimiser_times_the_factor() -> None:
    one = learner(optimizer={"name": "sgd", "rate": 0.5})
    one.update([pair(0)], 0.25, 0)
    assert {group["lr"] for group in one.optimizer.param_groups} == {0.125}


def test_fp16_skips_what_overflows_and_lowers_the_scale() -> None:
    one = learner(precision="fp16")
    one.scaler.load_state_dict(one.scaler.state_dict() | {"scale": 2.0**120})
    before = one.module[0].weight.clone()  # type: ignore[index]
    update = one.update([pair(0)], 1.0, 0)
    assert update.overflowed
    assert torch.equal(one.module[0].weight, before)  # type: ignore[index]
    assert one.scaler.get_scale() == 2.0**119
    assert not learner(precision="fp16").update([pair(0)], 1.0, 0).overflowed


def test_an_overflow_is_none_in_other_formats() -> None:
    def endless(forward: Forward, batch: Pair) -> Tensor:
        return loss_of(forward, batch) * float("inf")

    assert not learner(loss=endless).update([pair(0)], 1.0, 0).overflowed


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_restored_it_goes_on_to_the_bit(optimizer: str, precision: str, channels_last: bool) -> None:
    options = {"optimizer": optimizer, "precision": precision, "channels_last": channels_last, "ema": 0.9}
    whole, first, second = learner(**options), learner(**options), learner(nn.Sequential(*network()), **options)
    for step in range(6):
        whole.update([pair(step)], 1.0, step)
    for step in range(3):
        first.update([pair(step)], 1.0, step)
    kept = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in first.tensors().items()}
    second.load(kept)
    for step in range(3, 6):
        second.update([pair(step)], 1.0, step)
    expected, found = whole.tensors(), second.tensors()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_of_another_network_is_refused() -> None:
    tensors = learner().tensors()
    with pytest.raises(ModelError, match="these are not weights of this Sequential"):
        learner(nn.Sequential(nn.Conv3d(1, 2, 3))).load(tensors)


def test_too_little_memory_has_a_remedy() -> None:
    def greedy(forward: Forward, batch: Pair) -> Tensor:
        return torch.empty(10**15)

    with pytest.raises(StoppedError, match=r"out of memory: .*Lower train.batch_size") as found:
        learner(loss=greedy).update([pair(0)], 1.0, 0)
    assert found.value.exit_code == 3


def test_other_errors_pass_unchanged() -> None:
    with pytest.raises(RuntimeError, match="channels"):
        learner().update([(torch.zeros(1, 2, 5, 5, 5), torch.zeros(1, 3, 3, 3).long())], 1.0, 0)


def test_forbidden_operation_names_the_network() -> None:
    def forbidden(forward: Forward, batch: Pair) -> Tensor:
        raise RuntimeError("upsample_trilinear3d_backward_out_cuda does not have a deterministic implementation, but")

    with pytest.raises(ModelError, match="network Sequential: upsample_trilinear3d_backward_out_cuda has no"):
        learner(loss=forbidden).update([pair(0)], 1.0, 0)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_loss_is_given_full_logits_of_each_level(precision: str) -> None:
    class TwoLevels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, 2, 3)

        def forward(self, image: Tensor) -> list[Tensor]:
            full = self.conv(image)
            types.append(full.dtype)
            return [full, full[..., ::2]]

    def loss(forward: Forward, batch: Pair) -> Tensor:
        levels = forward(batch[0])
        assert [level.dtype for level in levels] == [torch.float32, torch.float32]
        return levels[0].mean() + levels[1].mean()

    types: list[torch.dtype] = []
    learner(TwoLevels(), loss, precision=precision).update([pair(0)], 1.0, 0)
    assert types == [{"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]]


def test_the_plain_layout_gives_the_same_numbers_but_for_rounding() -> None:
    one, other = learner(channels_last=True), learner(channels_last=False)
    for step in range(3):
        assert one.update([pair(step)], 1.0, step).loss == pytest.approx(
            other.update([pair(step)], 1.0, step).loss, rel=1e-4
        )
