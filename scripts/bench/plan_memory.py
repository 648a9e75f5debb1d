"""Peak memory and time of training steps of planned configurations, against what the planner predicts.

Run: .venv/bin/python scripts/bench/plan_memory.py
Each runs in a process of its own, whose largest resident memory is read; on a GPU it is torch's peak that counts.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

PLANS = {
    "MR boxes 36 x 50 x 36, 2 classes": {
        "shape": [36, 50, 36], "spacing": [1.0, 1.0, 1.0], "task": "segmentation",
    },
    "thick slices 24 x 160 x 160, 1 class": {
        "shape": [24, 160, 160], "spacing": [5.0, 1.0, 1.0], "task": "segmentation",
    },
    "volumes 24 x 48 x 48 of 3 classes": {
        "shape": [24, 48, 48], "spacing": [1.5, 0.75, 0.75], "task": "classification",
    },
}  # fmt: skip
STEPS = 4
ROOT = Path(__file__).parents[2]


def child(about: dict) -> None:
    """Plan, train a few steps on noise, print prediction and measurement as JSON."""
    import torch

    from pipeline.learning.learner import Learner
    from pipeline.learning.options import TrainOptions
    from pipeline.learning.precision import choose_device
    from pipeline.losses.deep_supervision import deep_supervision
    from pipeline.machine import Machine, keep_freed_memory, peak_memory_mb
    from pipeline.planner.costs import device_of
    from pipeline.planner.known import Known
    from pipeline.planner.resolve import decide
    from pipeline.planner.rules import RULES

    keep_freed_memory()
    config, facts = made_up(about)
    device = choose_device("auto")
    known, _ = decide(config, facts, device_of(Machine()), RULES)
    assert isinstance(known, Known)
    patch, batch = known.get("sample.patch_size"), known.get("train.batch_size")
    predicted = known.cost(patch, batch)
    task, manifest = config.task, facts.manifest
    names = task.class_names(manifest.labels, manifest.class_names)
    loss = deep_supervision(task.default_loss().build())
    images = torch.randn(batch, 1, *patch)
    if task.reads_masks:
        truth = torch.randint(0, len(names), (batch, *patch)).to(torch.uint8)
    else:
        truth = torch.nn.functional.one_hot(torch.arange(batch) % len(names), len(names)).float()

    def loss_of(forward, _):  # type: ignore[no-untyped-def]
        return loss(forward(images), task.target(truth.to(device), manifest.labels, None))

    learner = Learner(known.network().build(1, len(names), tuple(patch)), loss_of, TrainOptions(), device)
    learner.update([None], 1.0, 0)
    started = time.perf_counter()
    for step in range(1, STEPS):
        learner.update([None], 1.0, step)
    seconds = (time.perf_counter() - started) / (STEPS - 1)
    memory = torch.cuda.max_memory_reserved() if device.type == "cuda" else peak_memory_mb() * 1024**2
    print(json.dumps({
        "patch": patch, "batch": batch, "features": known.get("network.features"),
        "predicted": [predicted.memory_bytes, predicted.seconds], "measured": [memory, seconds],
    }))  # fmt: skip


def made_up(about: dict):  # type: ignore[no-untyped-def]
    """Return a configuration that leaves everything open, and facts of forty equal cases."""
    from pipeline.config import PLANNED, check
    from pipeline.datasets.base import Case, Manifest
    from pipeline.imaging.facts import CaseFacts, ChannelFacts, ClassFacts, Intensities
    from pipeline.imaging.labels import Labels
    from pipeline.imaging.volume import Geometry
    from pipeline.records import DatasetFacts

    geometry = Geometry(shape=tuple(about["shape"]), spacing_mm=tuple(about["spacing"]))
    some = Intensities(voxels=1, minimum=0, maximum=900, mean=300, std=100, percentiles=(0.0,) * 9)
    channel = ChannelFacts(dtype="int16", sha256="", voxels_sha256="", nonzero=1, all=some, foreground=some)
    labels = Labels.model_validate({0: "background", 1: "a", 2: "b"})
    part = ClassFacts(voxels=5000, volume_ml=5.0, components=1)
    classes = ("x", "y", "z")
    cases = tuple(Case(case_id=f"c{i}", images={}, classes=(classes[i % 3],)) for i in range(40))
    manifest = Manifest(cases=cases, labels=labels, class_names=classes)
    facts = {
        case.case_id: CaseFacts(
            case_id=case.case_id, geometry=geometry, canonical=geometry, channels={"image": channel},
            classes={"a": part, "b": part},
        )
        for case in cases
    }  # fmt: skip
    tree: dict = {"dataset": {"name": "phantom"}, "task": {"name": about["task"]}, "network": "auto"}
    for path in PLANNED:
        head, _, last = path.partition(".")
        if head != "network":
            tree[head] = {**tree.get(head, {}), last: "auto"} if last else "auto"
    return check(tree, "bench"), DatasetFacts(manifest=manifest, facts=facts)


def main() -> None:
    for name, about in PLANS.items():
        done = subprocess.run(
            [sys.executable, __file__, json.dumps(about)], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        (memory, seconds), (real_memory, real_seconds) = found["predicted"], found["measured"]
        print(
            f"{name}: patch {found['patch']}, batch {found['batch']}, features {found['features']}\n"
            f"  memory {memory / 1e9:.2f} GB predicted, {real_memory / 1e9:.2f} measured ({memory / real_memory:.2f}); "
            f"a step {seconds:.2f} s predicted, {real_seconds:.2f} measured ({seconds / real_seconds:.2f})",
            flush=True,
        )


if __name__ == "__main__":
    child(json.loads(sys.argv[1])) if len(sys.argv) > 1 else main()
