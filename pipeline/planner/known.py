"""What a rule of the planner knows: the facts of the cases, the device, and what is stated or decided so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.base import Case
from pipeline.errors import PipelineError
from pipeline.imaging.block import member_of
from pipeline.imaging.crop import body_box, nonzero_box
from pipeline.imaging.facts import CaseFacts, ChannelFacts
from pipeline.imaging.geometry import canonical
from pipeline.imaging.read import read_case
from pipeline.networks.base import Network, networks
from pipeline.planner.costs import Device, StepCost, step_cost
from pipeline.records import DatasetFacts
from pipeline.tasks.base import Task

_MOST_READ = 12
"""Cases that are read to see how much a crop leaves."""
_HU_AIR = -500.0


@dataclass(frozen=True, eq=False)
class Known:
    """What rules read. `tree` is the configuration as plain values; those still to be decided are in `open`."""

    tree: Mapping[str, Any]
    open: frozenset[str]
    facts: DatasetFacts
    task: Task
    device: Device
    cropped: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """Kind of crop -> extents in mm of the cases looked at, remembered between rules."""

    def get(self, path: str) -> Any:
        """Return the value at `a.b`; None where there is none."""
        value: Any = self.tree
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    @cached_property
    def cases(self) -> list[CaseFacts]:
        """Facts of the cases that are trained on, all where none is set aside for testing."""
        test = {case.case_id for case in self.facts.manifest.cases if case.split == "test"}
        return [fact for case_id, fact in self.facts.facts.items() if case_id not in test] or list(
            self.facts.facts.values()
        )

    @cached_property
    def listed(self) -> list[Case]:
        """The training cases as the data set lists them."""
        return [case for case in self.facts.manifest.cases if case.split != "test"]

    @cached_property
    def groups(self) -> int:
        """Return how many patients there are to divide."""
        return len({case.patient for case in self.listed})

    @cached_property
    def is_block(self) -> bool:
        """Whether the cases are volumes of one array, which have no size in mm."""
        first = next(iter(self.facts.manifest.cases), None)
        return first is not None and any(member_of(path) is not None for path in first.images.values())

    @cached_property
    def spacings(self) -> NDArray[np.float64]:
        """Return (N, 3) voxel sizes in mm."""
        return np.array([fact.canonical_spacing_mm for fact in self.cases], float).reshape(-1, 3)

    def channel(self, name: str) -> list[ChannelFacts]:
        """Return the facts of one channel in the cases that have it."""
        return [fact.channels[name] for fact in self.cases if name in fact.channels]

    def is_ct(self, name: str) -> bool:
        """Whether a channel is CT: it reaches down to air in most cases."""
        lowest = [found.all.minimum for found in self.channel(name)]
        return bool(lowest) and float(np.median(lowest)) < _HU_AIR

    def extents_mm(self) -> NDArray[np.float64]:
        """Return (N, 3) sizes in mm after the crop; of a sample of the cases where these must be read for it."""
        crop = self.get("ingest.crop") or "none"
        if crop not in self.cropped:
            whole = np.array([np.multiply(fact.canonical_shape, fact.canonical_spacing_mm) for fact in self.cases])
            self.cropped[crop] = self._after_crop(crop) if crop != "none" and not self.is_block else whole
            if not len(self.cropped[crop]):
                self.cropped[crop] = whole.reshape(-1, 3)
        extents = self.cropped[crop]
        middle = self.get("ingest.middle_mm")
        return extents if middle is None else np.minimum(extents, np.array(middle))

    def extent_voxels(self) -> NDArray[np.float64]:
        """Return the sides of the case that a patch is made for: the median one, or one of the largest (below)."""
        spacing = self.get("ingest.spacing_mm")
        target = np.median(self.spacings, axis=0) if spacing in ("auto", None) else np.array(spacing, float)
        # A whole volume gets one class, so a patch should hold nearly all of them whole.
        percent = 50 if self.task.reads_masks else 95
        sides: NDArray[np.float64] = np.percentile(self.extents_mm(), percent, axis=0) / target
        return np.maximum(1.0, np.round(sides, 3))

    def network(self, **changes: Any) -> Network:
        """Return the network as decided so far, with some options changed."""
        return networks.parse({**self.tree["network"], **changes})

    def cost(self, patch: Sequence[int], batch: int, **changes: Any) -> StepCost | None:
        """Predict a training step of the network as decided so far."""
        manifest = self.facts.manifest
        try:
            names = self.task.class_names(manifest.labels, manifest.class_names)
        except PipelineError:
            return None  # told where it matters: by the survey, or when the network is built
        return step_cost(self.network(**changes), len(manifest.channels), len(names), patch, batch, self.device)

    def _after_crop(self, crop: str) -> NDArray[np.float64]:
        """Read some cases, evenly by size, and return (N, 3) what the crop leaves of each, in mm."""
        find = body_box if crop == "body" else nonzero_box
        margin = float(self.get("ingest.margin_mm") or 0.0)
        by_id = {case.case_id: case for case in self.facts.manifest.cases if case.images}
        ordered = sorted(self.cases, key=lambda fact: (np.prod(fact.canonical_shape), fact.case_id))
        chosen = [fact for fact in ordered if fact.case_id in by_id]
        places = sorted({int(place) for place in np.linspace(0, len(chosen) - 1, min(_MOST_READ, len(chosen)))})
        found = []
        for place in places:
            case = by_id[chosen[place].case_id]
            volumes, _ = read_case(case.images, None, self.facts.manifest.labels, case_id=case.case_id)
            upright, _ = canonical(next(iter(volumes.values())))
            box = find(upright, margin)
            voxels = np.subtract(box.stop, box.start)
            found.append(voxels * np.array(upright.geometry.spacing_mm))
        return np.array(found, float).reshape(-1, 3)
