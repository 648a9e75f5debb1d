"""How long `check` looks at a data set, against decoding every file once with our reader and hashing its bytes.

Run: python -m scripts.bench.check               made-up volumes of 80 x 256 x 256 voxels with labels
     python -m scripts.bench.check MANIFEST.csv  a data set of your own
Both work in two child processes, whose start counts for both.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from pipeline.datasets.base import Case, Manifest
from pipeline.datasets.manifest import read_manifest
from pipeline.doctor.checkup import check_up
from pipeline.imaging.facts import content_sha256
from pipeline.imaging.labels import Labels
from pipeline.imaging.nifti import read_nifti
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image, write_mask
from pipeline.machine import Machine
from pipeline.parallel import Job, map_cases
from pipeline.progress import Progress

CASES, SHAPE, ROUNDS = 20, (80, 256, 256), 5
MACHINE = Machine(workers=2)


def decode(images: Mapping[str, Path], label: Path | None) -> list[str]:
    """Read each file once and hash its bytes: what no check of contents can do without."""
    found = []
    for path in [*images.values(), *([label] if label else [])]:
        found.append(content_sha256(path))
        read_nifti(path)
    return found


def decode_all(manifest: Manifest) -> None:
    jobs = [Job(case.case_id, (case.images, case.label)) for case in manifest.cases]
    map_cases(decode, jobs, workers=2, memory_bytes=1 << 40, what="decode", progress=Progress())


def made_up(folder: Path) -> Manifest:
    """Write scans with the noise of CT around a body, and labels of a few organs."""
    cases = []
    grid = Geometry(shape=SHAPE, spacing_mm=(2.5, 0.8, 0.8))
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij"))
    body = (places**2 * [[[[0.2]]], [[[1.5]]], [[[1.5]]]]).sum(0) < 0.8
    for number in range(CASES):
        rng = np.random.default_rng(number)
        voxels = np.where(body, 40, -1000) + rng.normal(0, 12, SHAPE)
        label = np.zeros(SHAPE, np.uint8)
        for organ in range(1, 6):
            at = rng.integers(60, 180, 2)
            label[20:60, at[0] : at[0] + 30, at[1] : at[1] + 30] = organ
        files = folder / f"{number}.nii.gz", folder / f"{number}_label.nii.gz"
        write_image(Volume(voxels.astype(np.int16)[None], grid), files[0])
        write_mask(label, grid, files[1])
        cases.append(Case(case_id=f"c{number}", images={"image": files[0]}, label=files[1]))
    names = {0: "background", **{organ: f"organ_{organ}" for organ in range(1, 6)}}
    return Manifest(cases=tuple(cases), labels=Labels(values=names))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        manifest = read_manifest(Path(sys.argv[1])) if len(sys.argv) > 1 else made_up(Path(folder))
        times: dict[str, list[float]] = {"decode and hash": [], "check": []}
        for _ in range(ROUNDS):
            times["decode and hash"].append(seconds(lambda: decode_all(manifest)))
            times["check"].append(seconds(lambda: check_up(manifest, MACHINE, Progress())))
    middle = {name: statistics.median(found) for name, found in times.items()}
    for name, found in times.items():
        print(
            f"{name:16} {middle[name]:.2f} s (from {min(found):.2f} to {max(found):.2f}), {len(manifest.cases)} cases"
        )
    print(f"ratio            {middle['check'] / middle['decode and hash']:.2f}; expected at most 1.5")


if __name__ == "__main__":
    main()
