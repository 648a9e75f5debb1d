"""DICOM segmentations: read back voxel for voxel, valid, and with nothing of the source but what filing needs."""

import shutil
import subprocess

import numpy as np
import pydicom
import pytest

from pipeline.dicom.audit import audit
from pipeline.dicom.codes import SegmentCode, code_of, parse_codes
from pipeline.dicom.decode import read_series
from pipeline.dicom.seg import Algorithm, sample_at_planes, write_seg
from pipeline.dicom.seg_labels import read_seg
from pipeline.errors import ConfigError, DataError
from pipeline.imaging.geometry import to_index
from pipeline.imaging.labels import Labels

highdicom = pytest.importorskip("highdicom")
LABELS = Labels.model_validate({0: "background", 3: "liver", 7: "left_kidney", 9: "spot"})
BY = Algorithm("organs", "abc123")


def read_one(folder, **options):
    (judged,) = audit([folder], **options).judged
    return judged.series, read_series(judged.series, **options)


def mask_of(volume, seed: int = 0):
    rng = np.random.default_rng(seed)
    mask = rng.choice(np.array([0, 3, 7, 9], np.uint8), volume.geometry.shape, p=[0.6, 0.2, 0.1, 0.1])
    mask[2] = 0
    return mask


@pytest.fixture
def case(tmp_path, synthetic):
    synthetic.write(synthetic.make(1), tmp_path / "in")
    series, volume = read_one(tmp_path / "in")
    mask, path = mask_of(volume), tmp_path / "seg.dcm"
    assert write_seg(mask, volume.geometry, series, LABELS, path, algorithm=BY) == 3
    return series, volume, mask, path


def test_reads_back_voxel_for_voxel(case):
    _, volume, mask, path = case
    found = read_seg(path, volume.geometry)
    assert found.names == {1: "liver", 2: "left_kidney", 3: "spot"}
    np.testing.assert_array_equal(np.array([0, 3, 7, 9])[found.volume.voxels[0]], mask)


def test_highdicom_reads_the_same(case):
    series, _, mask, path = case
    seg = highdicom.seg.segread(path)
    uids = [plane.header.instance_uid for plane in series.planes]
    values = seg.get_pixels_by_source_instance(uids, combine_segments=True, ignore_spatial_locations=False,
                                               assert_missing_frames_are_empty=True)  # fmt: skip
    np.testing.assert_array_equal(np.array([0, 3, 7, 9])[values], mask)


def test_segments_have_snomed_codes_and_sides(case):
    seg = pydicom.dcmread(case[3])
    liver, kidney, spot = (one.SegmentedPropertyTypeCodeSequence[0] for one in seg.SegmentSequence)
    assert (liver.CodeValue, liver.CodingSchemeDesignator) == ("10200004", "SCT")
    assert kidney.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert (spot.CodeValue, spot.CodingSchemeDesignator) == ("spot", "99PIPELINE")
    assert seg.SegmentSequence[0].SegmentAlgorithmName == "organs"


def test_nothing_is_copied_but_what_filing_needs(case, synthetic):
    seg = pydicom.dcmread(case[3])
    assert (seg.PatientName, seg.PatientID, seg.AccessionNumber) == (synthetic.NAME, synthetic.ID, synthetic.ACCESSION)
    for name in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"):
        delattr(seg, name)
    rest = str(seg).lower()
    assert not any(word in rest for word in synthetic.PRIVATE_WORDS)
    assert "abdomen venous" not in rest


def test_refers_to_every_source_instance(case):
    series, _, _, path = case
    seg = pydicom.dcmread(path)
    uids = {plane.header.instance_uid for plane in series.planes}
    assert {one.ReferencedSOPInstanceUID for one in seg.SourceImageSequence} == uids
    assert {one.ReferencedSOPInstanceUID for one in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence} == uids
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == series.header.series_uid
    for frame in seg.PerFrameFunctionalGroupsSequence:
        (source,) = frame.DerivationImageSequence[0].SourceImageSequence
        (plane,) = (one for one in series.planes if one.header.instance_uid == source.ReferencedSOPInstanceUID)
        assert source.ReferencedSOPClassUID == plane.header.sop_class
        at = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(np.array(at, float), plane.position, atol=1e-6)


def test_same_mask_gets_the_same_uids(case, tmp_path):
    series, volume, mask, path = case
    write_seg(mask, volume.geometry, series, LABELS, tmp_path / "again.dcm", algorithm=BY)
    write_seg(mask, volume.geometry, series, LABELS, tmp_path / "other.dcm", algorithm=Algorithm("organs", "def"))
    first, again, other = (pydicom.dcmread(one) for one in (path, tmp_path / "again.dcm", tmp_path / "other.dcm"))
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID


def test_empty_mask_says_so_with_all_classes(case, tmp_path):
    series, volume, mask, _ = case
    path = tmp_path / "empty.dcm"
    assert write_seg(np.zeros_like(mask), volume.geometry, series, LABELS, path, algorithm=BY) == 3
    assert not read_seg(path, volume.geometry).volume.voxels.any()


def odd_series(kind, tmp_path, synthetic):
    turn = np.radians(20)
    made = {
        "tilted": lambda: synthetic.make(1, tilt_mm=0.5),
        "oblique": lambda: synthetic.make(1, orientation=(1, 0, 0, 0, np.cos(turn), np.sin(turn))),
        "uneven": lambda: synthetic.make_broken("uneven steps", 1),
        "descending": lambda: synthetic.make(1, step=-2.5),
    }[kind]()
    synthetic.write(made, tmp_path / "in")
    return read_one(tmp_path / "in", allow_uneven=True)


@pytest.mark.parametrize("kind", ["tilted", "oblique", "uneven", "descending"])
def test_every_frame_is_sampled_at_its_own_voxel_centres(kind, tmp_path, synthetic):
    series, volume = odd_series(kind, tmp_path, synthetic)
    mask, path = mask_of(volume), tmp_path / "seg.dcm"
    write_seg(mask, volume.geometry, series, LABELS, path, algorithm=BY)
    seg = highdicom.seg.segread(path)
    uids = [plane.header.instance_uid for plane in series.planes]
    values = seg.get_pixels_by_source_instance(uids, combine_segments=True, assert_missing_frames_are_empty=True,
                                               ignore_spatial_locations=False)  # fmt: skip
    for number, plane in enumerate(series.planes):
        for row, column in ((0, 0), (3, 5), (11, 15), (7, 2)):
            position = (np.array(plane.position) + row * plane.pixel_spacing[0] * np.array(plane.orientation[3:])
                        + column * plane.pixel_spacing[1] * np.array(plane.orientation[:3]))  # fmt: skip
            at = to_index(volume.geometry, position)
            if np.abs(at % 1 - 0.5).min() < 1e-3:
                continue
            at = np.rint(at).astype(int)
            expected = mask[tuple(at)] if (at < mask.shape).all() else mask[-1, at[1], at[2]]
            assert np.array([0, 3, 7, 9])[values[number, row, column]] == expected


@pytest.mark.parametrize("kind", ["tilted", "oblique", "descending"])
def test_odd_series_read_back(kind, tmp_path, synthetic):
    series, volume = odd_series(kind, tmp_path, synthetic)
    mask, path = mask_of(volume), tmp_path / "seg.dcm"
    write_seg(mask, volume.geometry, series, LABELS, path, algorithm=BY)
    back = np.array([0, 3, 7, 9])[read_seg(path, volume.geometry).volume.voxels[0]]
    inside = np.zeros(mask.shape, bool)
    for plane in series.planes:
        start = np.floor(np.round(to_index(volume.geometry, plane.position), 4) + 0.5).astype(int)
        inside[start[0], start[1] : start[1] + 12, start[2] : start[2] + 16] = True
    np.testing.assert_array_equal(back[inside], mask[inside])
    assert not back[~inside].any()


def test_enhanced_source_is_referred_to_by_frame(tmp_path, synthetic):
    one, _ = synthetic.make_enhanced(11, phases=2)
    synthetic.write_file(one, tmp_path / "enhanced")
    judged = audit([tmp_path]).judged
    for number, part in enumerate(judged):
        volume = read_series(part.series)
        mask, path = mask_of(volume, number), tmp_path / f"seg{number}.dcm"
        write_seg(mask, volume.geometry, part.series, LABELS, path, algorithm=BY)
        seg = pydicom.dcmread(path)
        assert len(seg.SourceImageSequence) == 1
        assert seg.SourceImageSequence[0].ReferencedSOPInstanceUID == one.SOPInstanceUID
        frames = {plane.frame + 1 for plane in part.series.planes}
        referred = {item.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
                    for item in seg.PerFrameFunctionalGroupsSequence}  # fmt: skip
        assert referred <= frames
        back = np.array([0, 3, 7, 9])[read_seg(path, volume.geometry).volume.voxels[0]]
        np.testing.assert_array_equal(back, mask)


@pytest.mark.parametrize("kind", ["plain", "tilted", "enhanced"])
def test_is_valid(kind, tmp_path, synthetic):
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    folder = tmp_path / "in"
    folder.mkdir()
    if kind == "enhanced":
        synthetic.write_file(synthetic.make_enhanced(11)[0], folder / "enhanced")
    else:
        synthetic.write(synthetic.make(1, tilt_mm=0.5 if kind == "tilted" else 0), folder)
    series, volume = read_one(folder)
    path = tmp_path / "seg.dcm"
    write_seg(mask_of(volume), volume.geometry, series, LABELS, path, algorithm=BY)
    said = subprocess.run([program, path], capture_output=True, text=True, check=False)
    errors = [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")]
    assert errors == []


def test_source_without_frame_of_reference_has_none(tmp_path, synthetic):
    made = synthetic.make(1)
    for one in made.datasets:
        del one.FrameOfReferenceUID
    synthetic.write(made, tmp_path / "in")
    series, volume = read_one(tmp_path / "in")
    with pytest.raises(DataError, match="no frame of reference"):
        write_seg(mask_of(volume), volume.geometry, series, LABELS, tmp_path / "seg.dcm", algorithm=BY)
    assert not (tmp_path / "seg.dcm").exists()


def test_values_that_are_not_as_the_standard_has_them_are_left_out(tmp_path, synthetic, recwarn):
    made = synthetic.make(1)
    for one in made.datasets:
        one.PatientBirthDate, one.PatientSex, one.StudyDate = "19550505-secret"[:8] + "x", "male", "yesterday"
    synthetic.write(made, tmp_path / "in")
    series, volume = read_one(tmp_path / "in")
    recwarn.clear()
    write_seg(mask_of(volume), volume.geometry, series, LABELS, tmp_path / "seg.dcm", algorithm=BY)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.PatientBirthDate, seg.PatientSex, seg.StudyDate) == ("", "", "")
    assert not any("1955" in str(one.message) for one in recwarn)


def test_identity_sampling_is_the_mask(case):
    series, volume, mask, _ = case
    np.testing.assert_array_equal(sample_at_planes(mask, volume.geometry, series.planes), mask)


def test_other_kinds_of_segmentations_are_read(case, tmp_path):
    series, volume, mask, _ = case
    sources = [pydicom.dcmread(plane.header.path) for plane in series.planes]
    for one in sources:
        one.PatientSex, one.StudyID, one.StudyDate, one.StudyTime = "", "", "", ""
    numbers = np.searchsorted([0, 3, 7, 9], mask).astype(np.uint8)
    description = [highdicom.seg.SegmentDescription(
        number, str(number), pydicom.sr.codedict.codes.SCT.Organ, pydicom.sr.codedict.codes.SCT.Liver, "MANUAL")
        for number in (1, 2, 3)]  # fmt: skip
    for kind in ("FRACTIONAL", "LABELMAP"):
        seg = highdicom.seg.Segmentation(
            sources, numbers, kind, description, highdicom.UID(), 1, highdicom.UID(), 1, "m", "n", "1", "1"
        )
        seg.save_as(tmp_path / kind)
        np.testing.assert_array_equal(read_seg(tmp_path / kind, volume.geometry).volume.voxels[0], numbers)


def test_overlapping_segments_are_refused(case, tmp_path):
    _, volume, _, path = case
    seg = pydicom.dcmread(path)
    for frame in seg.PerFrameFunctionalGroupsSequence:
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = 1
    # Every frame now claims to be of the first segment; then some of them another one as well.
    seg.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 2
    seg.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence = seg.PerFrameFunctionalGroupsSequence[
        0
    ].PlanePositionSequence
    seg.PixelData = b"\xff" * len(seg.PixelData)
    seg.save_as(tmp_path / "over.dcm")
    with pytest.raises(DataError, match="overlaps others"):
        read_seg(tmp_path / "over.dcm", volume.geometry)


def test_what_is_no_segmentation_is_refused(case, tmp_path):
    series, volume, _, path = case
    with pytest.raises(DataError, match="found CT; expected a DICOM segmentation"):
        read_seg(series.planes[0].header.path, volume.geometry)
    with pytest.raises(DataError, match="another frame of reference"):
        read_seg(path, volume.geometry, frame_of_reference="1.2.3")
    across = volume.geometry.model_copy(update={"direction": (1, 0, 0, 0, 0, 1, 0, -1, 0)})
    with pytest.raises(DataError, match="not parallel"):
        read_seg(path, across)
    (tmp_path / "none").write_text("none")
    with pytest.raises(DataError, match="no DICOM file"):
        read_seg(tmp_path / "none", volume.geometry)


def test_table_has_the_codes_of_pydicom():
    from pydicom.sr._concepts_dict import concepts

    known = {value: meaning for entries in concepts["SCT"].values() for value, (meaning, _) in entries.items()}
    for name in ("liver", "left kidney", "vertebra", "tumour", "urinary_bladder", "Right Adrenal-Gland", "oesophagus"):
        code = code_of(name).type
        assert code.scheme == "SCT"
        assert code.value in known
    assert code_of("l_kidney").side.meaning == "Left"
    assert code_of("anterior").type.scheme == "99PIPELINE"


def test_given_codes_win_and_wrong_ones_are_refused():
    given = parse_codes({"spot": {"type": {"value": "27925004", "meaning": "Nodule"}}}, "codes.yaml")
    assert code_of("spot", given) == SegmentCode.model_validate({"type": {"value": "27925004", "meaning": "Nodule"}})
    with pytest.raises(ConfigError, match="spot"):
        parse_codes({"spot": {"type": {"value": ""}}}, "codes.yaml")


@pytest.mark.parametrize("fault", ["one UID", "no UID"])
def test_a_source_that_cannot_be_referred_to_has_none(fault, tmp_path, synthetic):
    made = synthetic.make(1)
    for one in made.datasets:
        if fault == "one UID":
            one.SOPInstanceUID = made.datasets[0].SOPInstanceUID
        else:
            synthetic.set_text(one, "SeriesInstanceUID", "../../evil")
    synthetic.write(made, tmp_path / "in")
    series, volume = read_one(tmp_path / "in")
    with pytest.raises(DataError, match="no DICOM segmentation"):
        write_seg(np.ones(volume.geometry.shape, np.uint8), volume.geometry, series, LABELS, tmp_path / "x.dcm",
                  algorithm=BY)  # fmt: skip
    assert not (tmp_path / "x.dcm").exists()
