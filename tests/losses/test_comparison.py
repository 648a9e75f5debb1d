"""Masks and unlabelled classes, before any loss looks."""

import torch

from pipeline.losses.base import Target
from pipeline.losses.comparison import compare


def test_nothing_is_masked_where_everything_counts(batch):
    logits, classes = batch
    compared = compare(logits, Target(classes, valid=torch.ones_like(classes, dtype=torch.bool)))
    assert compared.counted is None
    assert torch.equal(compared.log_p, logits.flatten(2).log_softmax(1))


def test_ignored_index_and_valid_are_joined(batch, ignored):
    logits, classes = batch
    marked = classes.masked_fill(ignored, 255)
    valid = torch.ones_like(ignored)
    valid[:, 0] = False
    counted = compare(logits, Target(marked, valid=valid)).counted
    assert torch.equal(counted[:, 0].reshape(ignored.shape) > 0, ~ignored & valid)


def test_half_precision_and_channels_last_are_read_as_plain_float32(batch):
    logits, classes = batch
    low = logits.detach().bfloat16().contiguous(memory_format=torch.channels_last_3d)
    compared = compare(low, Target(classes))
    assert compared.log_p.dtype == torch.float32
    assert torch.allclose(compared.log_p, logits.flatten(2).log_softmax(1), atol=0.05)


def test_unlabelled_classes_give_their_probability_to_the_background(batch):
    logits, _ = batch
    annotated = torch.tensor([[True, True, False, False], [False, True, True, True]])
    compared = compare(logits, Target(torch.zeros(2, 5, 6, 7, dtype=torch.long), annotated=annotated))
    p, expected = compared.log_p.exp(), logits.flatten(2).softmax(1)
    assert torch.allclose(p[0, 0], expected[0, [0, 2, 3]].sum(0), atol=1e-6)
    assert torch.allclose(p[0, 1], expected[0, 1], atol=1e-6)
    assert p[0, 2:].abs().max() == 0
    assert torch.allclose(p[1], expected[1], atol=1e-6)  # the background is always labelled


def test_whole_volumes_have_one_voxel():
    compared = compare(torch.randn(3, 5), Target(torch.tensor([0, 4, 255])))
    assert compared.log_p.shape == (3, 5, 1)
    assert compared.counted.flatten().tolist() == [1, 1, 0]


def test_a_voxel_of_a_class_that_its_row_does_not_label_counts_as_background(batch):
    logits, _ = batch
    truth = torch.full((2, 5, 6, 7), 2)
    annotated = torch.tensor([[True, True, False, True], [True, True, True, True]])
    compared = compare(logits, Target(truth, annotated=annotated))
    assert (compared.classes[0] == 0).all()
    assert (compared.classes[1] == 2).all()
    assert compared.log_p.gather(1, compared.classes[:, None]).min() > -50
