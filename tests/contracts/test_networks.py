"""What every registered network promises."""

import pytest
import torch

from pipeline.networks.base import Network, networks

EXAMPLES = {"monai": {"class": "SegResNet", "arguments": {"init_filters": 8, "blocks_down": [1, 1], "blocks_up": [1]}}}
"""Options for plug-ins that have no default for each."""


@pytest.fixture(params=networks.names())
def network(request) -> Network:
    return networks.parse({"name": request.param, **EXAMPLES.get(request.param, {})})


@pytest.fixture
def patch(network) -> tuple[int, int, int]:
    d, h, w = (side * (2 if side > 4 else -(-16 // side)) for side in network.divisor())
    return d, h, w


class TestNetworks:
    def test_logits_are_of_all_classes(self, network, patch):
        module = network.build(2, 3, patch).eval()
        with torch.no_grad():
            logits = module(torch.randn(1, 2, *patch))
        assert logits.shape in ((1, 3, *patch), (1, 3))
        assert torch.isfinite(logits).all()

    def test_training_gives_logits_or_a_list_finest_first(self, network, patch):
        outputs = network.build(1, 3, patch).train()(torch.randn(2, 1, *patch))
        levels = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        sizes = [level.shape[2:].numel() for level in levels]
        assert all(level.shape[:2] == (2, 3) for level in levels)
        assert sizes == sorted(sizes, reverse=True)

    def test_every_weight_learns(self, network, patch):
        module = network.build(1, 3, patch).train()
        outputs = module(torch.randn(2, 1, *patch))
        levels = [outputs] if isinstance(outputs, torch.Tensor) else outputs
        sum(level.square().mean() for level in levels).backward()
        assert all(weight.grad is not None for weight in module.parameters())

    def test_one_seed_gives_one_start(self, network, patch):
        starts = []
        for _ in range(2):
            torch.manual_seed(7)
            starts.append(network.build(1, 3, patch).state_dict())
        assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])

    def test_weights_can_be_kept_and_loaded(self, network, patch):
        first, second = (network.build(1, 3, patch).eval() for _ in range(2))
        second.load_state_dict(first.state_dict())
        x = torch.randn(1, 1, *patch)
        with torch.no_grad():
            assert torch.equal(first(x), second(x))

    def test_options_survive_a_round_trip(self, network):
        assert networks.parse(network.model_dump(mode="json")) == network
