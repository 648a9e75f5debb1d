"""Verdicts on sound and on broken series: the kind, and the numbers in the words."""

import numpy as np

from pipeline.dicom.audit import audit


def test_broken_series_is_refused_for_its_reason(broken_kind, synthetic, tmp_path):
    made = synthetic.make_broken(broken_kind, seed=1 + len(broken_kind))
    synthetic.write(made, tmp_path)
    judged = audit([tmp_path]).judged
    assert judged
    for one in judged:
        assert one.verdict.status == "refused"
        assert one.verdict.kind == synthetic.BROKEN[broken_kind][1], one.verdict.reason
        assert one.verdict.reason
        assert not any(word in str(one.verdict).lower() for word in synthetic.PRIVATE_WORDS)


def test_sound_series_is_usable(judge_one, synthetic):
    verdict = judge_one(synthetic.make(7)).verdict
    assert verdict.status == "usable"
    assert verdict.notes == ()


def test_names_the_positions_of_missing_slices(judge_one, synthetic):
    made = synthetic.make(3)
    gone = [float(made.datasets[at].ImagePositionPatient[2]) for at in (4, 5)]
    del made.datasets[4:6]
    reason = judge_one(made).verdict.reason
    assert reason.startswith(f"2 slices missing at {gone[0]:.1f}, {gone[1]:.1f} mm")


def test_missing_slice_of_a_flipped_order_is_found(judge_one, synthetic):
    made = synthetic.make(3, step=-2.5)
    del made.datasets[7]
    assert judge_one(made).verdict.kind == "missing slices"


def test_missing_slice_in_a_long_series(judge_one, synthetic):
    made = synthetic.make(3, slices=60, step=1.0)
    del made.datasets[30]
    assert judge_one(made).verdict.kind == "missing slices"


def test_slightly_irregular_steps_get_a_note(judge_one, synthetic):
    heights = (2.5 * np.arange(10) + np.array([0, 0.1, -0.1, 0, 0.1, 0, -0.1, 0.1, 0, 0])).tolist()
    verdict = judge_one(synthetic.make(3, heights=heights)).verdict
    assert verdict.status == "usable with note"
    assert "0.10 mm off steps of 2.50 mm" in verdict.notes[0]


def test_uneven_steps_are_usable_where_allowed(tmp_path, synthetic):
    synthetic.write(synthetic.make_broken("uneven steps", 5), tmp_path)
    verdict = audit([tmp_path], allow_uneven=True).judged[0].verdict
    assert verdict.is_usable
    assert verdict.is_uneven


def test_missing_slices_are_refused_even_where_uneven_steps_are_allowed(tmp_path, synthetic):
    synthetic.write(synthetic.make_broken("one slice missing", 5), tmp_path)
    assert audit([tmp_path], allow_uneven=True).judged[0].verdict.kind == "missing slices"


def test_oblique_and_tilted_series_get_notes(judge_one, synthetic, tmp_path):
    turn = np.radians(12)
    oblique = synthetic.make(4, orientation=(1, 0, 0, 0, np.cos(turn), np.sin(turn)))
    assert judge_one(oblique).verdict.notes == ("oblique by 12.0 degrees",)
    tilted = tmp_path / "tilted"
    synthetic.write(synthetic.make(4, tilt_mm=0.5), tilted)
    (judged,) = audit([tilted]).judged
    assert judged.verdict.notes == ("gantry tilt of 11 degrees, corrected by shearing",)


def test_notes_on_values(judge_one, synthetic):
    made = synthetic.make(4)
    for number, one in enumerate(made.datasets):
        one.Modality, one.Units, one.RescaleSlope = "PT", "BQML", 1 + number / 10
    notes = judge_one(made).verdict.notes
    assert "PET in BQML, not SUV" in notes
    assert "a rescale of its own for each slice" in notes


def test_damaged_file_beside_a_series_gets_a_note(tmp_path, synthetic):
    synthetic.write(synthetic.make(4), tmp_path)
    (tmp_path / "I99999").write_bytes(b"")
    assert "1 damaged file beside it" in audit([tmp_path]).judged[0].verdict.notes[0]


def test_real_series(real_data):
    judged = audit([real_data / "ct_multiorgan" / "dicom", real_data / "dicom_mr_study"]).judged
    found = {one.series.header.description: one.verdict for one in judged}
    assert {name: verdict.status for name, verdict in found.items()} == {
        "CT Body 3.0": "usable with note", "HippoCrop": "usable", "T1post": "usable with note",
        "FLAIR_reg": "usable with note",
    }  # fmt: skip
    assert found["T1post"].notes == ("oblique by 15.5 degrees",)


def test_test_files_of_pydicom(pydicom_files):
    """Each verdict was looked at by eye; files in the wheel differ from release to release, so kinds are held."""
    judged = audit([pydicom_files]).judged
    assert len(judged) > 30
    no_image = {"SR", "RTPLAN", "RTSTRUCT", "RTDOSE", "SEG", "ECG"}
    pictures = {"US", "CR"}
    by_description = {
        "SmartScore - Gated 0.5 sec": "", "Routine Brain": "missing slices", "FAST LOCALIZER": "single slice",
        "T/S/C RF FAST PILOT": "single slice", "5/5mm Plain": "single slice",
    }  # fmt: skip
    for one in judged:
        header, kind = one.series.header, one.verdict.kind
        if header.modality in no_image:
            assert kind == "no image"
        elif header.modality in pictures:
            assert kind in ("colour", "no orientation")
        elif header.description in by_description:
            assert kind == by_description[header.description]
        elif header.description == "Scout":
            assert kind == "localizer"
        elif header.description.startswith("ANGIO Projected"):
            assert kind == "projection"
        else:
            assert one.verdict.status == "refused"
            assert one.verdict.reason
