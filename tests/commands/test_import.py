"""The command that writes manifests, and the way back out."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.__main__ import main
from pipeline.datasets.manifest import read_manifest
from pipeline.imaging.volume import Geometry, Volume
from pipeline.imaging.write import write_image, write_mask

GRID = Geometry(shape=(3, 4, 5))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of images and labels."""
    for number in range(3):
        voxels = np.arange(60, dtype=np.int16).reshape(1, 3, 4, 5) + number
        write_image(Volume(voxels, GRID), tmp_path / f"scans/images/c{number}.nii.gz")
        write_mask((voxels[0] % (number + 1)).astype(np.uint8), GRID, tmp_path / f"scans/labels/c{number}_seg.nii.gz")
    return tmp_path / "scans"


def test_a_folder_becomes_a_manifest(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "data_manifests/x.csv"
    assert main(["import", "folder", str(scans), "--output", str(output), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "3 cases of 3 groups" in said
    assert "found as: image images/{case}.nii.gz, label labels/{case}_seg.nii.gz" in said
    assert "labels: 0 background, 1 label_1, 2 label_2" in said
    assert "names of the labels are made up" in said
    assert f"next: python -m pipeline plan {output} --output configs/x.yaml" in said
    assert [case.case_id for case in read_manifest(output).cases] == ["c0", "c1", "c2"]
    assert sorted(file.name for file in output.parent.iterdir()) == ["x.csv", "x.yaml"]


def test_labels_are_named_on_the_command_line(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import", "folder", str(scans), "--output", str(tmp_path / "x.csv"), "--labels"]
    assert main([*words, "{0: background, 1: a, 2: a}"]) == 0
    assert "made up" not in capsys.readouterr().out
    assert read_manifest(tmp_path / "x.csv").labels.classes == ("background", "a")
    assert main([*words, "liver"]) == 2
    assert "--labels liver: expected values and names" in capsys.readouterr().err


def test_patterns_are_plain_text(scans: Path, tmp_path: Path) -> None:
    words = ["--set", "image={case}.nii.gz", "--set", "label=../labels/{case}_seg.nii.gz", "--labels", "{1: a}"]
    assert main(["import", "folder", str(scans / "images"), "--output", str(tmp_path / "x.csv"), *words]) == 2
    words = ["--set", "image={case}.nii.gz"]
    assert main(["import", "folder", str(scans / "images"), "--output", str(tmp_path / "x.csv"), *words]) == 0
    assert len(read_manifest(tmp_path / "x.csv").cases) == 3


def test_options_that_do_not_exist_are_told(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(tmp_path / "x.csv")
    assert main(["import", "folder", str(scans), "--output", output, "--set", "images=x"]) == 2
    assert "did you mean 'image'" in capsys.readouterr().err
    assert main(["import", "foldr", str(scans), "--output", output]) == 2
    assert "did you mean 'folder'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nnunet", "decathlon"])
def test_out_again(scans: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, output = str(tmp_path / "x.csv"), tmp_path / "out/D1"
    main(["import", "folder", str(scans), "--output", manifest, "--labels", "{1: a, 2: b}"])
    assert main(["export-dataset", name, manifest, "--output", str(output), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "6 files: 6 linked" in said
    assert "--copy avoids it" in said
    assert json.loads((output / "dataset.json").read_text())["numTraining"] == 3
    assert main(["import", name, str(output), "--output", str(tmp_path / "y.csv")]) == 0
    assert len(read_manifest(tmp_path / "y.csv").cases) == 3


def test_a_config_is_exported(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"dataset: {{name: folder, folder: {scans}}}\nlabels: {{1: a, 2: b}}\nnetwork: {{name: unet}}\n")
    output = tmp_path / "out"
    assert main(["export-dataset", "nnunet", str(config), "--output", str(output), "--copy", "--workers", "1"]) == 0
    assert "6 copied" in capsys.readouterr().out
    assert json.loads((output / "dataset.json").read_text())["labels"] == {"background": 0, "a": 1, "b": 2}


def test_an_import_again_keeps_the_names_that_were_given(
    scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import", "folder", str(scans), "--output", str(tmp_path / "x.csv")]
    assert main([*words, "--labels", "{0: background, 1: a, 2: b}"]) == 0
    assert main(words) == 0
    assert "labels kept as" in capsys.readouterr().out
    assert read_manifest(tmp_path / "x.csv").labels.classes == ("background", "a", "b")


def test_a_source_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "list.csv"
    source.write_text("SubjectID,Channel_0\na,a.nii\n")
    assert main(["import", "datalist", str(source), "--output", str(source)]) == 2
    assert "never modified" in capsys.readouterr().err
    assert source.read_text() == "SubjectID,Channel_0\na,a.nii\n"
