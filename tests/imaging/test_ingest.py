"""A case goes into the cache with all channels, those that it lacks at the level of the background."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.imaging.ingest import ingest_case
from pipeline.imaging.labels import Labels
from pipeline.imaging.normalise import HuWindow, Percentile, TrainingZScore, ZScore, fit, window
from pipeline.imaging.prepare import PrepareOptions, prepare
from pipeline.imaging.store import open_case
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image

SHAPE = (6, 8, 10)
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(2.0, 1.0, 1.0))
LABELS = Labels(values={0: "background", 1: "a"})


def put(folder: Path, kind: type = np.int16) -> dict[str, Path | None]:
    random = np.random.default_rng(0)
    for name in ("T1", "FLAIR"):
        voxels = (random.normal(300, 50, (1, *SHAPE)) * (1 if kind is np.int16 else 1e-3)).astype(kind)
        write_image(Volume(voxels, GEOMETRY), folder / f"{name}.nii.gz")
    return {"T1": folder / "T1.nii.gz", "T2": None, "FLAIR": folder / "FLAIR.nii.gz"}


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_a_missing_channel_keeps_its_place_and_the_others_their_numbers(tmp_path: Path, kind: type) -> None:
    images, options = put(tmp_path, kind), PrepareOptions(spacing_mm=(1.0, 1.0, 1.0), crop="none")
    shape = ingest_case(images, None, LABELS, "a", options, tmp_path / "with")
    full = {name: path for name, path in images.items() if path}
    ingest_case(full, None, LABELS, "a", options, tmp_path / "without")
    case, plain = open_case(tmp_path / "with"), open_case(tmp_path / "without")
    assert case.meta.channels == ("T1", "T2", "FLAIR")
    voxels = case.read((0, 0, 0), shape)
    assert np.array_equal(voxels[[0, 2]], plain.read((0, 0, 0), shape))
    assert case.meta.stats[::2] == plain.meta.stats
    assert np.unique(voxels[1]).size == 1


@pytest.mark.parametrize("normalise", [HuWindow(), ZScore(), Percentile(), TrainingZScore()])
def test_every_normalisation_makes_background_of_it(normalise: HuWindow | ZScore | Percentile | TrainingZScore) -> None:
    voxels = np.random.default_rng(1).normal(100, 20, (1, *SHAPE)).astype(np.float32)
    label = np.ones(SHAPE, np.uint8)
    case = prepare(Volume(voxels, GEOMETRY), label, PrepareOptions(), channels=("a", "b"), missing=("b",))
    there, absent = case.meta.stats
    fitted = fit(normalise, [there, absent])
    assert fitted == fit(normalise, [there])  # what is not there teaches nothing
    made = window(fitted, absent)
    assert made.apply(case.voxels[1]) == pytest.approx(np.full(SHAPE, made.background), abs=1e-5)
    if not isinstance(normalise, TrainingZScore):
        assert made.background == pytest.approx(-1, abs=1e-6)


def test_the_named_channels_must_be_there() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        prepare(Volume(np.zeros((2, *SHAPE)), GEOMETRY), None, PrepareOptions(), channels=("a", "b"), missing=("b",))
