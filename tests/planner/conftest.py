"""Made-up facts to plan from."""

import pytest

from pipeline.config import PLANNED, check
from pipeline.datasets.base import Case, Manifest
from pipeline.imaging.facts import CaseFacts, ChannelFacts, ClassFacts, Intensities
from pipeline.imaging.labels import Labels
from pipeline.imaging.volume import Geometry
from pipeline.planner.costs import Device
from pipeline.planner.resolve import decide, left_open
from pipeline.records import DatasetFacts

CPU = Device("cpu", 2, "fp32", 8 * 1024**3)
GPU = Device("cuda", 100, "bf16", 40 * 1024**3)


class Planning:
    """Makes facts, and asks the rules about them."""

    CPU, GPU = CPU, GPU

    def facts(self, shape=(36, 50, 36), spacing=(1.0, 1.0, 1.0), *, cases=40, low=0.0, ml=5.0, classes=(), nonzero=1.0):
        geometry = Geometry(shape=shape, spacing_mm=spacing)
        some = Intensities(voxels=1, minimum=low, maximum=900, mean=300, std=100, percentiles=(low,) * 4 + (300.0,) * 5)
        channel = ChannelFacts(dtype="int16", sha256="", voxels_sha256="", nonzero=nonzero, all=some, foreground=some)
        part = {"a": ClassFacts(voxels=5000, volume_ml=ml, components=1)}
        listed = tuple(
            Case(case_id=f"c{i}", images={}, classes=(classes[i % len(classes)],) if classes else ())
            for i in range(cases)
        )
        facts = {
            case.case_id: CaseFacts(
                case_id=case.case_id, geometry=geometry, canonical=geometry, channels={"image": channel}, classes=part
            )
            for case in listed
        }
        labels = Labels.model_validate({0: "background", 1: "a"})
        return DatasetFacts(manifest=Manifest(cases=listed, labels=labels, class_names=classes), facts=facts)

    def open_config(self, task="segmentation", **stated):
        tree = {"dataset": {"name": "phantom"}, "task": {"name": task}, "network": "auto"}
        for path in PLANNED:
            head, _, last = path.partition(".")
            if head != "network":
                tree[head] = {**tree.get(head, {}), last: "auto"} if last else "auto"
        return check({**tree, **stated}, "test")

    def plan(self, facts, task="segmentation", device=CPU, **stated):
        config = self.open_config(task, **stated)
        known, choices = decide(config, facts, device, left_open(config))
        return known.get, choices


@pytest.fixture
def planning():
    return Planning()
