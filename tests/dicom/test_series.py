"""Grouping and splitting: what may be one volume and what may not, and ids that name nobody."""

import numpy as np
import pytest

from pipeline.dicom import duplicates
from pipeline.dicom.audit import audit
from pipeline.dicom.decode import read_series
from pipeline.dicom.series import hashed_id, is_uid


def change_half(made, **values) -> None:
    for one in made.datasets[::2]:
        for name, value in values.items():
            setattr(one, name, value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"FrameOfReferenceUID": "1.2.3.4"}, "frame of reference"),
        ({"StudyInstanceUID": "1.2.3.4"}, "study"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "orientation"),
        ({"PixelSpacing": [0.9, 0.7]}, "pixel spacing"),
        ({"Modality": "PT"}, "modality"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "image type"),
        ({"TemporalPositionIdentifier": 2}, "temporal position"),
        ({"EchoNumbers": 2}, "echo"),
        ({"DiffusionBValue": 1000.0}, "b-value"),
        ({"ConvolutionKernel": "B70f"}, "kernel"),
    ],
)
def test_splits_by_what_cannot_be_one_volume(values, told, tmp_path, synthetic):
    made = synthetic.make(3)
    change_half(made, **values)
    synthetic.write(made, tmp_path)
    judged = audit([tmp_path]).judged
    assert len(judged) == 2
    assert {one.series.part for one in judged} == {1, 2}
    assert all(told in one.series.split_by for one in judged)


def test_localizer_in_a_series_is_split_off_and_the_rest_is_usable(tmp_path, synthetic):
    made = synthetic.make(3)
    scout = made.datasets[0]
    scout.ImageType, scout.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [1, 0, 0, 0, 0, -1]
    synthetic.write(made, tmp_path)
    volume, localizer = audit([tmp_path]).judged
    assert (len(volume.series.planes), volume.verdict.is_usable) == (9, True)
    assert localizer.verdict.kind == "localizer"


def test_two_patients_are_never_one_volume(tmp_path, synthetic):
    synthetic.write(synthetic.make_broken("two patients under one UID", 1), tmp_path)
    judged = audit([tmp_path]).judged
    assert [len(one.series.planes) for one in judged] == [5, 5]
    assert {one.verdict.kind for one in judged} == {"two patients"}


def test_equal_duplicates_count_once(tmp_path, synthetic):
    made = synthetic.make(3)
    synthetic.write(made, tmp_path / "a")
    synthetic.write(made, tmp_path / "again")
    (judged,) = audit([tmp_path]).judged
    assert judged.verdict.notes == ("10 equal duplicates left out",)
    np.testing.assert_array_equal(read_series(judged.series).voxels[0], made.truth)


def test_whole_acquisitions_under_one_uid_become_parts(tmp_path, synthetic):
    first, second = synthetic.make(3), synthetic.make(3)
    for one in second.datasets:
        one.AcquisitionNumber, one.SOPInstanceUID = 2, one.SOPInstanceUID + ".2"
        synthetic.set_pixels(one, one.stored[::-1].copy())
    for one in first.datasets:
        one.AcquisitionNumber = 1
    synthetic.write(first, tmp_path / "a")
    synthetic.write(second, tmp_path / "b")
    judged = audit([tmp_path]).judged
    assert [len(one.series.planes) for one in judged] == [10, 10]
    assert all(one.verdict.is_usable and "acquisition" in one.series.split_by for one in judged)


def test_case_id_survives_a_lost_or_hostile_uid(tmp_path, synthetic):
    made = synthetic.make(3)
    for one in made.datasets:
        one.SeriesInstanceUID = ""
    synthetic.write(made, tmp_path)
    (judged,) = audit([tmp_path]).judged
    assert judged.series.case_id.startswith("nouid-")
    assert "no series UID" in judged.verdict.notes[0]
    again = audit([tmp_path]).judged[0].series.case_id
    assert again == judged.series.case_id


def test_hashed_id_depends_on_the_key():
    assert hashed_id("1.2.3", b"a" * 32) == hashed_id("1.2.3", b"a" * 32)
    assert hashed_id("1.2.3", b"a" * 32) != hashed_id("1.2.3", b"b" * 32)
    assert len(hashed_id("1.2.3", b"k")) == 24


def test_enhanced_file_is_read_frame_by_frame(tmp_path, synthetic):
    one, truth = synthetic.make_enhanced(11)
    synthetic.write_file(one, tmp_path / "enhanced")
    (judged,) = audit([tmp_path]).judged
    assert judged.verdict.status == "usable"
    assert judged.series.planes[0].kernel == "B30f"
    volume = read_series(judged.series)
    assert volume.geometry.spacing_mm == pytest.approx((2.5, 0.8, 0.7))
    np.testing.assert_array_equal(volume.voxels, truth)


def test_phases_of_an_enhanced_file_become_parts(tmp_path, synthetic):
    one, truth = synthetic.make_enhanced(11, phases=2)
    synthetic.write_file(one, tmp_path / "enhanced")
    judged = audit([tmp_path]).judged
    assert [part.series.planes[0].temporal for part in judged] == ["1", "2"] or len(judged) == 2
    for part in judged:
        phase = int(part.series.planes[0].temporal) - 1
        np.testing.assert_array_equal(read_series(part.series).voxels[0], truth[phase])


def test_two_patients_without_any_uid_are_two_cases(tmp_path, synthetic):
    for number in range(2):
        made = synthetic.make(1)
        for one in made.datasets:
            one.SeriesInstanceUID = one.StudyInstanceUID = one.FrameOfReferenceUID = one.PatientID = one.PatientName = (
                ""
            )
            one.SOPInstanceUID = "1.2.3"
            synthetic.set_pixels(one, one.stored + number)
        synthetic.write(made, tmp_path / str(number))
    ids = [one.series.case_id for one in audit([tmp_path]).judged]
    assert len(set(ids)) == 2
    assert ids == [one.series.case_id for one in audit([tmp_path]).judged]


def test_dots_are_no_uid():
    assert is_uid("1.2.840")
    assert not any(map(is_uid, ("", ".", "..", ".1", "1/2", "Doe", "1" * 65)))


def test_copies_of_a_file_of_many_frames_are_read_once(tmp_path, synthetic, monkeypatch):
    one, _ = synthetic.make_enhanced(1)
    for name in "ab":
        synthetic.write_file(one, tmp_path / name)
    read = []
    monkeypatch.setattr(duplicates, "pixel_hash", lambda plane: read.append(plane.header.path) or b"same")
    (judged,) = audit([tmp_path]).judged
    assert judged.series.equal_duplicates == 10
    assert len(read) == 2
