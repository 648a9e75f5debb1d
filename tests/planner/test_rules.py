"""What the planner chooses for typical data."""

from math import prod

import pytest

from pipeline.config import PLANNED
from pipeline.planner.rules import RULES


def test_small_mr_boxes(planning):
    get, choices = planning.plan(planning.facts(), train={"max_minutes": 15, "epochs": "auto", "batch_size": "auto"})
    assert get("ingest.spacing_mm") == [1.0, 1.0, 1.0]
    assert get("ingest.crop") == "none"
    assert get("normalise") == {"name": "zscore"}
    assert get("sample.patch_size") == [40, 56, 40]
    assert get("network.features") == [16, 32, 64, 128]
    assert get("network.strides") == [[2, 2, 2]] * 3
    assert get("train.batch_size") == 2
    assert get("sample.foreground") == 0.33
    assert get("folds.k") == 5
    assert all(choice.why.endswith(".") for choice in choices.values())


def test_every_planned_option_has_a_rule():
    assert set(PLANNED) <= set(RULES)


def test_ct_of_the_trunk(planning):
    facts = planning.facts((60, 512, 512), (5.0, 0.8, 0.8), low=-1000.0, ml=1500.0, cases=10)
    get, choices = planning.plan(facts)
    assert get("ingest.crop") == "body"
    assert get("normalise") == {"name": "training_zscore"}
    assert get("ingest.spacing_mm")[0] == 5.0
    assert 0.8 < get("ingest.spacing_mm")[1] < 5.0
    assert "an eighth of a case" in choices["ingest.spacing_mm"].why
    assert prod(get("sample.patch_size")) <= 64**3
    assert get("folds.k") == 3


def test_small_structures_keep_their_voxels(planning):
    get, choices = planning.plan(planning.facts((300, 512, 512), (1.0, 0.8, 0.8), low=-1000.0, ml=0.1))
    assert max(get("ingest.spacing_mm")) < 1.3
    assert "lose the smallest class" in choices["ingest.spacing_mm"].why


@pytest.mark.slow
def test_a_gpu_takes_larger_patches_and_wider_networks(planning):
    facts = planning.facts((200, 300, 300))
    on_cpu, _ = planning.plan(facts)
    on_gpu, _ = planning.plan(facts, device=planning.GPU)
    assert prod(on_gpu("sample.patch_size")) > 4 * prod(on_cpu("sample.patch_size"))
    assert on_gpu("network.features")[0] == 32


@pytest.mark.slow
def test_little_memory_and_little_time_make_smaller_plans(planning):
    facts = planning.facts((200, 200, 200))
    wide, _ = planning.plan(facts)
    poor = planning.CPU.__class__("cpu", 2, "fp32", 800_000_000)
    small, _ = planning.plan(facts, device=poor)
    assert prod(small("sample.patch_size")) * small("train.batch_size") < prod(wide("sample.patch_size")) * 2
    hurried, _ = planning.plan(facts, train={"max_minutes": 2, "batch_size": "auto", "epochs": "auto"})
    assert hurried("network.features")[0] == 8


def test_classification(planning):
    facts = planning.facts((24, 48, 48), (1.5, 0.75, 0.75), low=-1000.0, classes=("x", "y", "y", "y"))
    get, _ = planning.plan(facts, "classification")
    assert get("network.name") == "resnet3d"
    assert get("network.norm") == "instance"
    assert get("normalise.name") == "hu_window"
    assert get("sample.foreground") == 1.0
    assert get("folds.stratify") == ["class"]
    assert not any(change["name"] == "flip" for change in get("train.augment"))


def test_what_is_stated_stays_and_the_rest_follows_it(planning):
    network = {"name": "unet", "features": [4, 8], "strides": "auto"}
    get, choices = planning.plan(planning.facts(), network=network, ingest={"spacing_mm": [2.0, 2.0, 2.0]})
    assert get("network.features") == [4, 8]
    assert len(get("network.strides")) == 1
    assert "ingest.spacing_mm" not in {path for path in choices if get(path) is None}


def test_one_plan_for_one_set_of_facts(planning):
    facts = planning.facts((60, 200, 200), (3.0, 1.0, 1.0))
    first, second = (planning.plan(facts)[0] for _ in range(2))
    assert all(first(path) == second(path) for path in RULES)
