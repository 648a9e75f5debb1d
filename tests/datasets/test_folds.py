"""Folds: groups never straddle, balance, determinism."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.datasets.base import Case
from pipeline.datasets.fold_files import read_folds_csv
from pipeline.datasets.folds import Folds, find_straddling, group_of, make_folds, write_folds_csv
from pipeline.errors import ConfigError, DataError


def make(count: int, **fields: Callable[[int], Any]) -> list[Case]:
    return [
        Case(case_id=f"c{i:03d}", images={}, **{name: value(i) for name, value in fields.items()}) for i in range(count)
    ]


def draw(seed: int) -> tuple[list[Case], dict[str, dict[str, float]], Folds]:
    rng = random.Random(seed)
    groups = [f"p{rng.randrange(60)}" for _ in range(rng.randint(80, 160))]
    site_of = {group: rng.choice(("north", "south", "west")) for group in groups}
    test = {group for group in set(groups) if rng.random() < 0.1}
    cases = make(
        len(groups),
        group=lambda i: groups[i],
        site=lambda i: site_of[groups[i]],
        classes=lambda i: ("sick",) if rng.random() < 0.3 else ("well",),
        split=lambda i: "test" if groups[i] in test else "",
    )
    volumes = {
        case.case_id: {"liver": rng.uniform(900, 2000), "tumour": rng.choice((0.0, 0.0, rng.expovariate(0.1)))}
        for case in cases
    }
    stratify = rng.sample(["class", "site", "labels", "label_volume"], rng.randint(0, 4))
    return cases, volumes, Folds(k=rng.randint(2, 6), stratify=tuple(stratify))  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(60))
def test_properties(seed: int) -> None:
    cases, volumes, options = draw(seed)
    folds = make_folds(cases, options, seed, volumes)
    train = [case for case in cases if case.split != "test"]
    assert list(folds) == [case.case_id for case in train]
    assert set(folds.values()) == set(range(options.k))
    assert not find_straddling(cases, folds, options)
    shuffled = random.Random(seed).sample(cases, len(cases))
    assert make_folds(shuffled, options, seed, volumes) == folds
    counts = [list(folds.values()).count(fold) for fold in range(options.k)]
    largest = max(sum(case.group == group for case in train) for group in {case.group for case in train})
    assert max(counts) - min(counts) <= max(2 * largest, 0.35 * len(train) / options.k)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("stratify", [("class",), ("class", "site"), ("labels",), ("class", "site", "labels")])
def test_rare_classes_are_spread(seed: int, stratify: tuple[Any, ...]) -> None:
    cases, volumes, _ = draw(seed)
    options = Folds(k=4, stratify=stratify)
    folds = make_folds(cases, options, seed, volumes)
    if "class" in stratify:
        sick = [sum(folds.get(c.case_id) == fold and c.classes == ("sick",) for c in cases) for fold in range(4)]
        assert max(sick) - min(sick) <= 4
    if "labels" in stratify:
        with_tumour = [
            sum(folds.get(c.case_id) == fold and volumes[c.case_id]["tumour"] > 0 for c in cases) for fold in range(4)
        ]
        assert max(with_tumour) - min(with_tumour) <= 4


@pytest.mark.parametrize("seed", range(10))
def test_volumes_are_spread(seed: int) -> None:
    cases, volumes, _ = draw(seed)
    folds = make_folds(cases, Folds(k=3, stratify=("label_volume",)), seed, volumes)
    for name, tolerance in (("liver", 0.1), ("tumour", 0.2)):
        totals = [sum(volumes[c][name] for c, f in folds.items() if f == fold) for fold in range(3)]
        assert max(totals) - min(totals) < tolerance * sum(totals), name


def test_seeds_differ_and_one_seed_does_not() -> None:
    cases = make(30, group=lambda i: f"p{i // 2}")
    divisions = [tuple(make_folds(cases, Folds(), seed).values()) for seed in range(10)]
    assert len(set(divisions)) > 5
    assert divisions == [tuple(make_folds(cases, Folds(), seed).values()) for seed in range(10)]


def test_known_division_never_changes() -> None:
    cases = make(9, classes=lambda i: ("a",) if i % 3 else ("b",), site=lambda i: "nsw"[i % 2])
    assert list(make_folds(cases, Folds(stratify=("class", "site")), 0).values()) == [2, 2, 1, 1, 0, 0, 0, 1, 2]


def test_fixed_folds_win() -> None:
    cases = [*make(4, fold=lambda i: i % 2), Case(case_id="t", images={}, split="test")]
    assert make_folds(cases, Folds(k=4), 0) == {"c000": 0, "c001": 1, "c002": 0, "c003": 1}


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"fold": lambda i: i if i < 2 else None}, "2 training cases without a fold, such as c002"),
        ({"fold": lambda i: 2 * (i % 2)}, "without a gap"),
        ({"fold": lambda i: 0}, "at least two"),
        ({"fold": lambda i: i % 2, "group": lambda i: "p7"}, r"group p7 \(0, 1\)"),
        ({"split": lambda i: "test" if i == 1 else "", "group": lambda i: f"p{i // 2}"}, r"group p0 \(test, train\)"),
    ],
)
def test_leaks_and_gaps_are_refused(fields: dict[str, Any], part: str) -> None:
    with pytest.raises(DataError, match=part):
        make_folds(make(4, **fields), Folds(k=2), 0)


def test_fewer_groups_than_folds_is_refused() -> None:
    with pytest.raises(ConfigError, match="5 folds of 2 groups"):
        make_folds(make(6, group=lambda i: f"p{i % 2}"), Folds(k=5), 0)


def test_leave_one_site_out() -> None:
    options = Folds(leave_one_site_out=True)
    cases = make(6, site=lambda i: "bca"[i % 3])
    assert list(make_folds(cases, options, 0).values()) == [1, 2, 0, 1, 2, 0]
    with pytest.raises(ConfigError, match="two or more sites"):
        make_folds(make(3, site=lambda i: "x"), options, 0)
    with pytest.raises(DataError, match="without a site"):
        make_folds(make(3, site=lambda i: "x" if i else ""), options, 0)
    with pytest.raises(DataError, match="several sites"):
        make_folds(make(4, site=lambda i: "xy"[i % 2], group=lambda i: "p"), options, 0)


def test_sites_can_be_kept_together() -> None:
    options = Folds(k=2, group="site", stratify=())
    cases = make(8, site=lambda i: "abcd"[i % 4])
    assert not find_straddling(cases, make_folds(cases, options, 0), options)
    assert group_of(cases[0], options) == "a"


def test_only_test_cases() -> None:
    assert make_folds(make(3, split=lambda i: "test"), Folds(), 0) == {}


def test_csv_round_trip(tmp_path: Path) -> None:
    cases = [*make(6, group=lambda i: f"p{i}"), Case(case_id="t", images={}, split="test")]
    folds = make_folds(cases, Folds(), 0)
    write_folds_csv(tmp_path / "folds.csv", cases, folds)
    assert read_folds_csv(tmp_path / "folds.csv") == folds
    assert (tmp_path / "folds.csv").read_text().splitlines()[-1] == "t,t,,test,"
