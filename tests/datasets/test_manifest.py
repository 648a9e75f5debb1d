"""Reading and writing manifests."""

import logging
from pathlib import Path

import pytest

from pipeline.datasets.base import Case, Manifest, datasets
from pipeline.datasets.manifest import natural_order, read_manifest
from pipeline.datasets.write_manifest import write_manifest
from pipeline.errors import ConfigError, DataError
from pipeline.imaging.labels import Labels


def put(folder: Path, csv: str, yaml: str = "", files: tuple[str, ...] = ()) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "x.csv").write_text(csv, "utf-8")
    if yaml:
        (folder / "x.yaml").write_text(yaml, "utf-8")
    return folder / "x.csv"


def problem(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    return str(caught.value)


def test_all_columns_are_read(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "case_id,image_T1,image_FLAIR,label,class,group,split,fold,site,annotated,age\n"
        "a, t1/a.nii ,fl/a.nii,lab/a.nii,x|y,p1,,1,north,liver,61\n"
        "\n"
        "b,t1/b.nii,,,,p2,test,,,,\n",
        "labels: {0: background, 1: liver, 3: tumour}\nignore: 255\nregions: {all: [liver, tumour]}\n"
        "channels: [FLAIR, T1]\noptional_channels: [FLAIR]\nclass_names: [y, x]\nmetadata: {licence: CC0}\n",
        ("t1/a.nii", "fl/a.nii", "lab/a.nii", "t1/b.nii"),
    )
    manifest = read_manifest(path)
    a, b = manifest.cases
    assert a.images == {"FLAIR": tmp_path / "fl/a.nii", "T1": tmp_path / "t1/a.nii"}
    assert (a.label, a.classes, a.group, a.fold) == (tmp_path / "lab/a.nii", ("x", "y"), "p1", 1)
    assert (a.site, a.annotated) == ("north", ("liver",))
    assert (b.split, b.fold, b.label, b.annotated) == ("test", None, None, None)
    assert list(b.images) == ["T1"]
    assert manifest.labels.values == {0: "background", 1: "liver", 3: "tumour", 255: "ignore"}
    assert manifest.labels.foreground == ("all",)
    assert manifest.channels == ("FLAIR", "T1")
    assert manifest.optional_channels == ("FLAIR",)
    assert manifest.class_names == ("y", "x")
    assert manifest.metadata == {"licence": "CC0", "columns": {"age": {"a": "61"}}}


def test_paths_start_from_folder(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    path = put(tmp_path / "lists", "case_id,image\na,i/a.nii\n")
    (tmp_path / "data/i").mkdir(parents=True)
    (tmp_path / "data/i/a.nii").touch()
    manifest = datasets.parse({"name": "manifest", "path": str(path), "folder": str(tmp_path / "data")}).cases()
    assert manifest.cases[0].images == {"image": tmp_path / "data/i/a.nii"}


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    path = put(
        tmp_path,
        "case_id,image,label,fold,split,annotated\n"
        "a,a.nii,a.nii,1.5,,\n"
        "a,gone.nii,,0,,\n"
        "b c,a.nii,,0,,\n"
        ",a.nii,,0,,\n"
        "d,,,0,valid,\n"
        "e,a.nii,,0,,spleen\n",
        "labels: {0: background, 1: liver}\nlabel_names: 3\nchannels: [CT]\n",
        ("a.nii",),
    )
    text = problem(path)
    for part in (
        "line 2 (a): fold is '1.5'",
        "line 3 (a): this case_id stands in line 2",
        "'gone.nii' is not there",
        "line 4 (b c): case_id is 'b c'",
        "line 5: case_id is empty",
        "line 6 (d): it names no image",
        "split: found 'valid'",
        "annotated names 'spleen'",
        "no key 'label_names'",
        "channels are ['CT']",
    ):
        assert part in text, part
    assert "has 10 problems" in text


def test_only_optional_channels_may_be_missing(tmp_path: Path) -> None:
    csv = "case_id,image_T1,image_T2\na,a.nii,a.nii\nb,a.nii,\n"
    text = problem(put(tmp_path, csv, files=("a.nii",)))
    assert "line 3 (b): image_T2 is empty; expected a path" in text
    assert "'T2' under optional_channels" in text
    text = problem(put(tmp_path, csv, "optional_channels: [T3]\n"))
    assert "optional_channels name 'T3'; the channels are T1, T2" in text
    manifest = read_manifest(put(tmp_path, csv, "optional_channels: [T2]\n"))
    assert list(manifest.cases[1].images) == ["T1"]


def test_annotated_for_all_some_and_none(tmp_path: Path) -> None:
    csv = "case_id,image,annotated\na,a.nii,\nb,a.nii,liver| spleen\nc,a.nii,|\n"
    manifest = read_manifest(put(tmp_path, csv, files=("a.nii",)))
    assert [case.annotated for case in manifest.cases] == [None, ("liver", "spleen"), ()]
    write_manifest(manifest, tmp_path / "y.csv")
    assert read_manifest(tmp_path / "y.csv") == manifest


def test_misspelt_columns_are_refused(tmp_path: Path) -> None:
    text = problem(put(tmp_path, "case_id,image,gruop,Label\na,a.nii,p,l\n", files=("a.nii",)))
    assert "'gruop' has no meaning here, did you mean 'group'" in text
    assert "'Label' has no meaning here, did you mean 'label'" in text


def test_missing_columns_are_named_once(tmp_path: Path) -> None:
    text = problem(put(tmp_path, "name;file\na;b\nc;d\n"))
    assert "no column 'case_id'" in text
    assert "no column 'image'" in text
    assert "commas" in text
    assert "is empty" not in text


def test_a_patient_column_is_not_passed_over_silently(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        read_manifest(put(tmp_path, "case_id,image,patient_id\na,a.nii,p\n", files=("a.nii",)))
    assert "patient_id" in caplog.text


@pytest.mark.parametrize(
    ("csv", "yaml", "part"),
    [
        ("", "", "cannot be read"),
        ("case_id,image\n", "", "lists no cases"),
        ("case_id,image,image\na,b,c\n", "", "'image' stands in it twice"),
        ("case_id,image\na,b,c\n", "", "cannot be read"),
        ("case_id,image,image_T1\na,a.nii,a.nii\n", "", "both 'image' and"),
        ("case_id,image\na,a.nii\n", "labels: {0: background, 1: x, 1: y}", "1 stands twice"),
        ("case_id,image\na,a.nii\n", "labels: {background: 0}", "labels"),
        ("case_id,image\na,a.nii\n", "labels: [background]", "expected a mapping"),
        ("case_id,image\na,a.nii\n", "labels: {1: a}\nregions: {all: [b]}", "names 'b'"),
        ("case_id,image\na,a.nii\n", "- a", "expected a mapping"),
        ("case_id,image\na,a.nii\n", "labels: {", "cannot be read"),
        ("case_id,image,class\na,a.nii,z\n", "class_names: [x, y]", "['z']"),
    ],
)
def test_one_message_for(tmp_path: Path, csv: str, yaml: str, part: str) -> None:
    assert part in problem(put(tmp_path, csv, yaml, ("a.nii",)))


def test_no_such_file(tmp_path: Path) -> None:
    assert "no such file" in problem(tmp_path / "x.csv")


def test_many_missing_files_are_summed_up(tmp_path: Path) -> None:
    rows = "".join(f"c{i},f{i}.nii\n" for i in range(50))
    assert "40 more files are not there" in problem(put(tmp_path, "case_id,image\n" + rows))
    assert len(read_manifest(tmp_path / "x.csv", need_files=False).cases) == 50


def test_classes_without_an_order_are_sorted_by_number(tmp_path: Path) -> None:
    rows = "".join(f"c{i},a.nii,{name}\n" for i, name in enumerate(("10", "9", "b", "a2", "a10")))
    manifest = read_manifest(put(tmp_path, "case_id,image,class\n" + rows, files=("a.nii",)))
    assert manifest.class_names == ("a2", "a10", "b", "9", "10")
    assert sorted(["case10", "case9"], key=natural_order) == ["case9", "case10"]


def test_round_trip(tmp_path: Path) -> None:
    for name in ("data/a.nii.gz", "data/a_label.nii.gz", "elsewhere/b.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    manifest = Manifest(
        cases=(
            Case(
                case_id="a",
                images={"CT": tmp_path / "data/a.nii.gz"},
                label=tmp_path / "data/a_label.nii.gz",
                classes=("1", "2"),
                group="007",
                site="nörd, süd",
                fold=0,
                annotated=("liver", "left kidney"),
            ),
            Case(case_id="NA", images={"CT": tmp_path / "elsewhere/b.nii.gz"}, split="test"),
        ),
        labels=Labels.model_validate(
            {
                0: "background",
                1: "liver",
                5: "left kidney",
                6: "right kidney",
                255: "ignore",
                "regions": {"organs": ["liver", "left kidney"]},
                "mirror_pairs": [["left kidney", "right kidney"]],
            }
        ),
        channels=("CT",),
        class_names=("2", "1"),
        metadata={"licence": "CC0", "nested": {"a": [1, 2.5, None]}, "columns": {"diameter_mm": {"NA": "3.10"}}},
    )
    path = tmp_path / "data/lists/x.csv"
    write_manifest(manifest, path)
    assert "../a.nii.gz" in path.read_text("utf-8")
    assert "../../elsewhere/b.nii.gz" in path.read_text("utf-8")
    assert read_manifest(path) == manifest
    before = path.read_bytes(), path.with_suffix(".yaml").read_bytes()
    write_manifest(read_manifest(path), path)
    assert before == (path.read_bytes(), path.with_suffix(".yaml").read_bytes())
    assert sorted(file.name for file in path.parent.iterdir()) == ["x.csv", "x.yaml"]


def test_a_linked_file_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/5f2a").touch()
    (tmp_path / "lists").mkdir()
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "store/5f2a")
    manifest = read_manifest(put(tmp_path / "lists", "case_id,image\na,../a.nii.gz\n"))
    assert manifest.cases[0].images["image"] == tmp_path / "a.nii.gz"


def test_the_readme_tells_every_key() -> None:
    text = (Path(__file__).parents[2] / "data_manifests/README.md").read_text("utf-8")
    from pipeline.datasets import manifest

    for word in (*manifest.COLUMNS, *manifest._YAML_KEYS):
        assert f"`{word}`" in text or f"\n{word}:" in text, word


@pytest.mark.parametrize(
    ("csv", "yaml", "part"),
    [
        (f"case_id,image\na,{'x' * 5000}.nii\n", "", "is no path"),
        ("case_id,image_\na,a.nii\n", "", "names no channel"),
        ("case_id,image_CT,image_MR\na,a.nii,a.nii\n", "channels: [CT, CT]\n", "the YAML's channels are"),
        ("case_id,image\na,a.nii\n", "labels: {0: background, 1: liver}\nignore: 1\n", "labels call 'liver'"),
        ("case_id,image\na,a.nii\n", "labels: {0: background, 1: yes}\n", "quote names such as 'on'"),
        ("case_id,image\na,a.nii\n", "ignore: true\n", "ignore is True"),
        ("case_id,image\na,a.nii\n", "? [1, 2]\n: x\n", "cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, csv: str, yaml: str, part: str) -> None:
    assert part in problem(put(tmp_path, csv, yaml, ("a.nii",)))


def test_background_is_known_however_it_is_spelt(tmp_path: Path) -> None:
    path = put(tmp_path, "case_id,image\na,a.nii\n", "labels: {0: Background, 1: liver}\n", ("a.nii",))
    assert read_manifest(path).labels.foreground == ("liver",)


def test_a_label_column_of_another_name_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_manifest(put(tmp_path, "case_id,image,mask_path\na,a.nii,m.nii\n", "", ("a.nii",)))
    assert "'mask_path' is not used" in caplog.text
    caplog.clear()
    read_manifest(put(tmp_path, "case_id,image,age\na,a.nii,3\n", "", ("a.nii",)))
    assert not caplog.text


def test_nothing_of_another_kind_is_written_over(tmp_path: Path) -> None:
    path = put(tmp_path, "case_id,image\na,a.nii\n", "labels: {0: background, 1: liver}\n", ("a.nii",))
    manifest = read_manifest(path)
    write_manifest(manifest, path)
    assert read_manifest(path) == manifest
    (tmp_path / "config.yaml").write_text("dataset: {name: phantom}\n")
    with pytest.raises(ConfigError, match=r"config\.yaml would be written too"):
        write_manifest(manifest, tmp_path / "config.csv")
    assert (tmp_path / "config.yaml").read_text() == "dataset: {name: phantom}\n"
    assert not (tmp_path / "config.csv").exists()
    with pytest.raises(ConfigError, match=r"ending in \.csv"):
        write_manifest(manifest, tmp_path / "x.nii.gz")
