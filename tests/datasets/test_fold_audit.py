"""The balance of folds, and what leaks between them."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from pipeline.datasets.base import Case
from pipeline.datasets.fold_audit import audit_text, contents_of, find_leaks, fold_balance, refuse_leaks
from pipeline.datasets.folds import Folds, make_folds
from pipeline.errors import DataError
from pipeline.imaging.facts import CaseFacts, ChannelFacts, Intensities
from pipeline.imaging.volume import Geometry


def case(case_id: str, **fields: object) -> Case:
    return Case(case_id=case_id, images={}, **fields)


def test_groups_and_images_across_folds_are_found() -> None:
    cases = [case("a", group="p"), case("b", group="p"), case("c"), case("t", split="test")]
    contents = {"a": ["x", "y"], "c": ["x", "y"], "t": ["y"], "b": []}
    leaks = find_leaks(cases, {"a": 0, "b": 1, "c": 1}, Folds(), contents)
    assert [(leak.kind, leak.cases, leak.parts) for leak in leaks] == [
        ("group", ("a", "b"), ("fold 0", "fold 1")),
        ("content", ("a", "c"), ("fold 0", "fold 1")),
        ("content", ("a", "c", "t"), ("fold 0", "fold 1", "test")),
    ]
    with pytest.raises(DataError, match="group p in fold 0 and fold 1: cases a, b") as raised:
        refuse_leaks(leaks, Folds())
    assert "allow_leakage" in str(raised.value)
    refuse_leaks(leaks, Folds(allow_leakage=True))
    assert "3 leaks" in audit_text(leaks, {}, 3)


def test_copies_in_one_fold_or_of_one_channel_twice_are_told_once_or_not_at_all() -> None:
    cases = [case("a"), case("b"), case("c")]
    assert not find_leaks(cases, {"a": 0, "b": 0, "c": 1}, Folds(), {"a": ["x"], "b": ["x"], "c": ["z"]})
    leaks = find_leaks(cases, {"a": 0, "b": 1, "c": 1}, Folds(), {"a": ["x", "y"], "b": ["y", "x"]})
    assert len(leaks) == 1


def test_sites_count_where_they_are_to_stay_together() -> None:
    cases = [case("a", site="s"), case("b", site="s")]
    assert not find_leaks(cases, {"a": 0, "b": 1}, Folds(), {})
    assert find_leaks(cases, {"a": 0, "b": 1}, Folds(group="site"), {})[0].kind == "site"


def test_leakage_can_be_allowed_in_given_folds() -> None:
    cases = [case("a", group="p", fold=0), case("b", group="p", fold=1)]
    with pytest.raises(DataError, match="allow_leakage"):
        make_folds(cases, Folds(), 0)
    assert make_folds(cases, Folds(allow_leakage=True), 0) == {"a": 0, "b": 1}
    split = [case("a", group="p"), case("b"), case("t", group="p", split="test")]
    assert set(make_folds(split, Folds(k=2, allow_leakage=True), 0)) == {"a", "b"}


def test_a_constant_channel_is_no_content() -> None:
    def facts(low: float, high: float) -> CaseFacts:
        geometry = Geometry(shape=(1, 1, 1))
        found = Intensities(voxels=1, minimum=low, maximum=high, mean=0, std=0, percentiles=(0.0,) * 9)
        channel = ChannelFacts(dtype="int16", sha256="f", voxels_sha256="v", nonzero=0, all=found)
        return CaseFacts(case_id="a", geometry=geometry, canonical=geometry, channels={"image": channel})

    assert contents_of({"a": facts(0, 0), "b": facts(0, 1)}) == {"a": [], "b": ["v"]}


def test_balance_table() -> None:
    cases = [
        case(f"c{i}", fold=i % 2, site="ab"[i % 2], classes=("x",)) for i in range(4)
    ] + [case("t", split="test")]  # fmt: skip
    volumes = {"c0": {"liver": 10.0}, "c2": {"liver": 0.0}, "c1": {"liver": 2.5, "cyst": 1.0}}
    table = fold_balance(cases, make_folds(cases, Folds(), 0), volumes)
    assert table.to_dict("list") == {
        "fold": ["0", "1", "test"],
        "cases": [2, 2, 1],
        "groups": [2, 2, 1],
        "class x": [2, 2, 0],
        "site a": [2, 0, 0],
        "with liver": [1, 1, 0],
        "ml liver": [10.0, 2.5, 0.0],
        "site b": [0, 2, 0],
        "with cyst": [0, 1, 0],
        "ml cyst": [0.0, 1.0, 0.0],
    }


def test_an_image_saved_anew_in_another_type_and_turned_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    voxels = rng.integers(-900, 900, (6, 7, 8)).astype(np.int16)
    other = rng.permutation(voxels.ravel()).reshape(voxels.shape)  # the same figures, another image
    arrays = {"a": voxels, "b": voxels[::-1].transpose(1, 0, 2).astype(np.float32), "c": other}
    cases, facts = [], {}
    for case_id, array in arrays.items():
        path = tmp_path / f"{case_id}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array), np.eye(4)), path)
        cases.append(Case(case_id=case_id, images={"image": path}))
        whole = {"voxels": array.size, "minimum": array.min(), "maximum": array.max()}
        values = Intensities(**whole, mean=voxels.mean(), std=voxels.std(), percentiles=(0.0,) * 9)
        channel = ChannelFacts(dtype=str(array.dtype), sha256=case_id, voxels_sha256=case_id, nonzero=0, all=values)
        geometry = Geometry(shape=array.shape)
        facts[case_id] = CaseFacts(case_id=case_id, geometry=geometry, canonical=geometry, channels={"image": channel})
    leaks = find_leaks(cases, {"a": 0, "b": 1, "c": 1}, Folds(), contents_of(facts))
    assert [(leak.kind, leak.cases) for leak in leaks] == [("content", ("a", "b"))]
    assert not find_leaks(cases, {"a": 0, "b": 0, "c": 1}, Folds(), contents_of(facts))


def test_volumes_of_classes_that_were_not_annotated_are_left_out() -> None:
    cases = [case("a", annotated=("liver",)), case("b")]
    volumes = {"a": {"liver": 3.0, "spleen": 0.0}, "b": {"liver": 5.0, "spleen": 2.0}}
    table = fold_balance(cases, {"a": 0, "b": 1}, volumes)
    assert table.loc[table["fold"].astype(str) == "0", "ml liver"].item() == 3.0
    assert not table.loc[table["fold"].astype(str) == "0", "ml spleen"].fillna(0).item()
