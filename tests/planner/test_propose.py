"""A plan is a YAML that runs as it is, with reasons; what is stated stays."""

import yaml

from pipeline.config import check
from pipeline.planner.page import Plan
from pipeline.planner.propose import only_kept, propose


def made(planning, tree, **facts):
    return propose(tree, lambda config: planning.facts(**facts), source="x.yaml", output="y.yaml")


def test_a_plan_from_nothing_reads_back(planning):
    plan, config = made(planning, {"seed": 1, "dataset": {"name": "phantom"}})
    text = plan.to_yaml()
    assert check(yaml.safe_load(text), "again") == config
    assert config.seed == 1
    assert config.sample.patch_size == (40, 56, 40)
    lines = text.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("  patch_size:"))
    assert lines[place - 1].startswith("  # ")
    assert "Predicted for a training step" in text
    assert all(len(line) <= 120 for line in lines)


def test_what_is_stated_stays_with_a_remark(planning):
    tree = {"dataset": {"name": "phantom"}, "train": {"batch_size": 16}, "predict": {"overlap": 0.25}}
    plan, config = made(planning, tree)
    assert config.train.batch_size == 16
    assert config.predict.overlap == 0.25
    assert plan.reasons["train.batch_size"].startswith("Stated. The planner's choice: 2.")
    assert "predict.overlap" not in plan.reasons


def test_another_network_gets_no_options_of_ours(planning):
    network = {"name": "monai", "class": "SegResNet", "arguments": {"init_filters": 8}}
    _, config = made(planning, {"dataset": {"name": "phantom"}, "network": network})
    assert config.network.name == "monai"
    assert config.train.batch_size >= 1


def test_only_what_is_asked_is_kept():
    tree = {"dataset": {"name": "phantom"}, "labels": {0: "a"}, "train": {"epochs": 2}, "network": {"name": "unet"}}
    assert set(only_kept(tree)) == {"dataset", "labels"}


def test_long_values_are_wrapped_and_short_ones_are_not():
    tree = {"seed": 0, "a": {"k": 5, "list": [[1, 2, 3]] * 40}}
    plan = Plan(tree, {"a.k": "word " * 60}, ["Head."])
    text = plan.to_yaml()
    assert yaml.safe_load(text) == tree
    assert "\n  k: 5\n" in text
    assert all(len(line) <= 120 for line in text.splitlines())
