"""What a batch will cost, from headers."""

from pathlib import Path

import pytest

from pipeline.batch.forecast import forecast, grid_of, working_shape
from pipeline.batch.inputs import find_files
from pipeline.batch.sources import Source
from pipeline.imaging.prepare import PrepareOptions
from pipeline.learning.models import open_source
from pipeline.learning.prediction import PredictOptions
from pipeline.learning.predictor import predictor_of
from tests.batch.models import make_run, make_volume, recipe


def test_windows_are_those_that_are_computed(tmp_path: Path) -> None:
    for number in range(2):
        make_volume(tmp_path / "in" / f"{number}.nii.gz", number)
    found = find_files([tmp_path / "in"], ["image"])[0]
    models = open_source(make_run(tmp_path / "run"))
    options = PredictOptions(precision="fp32", mirror=("D", "H"))
    cost = forecast(found.sources, predictor_of(models, options), measure=False)
    windows = 0

    def count(done: int) -> None:
        nonlocal windows
        windows += done

    plain = predictor_of(models, PredictOptions(precision="fp32"))
    for source in found.sources:
        plain.predict(source.files["image"][0], advance=count)
    assert cost.windows == windows
    assert (cost.members, cost.mirrors) == (2, 4)
    assert cost.passes == windows * 8
    assert cost.seconds is None
    assert "2 models together" in cost.text()
    assert "4 mirror images" in cost.text()


def test_what_does_not_fit_gets_a_recommendation(tmp_path: Path) -> None:
    make_volume(tmp_path / "a.nii.gz")
    found = find_files([tmp_path / "a.nii.gz"], ["image"])[0]
    models = open_source(make_run(tmp_path / "run"))
    cost = forecast(found.sources, predictor_of(models, PredictOptions(precision="fp32", mirror=("D",))))
    assert cost.seconds is not None
    assert "predict.mirror" in cost.text(None, 1e-9)
    assert "--fold" in cost.text(None, 1e-9)
    assert "GB allowed" in cost.text(1 << 20, None)
    assert "\n" not in cost.text(1 << 40, 1e9)
    assert "in turn" in forecast(found.sources, predictor_of(models, in_turn=True), measure=False).text()


def test_sizes_without_reading_voxels(tmp_path: Path) -> None:
    volume = make_volume(tmp_path / "a.nii.gz")
    source = Source("a", {"image": (tmp_path / "a.nii.gz",)})
    assert grid_of(source).shape == volume.geometry.shape
    assert grid_of(Source("b", {"image": (tmp_path / "gone.nii.gz",)})).shape == (301, 512, 512)
    assert working_shape(volume.geometry, recipe()) == (18, 11, 12)  # 14 x 2.5, 16 x 1.4, 15 x 1.6 in steps of 2 mm
    middle = PrepareOptions(spacing_mm=(2.0, 2.0, 2.0), crop="none", middle_mm=(10.0, 200.0, 10.0))
    assert working_shape(volume.geometry, recipe(prepare=middle)) == (5, 11, 5)


@pytest.mark.parametrize("text", ["predict.overlapp=0.3", "predict.overlap=2", "train.epochs=3"])
def test_options_that_cannot_be_are_refused(tmp_path: Path, text: str) -> None:
    from pipeline.__main__ import main

    make_volume(tmp_path / "a.nii.gz")
    run = make_run(tmp_path / "run", folds=1)
    assert main(["predict", str(run), str(tmp_path / "a.nii.gz"), "--output", str(tmp_path / "o"), "--set", text]) == 2
    assert not (tmp_path / "o").exists()
