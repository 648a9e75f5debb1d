"""Exports: what is predicted, what is passed over and why, and a large one in which a fifth is broken."""

import hashlib

import pytest

from pipeline.batch.child import Child, read_in
from pipeline.batch.exports import find_exports, read_key
from pipeline.batch.identity import identify, state_of
from pipeline.dicom.rules import parse_rules
from pipeline.errors import ConfigError, DataError


def rules(*given):
    return parse_rules({"rules": list(given)}, "rules.yaml")


@pytest.fixture
def study(tmp_path, synthetic):
    """One study: two usable series that differ in their thickness, and a broken one."""
    for number, (thickness, slices) in enumerate([(1, 8), (5, 6)]):
        made = synthetic.make(number, slices=slices, step=thickness)
        for each in made.datasets:
            each.StudyInstanceUID, each.SliceThickness = "1.2.3", thickness
            each.SeriesInstanceUID, each.SeriesDescription = f"1.2.3.{number}", f"Series {number}"
        synthetic.write(made, tmp_path / str(number))
    synthetic.write(synthetic.make_broken("one slice missing", 9), tmp_path / "broken")
    return tmp_path


def test_without_rules_every_usable_series_is_taken(study):
    found = find_exports([study])
    assert [source.case_id for source in found.sources] == ["1.2.3.0", "1.2.3.1"]
    assert [len(source.files["image"]) for source in found.sources] == [8, 6]
    (refused,) = found.passed
    assert refused.status == "refused"
    assert refused.reason.startswith("missing slices: 1 slice missing at")
    assert len(found.judged) == 3
    assert found.counts["files"] == 23


def test_rules_choose_and_the_rest_has_its_reason(study):
    found = find_exports([study], rules=rules({"name": "liver", "prefer": "thinnest"}))
    assert [source.case_id for source in found.sources] == ["1.2.3.0"]
    assert {(one.case_id, one.status) for one in found.passed if one.status != "refused"} == {
        ("1.2.3.1", "not selected")
    }
    found = find_exports([study], rules=rules({"name": "liver"}))
    assert [one.status for one in found.passed] == ["refused", "ambiguous", "ambiguous"]
    assert "liver: 2 series of the study match alike" in found.passed[1].reason
    found = find_exports([study], rules=rules({"name": "head", "modality": "MR"}))
    assert [one.reason for one in found.passed[1:]] == ["no rule matches it"] * 2


def test_rules_for_other_models_take_no_part(study):
    both = rules({"name": "a", "model": "models/liver", "take": "all"}, {"name": "b", "model": "lung"})
    assert len(find_exports([study], rules=both, model="/somewhere/models/liver").sources) == 2
    with pytest.raises(ConfigError, match="choose nothing for heart"):
        find_exports([study], rules=both, model="heart")


def test_keyed_hashes_stand_for_uids(study):
    key = b"k" * 16
    found = find_exports([study], key=key)
    ids = [source.case_id for source in found.sources] + [one.case_id for one in found.passed]
    assert all(len(one) == 24 and "." not in one for one in ids)
    again = find_exports([study], key=key)
    assert ids == [one.case_id for one in (*again.sources, *again.passed)]
    assert set(ids) == set(found.judged)


def test_key_must_be_long_enough(tmp_path):
    (tmp_path / "key").write_text("short")
    with pytest.raises(ConfigError, match="found 5 bytes"):
        read_key(tmp_path / "key")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key(tmp_path / "none")


def test_channels_are_gathered_by_study(tmp_path, synthetic):
    for number, name in enumerate(["T1", "FLAIR"]):
        made = synthetic.make(1, slices=5)
        for one in made.datasets:
            one.StudyInstanceUID, one.SeriesDescription = "1.2.3", name
            one.SeriesInstanceUID, one.SOPInstanceUID = f"1.2.3.{number}", f"{one.SOPInstanceUID}.{number}"
        synthetic.write(made, tmp_path / name)
    chosen = rules({"name": "a", "description": "T1", "channel": "t1"},
                   {"name": "b", "description": "FLAIR", "channel": "flair"})  # fmt: skip
    (source,) = find_exports([tmp_path], channels=("flair", "t1"), rules=chosen).sources
    assert source.case_id == "1.2.3.1"
    assert [one.header.description for one in source.series] == ["FLAIR", "T1"]
    with Child() as child:
        assert read_in(child, ["flair", "t1"])(source).voxels.shape == (2, 5, 12, 16)
    with pytest.raises(ConfigError, match="the model needs 2 channels"):
        find_exports([tmp_path], channels=("flair", "t1"))
    found = find_exports([tmp_path / "T1"], channels=("flair", "t1"), rules=chosen)
    assert found.sources == ()
    assert found.passed[0].reason == "its study has 0 series for channel flair; expected 1"


def test_channels_on_different_grids_are_refused(tmp_path, synthetic):
    for number, slices in enumerate([5, 6]):
        made = synthetic.make(1, slices=slices)
        for one in made.datasets:
            one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3", f"1.2.3.{number}"
            one.SeriesDescription = str(number)
        synthetic.write(made, tmp_path / str(number))
    chosen = rules({"name": "a", "description": "0", "channel": "a"}, {"name": "b", "description": "1", "channel": "b"})
    (source,) = find_exports([tmp_path], channels=("a", "b"), rules=chosen).sources
    with Child() as child, pytest.raises(DataError, match=r"case 1\.2\.3\.0: .* lie on different grids: shape"):
        read_in(child, ["a", "b"])(source)


def test_nothing_to_find(tmp_path):
    assert find_exports([tmp_path]).sources == ()


def results(found) -> dict[str, str]:
    """Decode every source in a child and return the hash of its voxels and grid."""
    with Child() as child:
        read = read_in(child, ["image"])
        made = {}
        for source in found.sources:
            volume = read(source)
            what = volume.geometry.model_dump_json().encode() + volume.voxels.dtype.str.encode()
            made[source.case_id] = hashlib.sha256(what + volume.voxels.tobytes()).hexdigest()
        assert child.starts == 1
    return made


def check_export(folder, synthetic, *, sound, broken):
    files, expected = synthetic.write_export(500, folder, sound=sound, broken=broken)
    found = find_exports([folder])
    refused = {case_id: one.verdict.kind for case_id, one in found.judged.items() if not one.verdict.is_usable}
    assert {case_id.split("-")[0]: kind for case_id, kind in refused.items()} == expected
    assert len(expected) == broken
    assert {one.case_id for one in found.passed} == set(refused)
    clean = find_exports(files)
    assert not clean.passed
    mixed = results(found)
    assert len(mixed) == sound
    assert mixed == results(clean)


def test_export_in_which_some_is_broken(tmp_path, synthetic):
    check_export(tmp_path, synthetic, sound=6, broken=20)


@pytest.mark.slow
def test_export_of_two_hundred_series_with_forty_broken_in_twenty_ways(tmp_path, synthetic):
    check_export(tmp_path, synthetic, sound=160, broken=40)


def test_models_of_one_name_are_not_mixed_up(study):
    both = rules({"name": "a", "model": "kidney/model.zip", "take": "all"})
    with pytest.raises(ConfigError, match=r"choose nothing for liver/model\.zip"):
        find_exports([study], rules=both, model="liver/model.zip")
    assert len(find_exports([study], rules=both, model="/srv/kidney/model.zip").sources) == 2


def test_patients_without_a_study_uid_share_no_study(tmp_path, synthetic):
    for number in range(2):
        made = synthetic.make(number)
        for one in made.datasets:
            one.StudyInstanceUID = ""
        synthetic.write(made, tmp_path / str(number))
    assert len(find_exports([tmp_path], rules=rules({"name": "liver", "prefer": "thinnest"})).sources) == 2


def test_phases_of_one_file_are_different_inputs(tmp_path, synthetic):
    one, _ = synthetic.make_enhanced(1, phases=2)
    synthetic.write_file(one, tmp_path / "enhanced")
    first, second = find_exports([tmp_path]).sources
    assert first.files == second.files
    assert identify(first).sha256 != identify(second).sha256
    assert state_of(first) != state_of(second)
