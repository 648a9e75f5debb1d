"""The command: its table, its codes, its repairs, and that it leaves what it checks as it was."""

import csv
import hashlib
import json

import nibabel
import numpy as np
import pytest

from pipeline.__main__ import main

SHAPE = (10, 9, 8)


def save(array, path):
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0])), path)


def tree(folder):
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def manifest(tmp_path):
    """Three healthy cases, listed in a manifest in a folder of its own."""
    (tmp_path / "data").mkdir()
    lines = ["case_id,image,label"]
    for number, case_id in enumerate("abc"):
        label = np.zeros(SHAPE, np.uint8)
        label[2:6, 2 : 6 + number, 2:6] = 1
        image = (100 * label + np.random.default_rng(number).normal(300, 9, SHAPE)).astype(np.int16)
        save(image, tmp_path / "data" / f"{case_id}.nii.gz")
        save(label, tmp_path / "data" / f"{case_id}_label.nii.gz")
        lines.append(f"{case_id},../data/{case_id}.nii.gz,../data/{case_id}_label.nii.gz")
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "x.csv"
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".yaml").write_text("labels: {0: background, 1: liver}\n")
    return path


def rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def run(*words):
    return main(["check", "--workers", "1", *map(str, words)])


def test_healthy_data_end_with_0_and_a_table_beside_the_manifest(manifest, tmp_path, capsys):
    before = tree(tmp_path / "data")
    assert run(manifest) == 0
    assert "3 cases: 0 errors, 0 warnings" in capsys.readouterr().out
    found = rows(manifest.with_name("x_findings.csv"))
    assert {row["severity"] for row in found} == {"info"}
    assert tree(tmp_path / "data") == before


def test_a_missing_file_is_a_finding_not_a_refusal(manifest, tmp_path, capsys):
    (tmp_path / "data" / "b.nii.gz").unlink()
    table = tmp_path / "somewhere" / "table.csv"
    assert run(manifest, "--output-table", table) == 2
    out = capsys.readouterr().out
    assert "there is no file" in out
    assert not manifest.with_name("x_findings.csv").exists()
    (error,) = [row for row in rows(table) if row["severity"] == "error"]
    assert (error["case"], error["kind"]) == ("b", "missing file")


def test_warnings_end_with_1(manifest, tmp_path):
    save(np.zeros(SHAPE, np.uint8), tmp_path / "data" / "b_label.nii.gz")
    assert run(manifest) == 1


def test_dry_run_writes_nothing(manifest, tmp_path, capsys):
    (tmp_path / "data" / "b.nii.gz").write_bytes(b"no volume")
    before = tree(tmp_path)
    assert run(manifest, "--fix", "--dry-run", "--output", tmp_path / "lists" / "new.csv") == 2
    assert tree(tmp_path) == before
    assert "drop case  b: " in capsys.readouterr().out


def test_fix_gives_a_data_set_that_is_well(manifest, tmp_path, capsys):
    label = np.zeros((10, 9, 8), np.float32)
    label[3:5, 3:5, 3:5] = 1
    moved = np.diag([1.0, 1.0, 2.0, 1.0])
    moved[0, 3] = 6
    nibabel.save(nibabel.Nifti1Image(label, moved), tmp_path / "data" / "c_label.nii.gz")
    (tmp_path / "data" / "b.nii.gz").write_bytes(b"no volume")
    before = tree(tmp_path / "data")
    new = tmp_path / "lists" / "new.csv"
    assert run(manifest, "--fix", "--output", new) == 0
    assert "after the repair: 2 cases: 0 errors" in capsys.readouterr().out
    assert tree(tmp_path / "data") == before
    assert [row["case_id"] for row in rows(new)] == ["a", "c"]
    assert [row["action"] for row in rows(new.with_name("new_repairs.csv"))] == ["drop case", "drop case", "copy grid"]
    written = tree(tmp_path / "lists")
    assert run(manifest, "--fix", "--output", new) == 0
    assert tree(tmp_path / "lists") == written
    assert run(new) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fix"], "expected --output"),
        (["--dry-run"], "together with --fix"),
        (["--output", "y.csv"], "together with --fix"),
        (["--set", "seed=1"], "no options"),
        (["--max-memory", "-1"], "above 0"),
    ],
)
def test_arguments_that_make_no_sense(manifest, capsys, words, said):
    assert run(manifest, *words) == 2
    assert said in capsys.readouterr().err


def test_a_source_is_never_written_over(manifest, capsys):
    assert run(manifest, "--fix", "--output", manifest) == 2
    assert "never modified" in capsys.readouterr().err
    for source in (manifest, manifest.with_suffix(".yaml"), manifest.parent / "../data/a.nii.gz"):
        before = source.read_bytes()
        assert run(manifest, "--output-table", source) == 2
        assert "never modified" in capsys.readouterr().err
        assert source.read_bytes() == before


def test_unknown_sources(tmp_path, capsys):
    assert run(tmp_path / "nothing.csv") == 2
    assert "no such file" in capsys.readouterr().err
    assert run(tmp_path) == 2
    assert "--format" in capsys.readouterr().err


def test_a_folder_with_its_format(manifest, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = [{"image": f"./{one}.nii.gz", "label": f"./{one}_label.nii.gz"} for one in "abc"]
    content = {"labels": {"0": "background", "1": "liver"}, "modality": {"0": "CT"}, "training": training}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    assert run(tmp_path / "data", "--format", "decathlon") == 1
    assert (tmp_path / "data_findings.csv").exists()
    kinds = {row["kind"] for row in rows(tmp_path / "data_findings.csv") if row["severity"] == "warning"}
    assert kinds == {"CT without negative HU"}


def test_a_configuration_brings_its_labels(manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "x.yaml"
    config.write_text(
        f"dataset: {{name: manifest, path: {manifest}}}\nlabels: {{0: background, 2: spleen}}\n"
        "network: {name: unet, features: [4, 8]}\nnormalise: {name: zscore}\n"
    )
    assert run(config) == 2
    errors = [row for row in rows(manifest.with_name("x_findings.csv")) if row["severity"] == "error"]
    assert {(row["case"], row["kind"]) for row in errors} == {(one, "unknown label values") for one in "abc"}


def test_volumes_that_are_made_and_lie_in_one_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("unused", "--format", "mnist3d") == 2
    grids = np.random.default_rng(0).random((6, 4, 4, 4)).astype(np.float32)
    grids[4] = grids[1]
    np.savez("grids.npz", X_train=grids, y_train=np.arange(6), X_test=grids[:2] + 1, y_test=np.arange(2))
    config = tmp_path / "m.yaml"
    config.write_text(
        "dataset: {name: mnist3d, file: grids.npz}\ntask: {name: classification}\n"
        "network: {name: resnet3d, features: [4]}\nnormalise: {name: zscore}\n"
    )
    assert run(config) == 2
    (error,) = [row for row in rows(tmp_path / "runs" / "m" / "findings.csv") if row["severity"] == "error"]
    assert (error["case"], error["kind"]) == ("train_00004", "duplicate of another class")
