"""Nothing that names a patient in any file, file name, table, page or log: looked for after everything has run."""

import logging
import re
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.batch.arrivals import Arrivals
from pipeline.batch.child import Child, read_in
from pipeline.batch.exports import find_exports
from pipeline.batch.page import list_series, write_page
from pipeline.batch.previews import write_preview
from pipeline.batch.quality import check_case
from pipeline.batch.segments import name_study, write_dicom_seg
from pipeline.batch.sources import Finished, Found
from pipeline.batch.status import Row, StatusTable
from pipeline.batch.watch import Watcher, WatchOptions
from pipeline.dicom.seg import Algorithm
from pipeline.errors import DataError
from pipeline.imaging.labels import Labels
from pipeline.imaging.write import write_mask

LABELS = Labels.model_validate({0: "background", 3: "liver"})
RECIPE = SimpleNamespace(labels=LABELS, channels=("image",), seen={}, codes={})


def export(folder, synthetic):
    """Sound and broken series in folders and files that carry the patient's name."""
    for number, way in enumerate(["", "", *synthetic.WAYS]):
        made = synthetic.make_broken(way, number) if way else synthetic.make(number)
        for one in made.datasets:
            one.ReferringPhysicianName, one.StudyDate, one.PatientSex = "Secret^Doctor", "20200101", "F"
            one.StationName, one.PatientComments, one.PatientAddress = "SecretStation", "Secret comment", "Secret St 1"
        synthetic.write(made, folder / "Secret^Person 19550505" / f"ACC-SECRET {number}", prefix="SECRET_PERSON_")
    (folder / "Secret^Person.txt").write_text("not DICOM")
    (folder / "damaged Secret").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)


def predict(found: Found, out) -> StatusTable:
    """Stand in for the network: everything above the mean is liver; then all that follows a mask."""
    rows = [Row(one.case_id, one.status, one.reason) for one in found.passed]
    table = StatusTable(out, rows)
    with Child() as child:
        read = read_in(child, ["image"])
        for source in found.sources:
            try:
                volume = read(source)
            except DataError as error:
                table.put(Row(source.case_id, "failed", str(error)))
                continue
            mask = np.where(volume.voxels[0] > volume.voxels.mean(), 3, 0).astype(np.uint8)
            write_mask(mask, volume.geometry, out / "masks" / f"{source.case_id}.nii.gz")
            prediction = SimpleNamespace(mask=mask, volumes_ml={"liver": 1.0}, probabilities={}, confidence={})
            finished = Finished(source, volume, prediction, RECIPE, out)
            hooks = [write_preview, check_case, lambda one: write_dicom_seg(one, algorithm=Algorithm("liver"))]
            added = [one for one in (hook(finished) for hook in hooks) if one is not None]
            review = tuple(reason for one in added for reason in one.review)
            table.put(Row(source.case_id, "done", review=review, note=source.note))
    table.write()
    return table


def words_of(synthetic) -> re.Pattern[bytes]:
    # "Person" alone is a word of the names of elements.
    told = [word for word in synthetic.PRIVATE_WORDS if word != "person"]
    return re.compile("|".join(told).encode(), re.IGNORECASE)


@pytest.mark.slow
def test_nothing_names_a_patient(tmp_path, synthetic, caplog, capfd, monkeypatch):
    pytest.importorskip("highdicom")
    caplog.set_level(logging.DEBUG)
    given, out, key = tmp_path / "given", tmp_path / "out", b"k" * 16
    export(given, synthetic)
    found = find_exports([given], key=key)
    assert (len(found.sources), len(found.passed)) == (2, 21)
    table = predict(found, out)
    assert {row.status for row in table.rows.values()} == {"done", "refused"}
    rows = [row.cells() for row in table.rows.values()]
    with Child() as child:
        write_page(out, rows, list_series(found.judged), child=child)
    watch_it(given, out / "watched", key)
    list_it(given, tmp_path / "key", out / "series.csv", monkeypatch)
    words, patient = words_of(synthetic), (synthetic.NAME, synthetic.ID, synthetic.BIRTH, synthetic.ACCESSION)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert not words.search(str(path.relative_to(out)).encode()), path
        raw = path.read_bytes()
        if path.suffix == ".dcm":
            # Filed by these four, and by nothing else that is the patient's.
            for value in patient:
                raw = raw.replace(value.encode(), b"")
        assert not words.search(raw), path
    said = capfd.readouterr()
    assert not words.search((said.out + said.err + caplog.text).encode())


def watch_it(given, out, key) -> None:
    now = [0.0]
    work = Arrivals(out, lambda files: find_exports(files, key=key), lambda found: predict(found, out))
    watcher = Watcher(given, out, work, WatchOptions(stable_seconds=1), key=key, clock=lambda: now[0],
                      free_bytes=lambda _: 1 << 40)  # fmt: skip
    watcher.look()
    now[0] = 2.0
    assert watcher.look() == 22
    statuses = [watcher.entry(name).status for name in watcher.incoming.names()]
    assert (statuses.count("done"), statuses.count("refused")) == (2, 20)
    assert (out / "status.csv").read_text().count(",refused,") == 21


def list_it(given, key_file, csv_file, monkeypatch) -> None:
    from pipeline.__main__ import main

    key_file.write_bytes(b"k" * 16)
    assert main(["series", str(given), "--csv", str(csv_file), "--key", str(key_file), "--workers", "1"]) == 0


def test_the_way_back_is_there_when_asked(tmp_path, synthetic):
    made = synthetic.make(1)
    synthetic.write(made, tmp_path)
    (source,) = find_exports([tmp_path], key=b"k" * 16).sources
    added = name_study(Finished(source, None, None, RECIPE, tmp_path))
    first = made.datasets[0]
    assert added.columns == {"study_uid": first.StudyInstanceUID, "series_uid": first.SeriesInstanceUID}
