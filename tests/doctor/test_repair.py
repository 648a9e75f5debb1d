"""Repairs bring a data set to where a run accepts it, change no source, and give the same bytes each time."""

import csv
import hashlib
import importlib.util
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipeline.datasets.manifest import read_manifest
from pipeline.doctor.checkup import check_up
from pipeline.doctor.findings import exit_code
from pipeline.doctor.repair import log_path, make_repairs, plan_repairs, refuse_output, remaining
from pipeline.errors import ConfigError, DataError
from pipeline.machine import Machine
from pipeline.progress import Progress


def _conftest():
    name = "tests_doctor_ward"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("conftest.py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


here = _conftest()
AFFINE, save, voxels = here.AFFINE, here.save, here.voxels
MACHINE = Machine(workers=1)


def tree(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*")) if file.is_file()
    }  # fmt: skip


@pytest.fixture
def ill(tmp_path):
    """a: float label; b: label with another origin; c: damaged image; d: label stored turned; e: healthy."""
    (tmp_path / "source").mkdir()
    ward = here.Ward(tmp_path / "source", ids=("a", "b", "c", "d", "e"))
    label = {case_id: voxels(seed)[1] for seed, case_id in enumerate(ward.ids)}
    save(label["a"].astype(np.float32), ward.label("a"))
    elsewhere = AFFINE.copy()
    elsewhere[:3, 3] += 4
    save(label["b"], ward.label("b"), elsewhere)
    ward.image("c").write_bytes(ward.image("c").read_bytes()[:200])
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = label["d"].shape[0] - 1
    save(np.ascontiguousarray(label["d"][::-1]), ward.label("d"), AFFINE @ flip)
    return ward


def test_plan(ill):
    checkup = ill.check()
    assert [(one.case_id, one.action) for one in plan_repairs(checkup)] == [
        ("a", "cast label"), ("b", "copy grid"), ("c", "drop case"), ("d", "turn label"),
    ]  # fmt: skip
    assert exit_code(checkup.findings) == 2
    assert exit_code(remaining(checkup, plan_repairs(checkup))) == 0


def test_repaired_cases_are_well_and_sources_untouched(ill, tmp_path):
    before = tree(ill.folder)
    checkup = ill.check()
    output = tmp_path / "new" / "fixed.csv"
    make_repairs(checkup, plan_repairs(checkup), output, MACHINE, Progress())
    assert tree(ill.folder) == before

    manifest = read_manifest(output)
    assert [case.case_id for case in manifest.cases] == ["a", "b", "d", "e"]
    assert manifest.labels == ill.labels
    again = check_up(manifest, MACHINE, Progress())
    assert exit_code(again.findings) == 0
    for case in manifest.cases:
        image, label = nibabel.load(case.images["image"]), nibabel.load(case.label)
        np.testing.assert_allclose(image.affine, label.affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(label.dataobj), voxels(ill.ids.index(case.case_id))[1])
    assert manifest.cases[3].label == ill.label("e")

    first = tree(output.parent)
    make_repairs(ill.check(), plan_repairs(checkup), output, MACHINE, Progress())
    assert tree(output.parent) == first


def test_log_says_what_was_done(ill, tmp_path):
    checkup = ill.check()
    output = tmp_path / "new" / "fixed.csv"
    make_repairs(checkup, plan_repairs(checkup), output, MACHINE, Progress())
    with log_path(output).open() as stream:
        rows = {(row["case"], Path(row["source"]).name): row for row in csv.DictReader(stream)}
    row = rows["b", "b_label.nii.gz"]
    assert row["action"] == "copy grid"
    assert row["sha256_before"] == hashlib.sha256(ill.label("b").read_bytes()).hexdigest()
    assert row["sha256_after"] == hashlib.sha256((output.parent / row["result"]).read_bytes()).hexdigest()
    assert rows["c", "c.nii.gz"]["action"] == "drop case"
    assert rows["c", "c.nii.gz"]["sha256_before"] == hashlib.sha256(ill.image("c").read_bytes()).hexdigest()
    assert rows["c", "c.nii.gz"]["result"] == ""


def test_copies_are_left_out_only_where_labels_agree(tmp_path):
    ward = here.Ward(tmp_path, ids=("a", "b", "c", "d"))
    for case_id in ("b", "c"):
        ward.image(case_id).write_bytes(ward.image("a").read_bytes())
    save(voxels(0)[1].astype(np.int16), ward.label("b"))
    for case_id in ward.ids:
        ward.change(case_id, group=f"patient_{case_id}")
    checkup = ward.check()
    assert [(one.case_id, one.action) for one in plan_repairs(checkup)] == [("b", "drop case")]
    assert [one.case_id for one in remaining(checkup, plan_repairs(checkup)) if one.severity == "error"] == ["c"]


def test_sources_are_never_written_over(ward, tmp_path):
    manifest = ward.manifest()
    with pytest.raises(ConfigError, match="never modified"):
        refuse_output(manifest, [tmp_path / "x.csv"], tmp_path / "x.csv")
    (tmp_path / "x.yaml").write_text("dataset: {}")
    with pytest.raises(ConfigError, match="is not of a manifest"):
        refuse_output(manifest, [tmp_path / "x.yaml"], tmp_path / "x.csv")
    (tmp_path / "x.yaml").unlink()
    with pytest.raises(ConfigError, match=r"ending in \.csv"):
        refuse_output(manifest, [], tmp_path / "x.txt")
    inside = tmp_path / "x_labels" / "b.nii.gz"
    inside.parent.mkdir()
    ward.label("b").rename(inside)
    ward.change("b", label=inside)
    with pytest.raises(ConfigError, match="never modified"):
        refuse_output(ward.manifest(), [], tmp_path / "x.csv")


def test_nothing_left(ward, tmp_path):
    for case_id in ward.ids:
        ward.image(case_id).unlink()
    checkup = ward.check()
    with pytest.raises(DataError, match="none can be kept"):
        make_repairs(checkup, plan_repairs(checkup), tmp_path / "new.csv", MACHINE, Progress())
    assert not (tmp_path / "new.csv").exists()


def test_a_copy_of_a_case_that_is_left_out_itself_is_kept(tmp_path):
    ward = here.Ward(tmp_path, ids=("a", "b", "c", "d"))
    ward.image("b").write_bytes(ward.image("a").read_bytes())
    shutil.copyfile(ward.label("a"), ward.label("b"))
    ward.label("a").write_bytes(b"no volume")
    for case_id in ward.ids:
        ward.change(case_id, group=f"patient_{case_id}")
    assert [(one.case_id, one.action) for one in plan_repairs(ward.check())] == [("a", "drop case")]
