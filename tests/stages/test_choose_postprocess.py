"""Post-processing that is chosen helps, and what does not help is left out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.imaging.labels import Labels
from pipeline.imaging.volume import Geometry
from pipeline.imaging.write import write_mask
from pipeline.learning.models import parse_postprocess
from pipeline.machine import Machine
from pipeline.postprocess.base import PostProcess
from pipeline.postprocess.components import LargestComponent, MinimumVolume
from pipeline.progress import Progress
from pipeline.stages.choose_postprocess import MendJob, choose_postprocess, usual_candidates

LABELS = Labels.model_validate({0: "background", 3: "liver", 7: "spots"})
SHAPE = (10, 12, 14)


def job(folder: Path, number: int, guess: NDArray[np.uint8], truth: NDArray[np.uint8]) -> MendJob:
    paths = [folder / f"{kind}_{number}.nii.gz" for kind in ("guess", "truth")]
    for path, mask in zip(paths, (guess, truth), strict=True):
        write_mask(mask, Geometry(shape=SHAPE), path)
    return MendJob(f"case_{number}", paths[0], paths[1], fold=number % 2)


@pytest.fixture
def jobs(tmp_path: Path) -> list[MendJob]:
    """The liver is one piece, with a false second one and a hole; the spots are really two."""
    made = []
    for number in range(4):
        truth = np.zeros(SHAPE, np.uint8)
        truth[2:7, 2:7, 2:7] = 3
        truth[8, 9, 2:4] = truth[8, 9, 8:10] = 7
        guess = truth.copy()
        guess[4, 4, 4] = 0
        guess[1:3, 10, 10 : 11 + number] = 3
        made.append(job(tmp_path, number, guess, truth))
    return made


def choose(jobs: list[MendJob], *candidates: PostProcess) -> dict[str, Any]:
    tried = candidates or usual_candidates()
    return choose_postprocess(jobs, LABELS, tried, machine=Machine(workers=1), progress=Progress())


def test_what_helps_is_kept_for_its_class_alone(jobs: list[MendJob]) -> None:
    found = choose(jobs)
    chosen = [(step["name"], step["classes"]) for step in found["chosen"]]
    assert chosen == [("largest_component", [1]), ("fill_holes", [1])]
    liver = found["classes"]["liver"]
    assert liver["mended"] == liver["mended_nested"] == 1.0
    # Dice of 125 voxels against 124 and 2 to 8 false ones.
    expected = [2 * 124 / (125 + 124 + 2 * (number + 1)) for number in range(4)]
    assert liver["raw"] == pytest.approx(np.mean(expected))
    assert "spots" not in found["classes"]
    assert [step.name for step in parse_postprocess(found["chosen"], "x")] == ["largest_component", "fill_holes"]


def test_what_helps_some_cases_only_is_left_out(tmp_path: Path) -> None:
    """Dropping what is small helps one case a little and ruins another."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[2, 2, 2:4] = 7
    guess = truth.copy()
    guess[8, 8, 8] = 7
    jobs = [job(tmp_path, 0, guess, truth), job(tmp_path, 1, truth, truth), job(tmp_path, 3, guess, truth)]
    assert choose(jobs, MinimumVolume(volume_ml=0.0025))["chosen"] == []
    assert [step["name"] for step in choose(jobs, LargestComponent())["chosen"]] == ["largest_component"]


def test_a_choice_that_does_not_carry_over_from_fold_to_fold_is_not_kept(tmp_path: Path) -> None:
    """In one fold the second piece is false, in the other it is real and smaller: chosen on the sum, harmful apart."""
    one = np.zeros(SHAPE, np.uint8)
    one[2:6, 2:6, 2:6] = 3
    two = one.copy()
    two[8:10, 8:11, 8:11] = 3
    jobs = [job(tmp_path, 0, two, one), job(tmp_path, 2, two, one), job(tmp_path, 1, two, two)]
    found = choose(jobs, LargestComponent())
    liver = found["classes"]["liver"]
    assert liver["mended"] > liver["raw"] > liver["mended_nested"]
    assert not liver["kept"]
    assert found["chosen"] == []


def test_a_false_finding_counts(tmp_path: Path) -> None:
    empty, spot = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    spot[4, 4, 4] = 7
    jobs = [job(tmp_path, number, spot, empty) for number in range(2)]
    found = choose(jobs, MinimumVolume(volume_ml=0.01))
    assert found["classes"]["spots"]["raw"] == 0.0
    assert found["classes"]["spots"]["mended"] == 1.0
