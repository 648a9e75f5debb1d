"""Segmentation: targets and predictions, of classes and of regions."""

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.imaging.labels import Labels
from pipeline.tasks.base import tasks

CLASSES = Labels.model_validate({0: "background", 3: "liver", 7: "spleen", 255: "ignore"})
REGIONS = Labels.model_validate(
    {
        0: "background", 1: "oedema", 2: "core", 4: "enhancing",
        "regions": {"whole": ["oedema", "core", "enhancing"], "inner": ["core", "enhancing"], "bright": ["enhancing"]},
    }
)  # fmt: skip
TASK = tasks.parse("segmentation")


def test_class_names():
    assert TASK.class_names(CLASSES, ()) == ("background", "liver", "spleen")
    assert TASK.class_names(REGIONS, ()) == ("whole", "inner", "bright")
    with pytest.raises(ConfigError, match="at least one class beside the background"):
        TASK.class_names(Labels(), ())


def test_target_of_classes():
    truth = torch.tensor([[[[0, 1], [2, 255]]]], dtype=torch.uint8)
    annotated = torch.tensor([[True, True, False]])
    target = TASK.target(truth, CLASSES, annotated)
    assert target.classes.dtype == torch.int64
    assert target.classes.tolist() == truth.tolist()
    assert target.members is None
    assert target.annotated is annotated


def test_target_of_regions():
    truth = torch.tensor([[[[0, 1], [2, 3], [255, 3]]]], dtype=torch.uint8)
    target = TASK.target(truth, REGIONS, None)
    assert target.classes is None
    assert target.members.shape == (1, 3, 1, 3, 2)
    whole, inner, bright = target.members[0, :, 0].tolist()
    assert whole == [[0, 1], [1, 1], [0, 1]]
    assert inner == [[0, 0], [1, 1], [0, 1]]
    assert bright == [[0, 0], [0, 1], [0, 1]]
    assert target.valid.tolist() == [[[[True, True], [True, True], [False, True]]]]


def test_classes_come_back():
    truth = torch.randint(0, 3, (2, 4, 5, 6), dtype=torch.uint8)
    logits = torch.nn.functional.one_hot(truth.long(), 3).movedim(-1, 1).float()
    found = TASK.decode(logits, CLASSES)
    assert found.dtype == torch.uint8
    assert torch.equal(found, truth)


def test_regions_come_back_as_classes():
    truth = torch.randint(0, 4, (2, 4, 5, 6), dtype=torch.uint8)
    logits = 4 * TASK.target(truth, REGIONS, None).members - 2
    assert torch.equal(TASK.decode(logits, REGIONS), truth)


def test_contradicting_regions_give_the_likeliest_class():
    logits = torch.tensor([3.0, -1.0, 2.0])[None, :, None, None, None]  # bright but not inner, which cannot be
    p = logits.flatten().sigmoid()
    of_class = [
        torch.stack([q if member else 1 - q for q, member in zip(p, row, strict=True)]).prod()
        for row in ((0, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 1))
    ]
    assert TASK.decode(logits, REGIONS).item() == torch.stack(of_class).argmax()


def test_defaults():
    assert TASK.default_loss().name == "dice_ce"
    assert [metric.name for metric in TASK.default_metrics()] == ["dice", "hd95", "nsd"]
