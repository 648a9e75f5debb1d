"""The page on a batch: every series with its verdict and a picture, what needs a look first, nothing from outside."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.batch.child import Child
from pipeline.batch.exports import find_exports
from pipeline.batch.page import list_series, write_page
from pipeline.batch.previews import smaller, write_preview
from pipeline.batch.sources import Finished, Source
from pipeline.dicom.thumbnail import thumbnail
from pipeline.imaging.labels import Labels
from pipeline.imaging.volume import Geometry, Volume


@pytest.fixture
def made(tmp_path, synthetic):
    synthetic.write(synthetic.make(1), tmp_path / "in" / "a")
    synthetic.write(synthetic.make_broken("one slice missing", 2), tmp_path / "in" / "b")
    synthetic.write(synthetic.make_broken("pixel data cut short", 3), tmp_path / "in" / "c")
    return find_exports([tmp_path / "in"])


def rows_of(found):
    rows = [{"case": one.case_id, "status": one.status, "reason": one.reason} for one in found.passed]
    return [*rows, {"case": found.sources[0].case_id, "status": "done", "review": "liver: 9 ml <b>odd</b>"}]


def test_shows_every_series_with_its_verdict(tmp_path, made):
    with Child() as child:
        text = write_page(tmp_path, rows_of(made), list_series(made.judged), child=child).read_text()
    for case_id in made.judged:
        assert case_id in text
    assert "1 slice missing at" in text
    assert "Abdomen venous 2.5" in text
    assert "1 of 3 cases has a result, 1 of them should be looked at and 2 were refused" in text
    assert text.index("liver: 9 ml") < text.index("1 slice missing at")
    assert "&lt;b&gt;odd" in text
    assert text.count("data:image/png") == 2 + pictures_of_cut(made)
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org", "")


def pictures_of_cut(found) -> int:
    """The series that is cut short has a picture only where its middle slice is whole."""
    (cut,) = (one for one in found.judged.values() if one.verdict.kind == "truncated")
    return int(not cut.series.planes[len(cut.series.planes) // 2].header.pixels.fault)


def test_nothing_found_is_a_page_too(tmp_path):
    assert "Nothing was found to predict" in write_page(tmp_path, [], {}).read_text()


def test_thumbnail_has_the_proportions_of_the_patient(made):
    series = made.judged[made.sources[0].case_id].series
    picture = thumbnail(series, 128)
    assert picture.shape == (round(128 * 12 * 0.8 / (16 * 0.7)), 128)
    assert picture.dtype == np.uint8
    assert picture.max() - picture.min() > 200


def test_preview_is_drawn_and_made_smaller(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(1, 8, 20, 24)).astype(np.float32)
    volume = Volume(voxels, Geometry(shape=(8, 20, 24)))
    mask = np.zeros((8, 20, 24), np.uint8)
    mask[2:6, 5:15, 5:15] = 4
    recipe = SimpleNamespace(labels=Labels.model_validate({0: "background", 4: "liver"}))
    finished = Finished(Source("case", {}), volume, SimpleNamespace(mask=mask), recipe, tmp_path)
    assert write_preview(finished).files == ("previews/case.png",)
    picture = (tmp_path / "previews" / "case.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(smaller(picture)) < 60_000
    text = write_page(tmp_path, [{"case": "case", "status": "done"}], {}).read_text()
    assert text.count("data:image/png") == 1
    assert write_preview(Finished(Source("x", {}), volume, SimpleNamespace(mask=None), recipe, tmp_path)) is None
