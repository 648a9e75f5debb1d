"""The classification task: targets and probabilities of exclusive and of several labels."""

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.imaging.labels import Labels
from pipeline.losses.base import losses
from pipeline.tasks.base import tasks
from pipeline.tasks.classification import Classification

NONE = Labels()


def test_it_is_registered_and_reads_no_masks():
    task = tasks.parse({"name": "classification"})
    assert not task.reads_masks
    assert task.is_exclusive
    assert not Classification(multi_label=True).is_exclusive


def test_exclusive_classes_are_a_softmax():
    task, logits = Classification(), torch.tensor([[2.0, 0.0, -1.0]])
    assert torch.allclose(task.decode(logits, NONE), logits.softmax(1))
    target = task.target(torch.tensor([[0.0, 1.0, 0.0]]), NONE, None)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor([1]))
    assert torch.allclose(losses.parse("cross_entropy").build()(logits, target), expected)


def test_several_labels_are_a_sigmoid_each():
    task, logits = Classification(multi_label=True), torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 1.0]])
    truth = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(task.decode(logits, NONE), logits.sigmoid())
    found = losses.parse("cross_entropy").build()(logits, task.target(truth, NONE, None))
    assert torch.allclose(found, torch.nn.functional.binary_cross_entropy_with_logits(logits, truth))


def test_too_few_classes_are_refused():
    with pytest.raises(ConfigError, match="column 'class'"):
        Classification().class_names(NONE, ("only",))
    assert Classification(multi_label=True).class_names(NONE, ("only",)) == ("only",)


def test_all_default_metrics_exist():
    assert next(metric.name for metric in Classification().default_metrics()) == "accuracy"
