"""DICOM segmentations of an export as label volumes of the series that they refer to."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.dicom.audit import Judged
from pipeline.dicom.codes import SegmentCode
from pipeline.dicom.geometry import grid_of, stack_of
from pipeline.dicom.seg_labels import read_seg, referenced_series
from pipeline.dicom.series import Series
from pipeline.errors import DataError, plural
from pipeline.imaging.labels import Labels
from pipeline.imaging.write import write_mask


@dataclass
class Drawn:
    """The segmentations of an export, and what their segments are called; values are given as names come."""

    by_series: dict[str, list[Path]] = field(default_factory=dict)
    """UID of a series -> the segmentations that refer to it."""
    files: set[str] = field(default_factory=set)
    """Paths of all of them."""
    values: dict[str, int] = field(default_factory=dict)
    found: dict[str, SegmentCode] = field(default_factory=dict)

    @classmethod
    def of(cls, judged: Iterable[Judged]) -> "Drawn":
        """Find the segmentations that refer to a series of the same export."""
        everything = [one.series for one in judged]
        known = {series.header.series_uid for series in everything if series.header.modality != "SEG"} - {""}
        by_series: dict[str, list[Path]] = defaultdict(list)
        for series in everything:
            if series.header.modality == "SEG":
                for path in dict.fromkeys(plane.header.path for plane in series.planes):
                    by_series[referenced_series(Path(path))].append(Path(path))
        mine = {uid: sorted(paths) for uid, paths in by_series.items() if uid in known}
        return cls(mine, {str(path) for paths in mine.values() for path in paths})

    @property
    def labels(self) -> Labels | None:
        """What the values mean; None where nothing was written."""
        names = {value: name for name, value in self.values.items()}
        return Labels(values={0: "background"} | names) if names else None

    @property
    def codes(self) -> dict[str, Any]:
        """Class name -> codes, as the metadata of a manifest has them."""
        return {name: code.model_dump(mode="json", exclude_none=True) for name, code in self.found.items()}

    def write_label(self, series: Series, folder: Path, case_id: str) -> Path | None:
        """Write `<case>.nii.gz` on the grid of a series; None where no segmentation refers to it.

        A class without a segment counts as absent from the case, not as unknown.

        Raises:
            DataError: one cannot be read, lies elsewhere, or two claim one voxel.
        """
        paths = self.by_series.get(series.header.series_uid, ())
        if not paths:
            return None
        geometry = grid_of(stack_of(series.planes))
        out = np.zeros(geometry.shape, np.uint16)
        for path in paths:
            read = read_seg(path, geometry, frame_of_reference=series.header.frame_of_reference)
            segments = read.volume.voxels[0]
            for number in sorted(read.names):
                inside = segments == number
                if twice := int(np.count_nonzero(out[inside])):
                    raise DataError(f"two segmentations claim {plural(twice, 'voxel')}; expected one. Part them.")
                name = read.names[number].strip() or f"segment {number}"
                out[inside] = self.values.setdefault(name, len(self.values) + 1)
                if number in read.codes:
                    self.found.setdefault(name, read.codes[number])
        path = folder / f"{case_id}.nii.gz"
        write_mask(out.astype(np.uint8) if len(self.values) < 256 else out, geometry, path)
        return path
