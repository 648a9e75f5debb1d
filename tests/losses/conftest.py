"""Batches that the loss tests share."""

import pytest
import torch


@pytest.fixture
def batch():
    """Return logits (2, 4, 5, 6, 7) that need a gradient, and classes (2, 5, 6, 7)."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 4, 5, 6, 7, generator=generator, requires_grad=True)
    return logits, torch.randint(0, 4, (2, 5, 6, 7), generator=generator)


@pytest.fixture
def region_batch():
    """Return logits (2, 3, 5, 6, 7) that need a gradient, and overlapping members of the same shape."""
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 3, 5, 6, 7, generator=generator, requires_grad=True)
    return logits, torch.randint(0, 2, (2, 3, 5, 6, 7), generator=generator).float()


@pytest.fixture
def ignored():
    """Return a mask (2, 5, 6, 7) of voxels that do not count."""
    return torch.rand(2, 5, 6, 7, generator=torch.Generator().manual_seed(5)) < 0.3
