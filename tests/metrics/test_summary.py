"""Condensed figures against pandas and counts by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from pipeline.metrics.summary import summarise


@pytest.fixture
def rows():
    """Six cases of four patients; the kidney is absent from one case and missed in another."""
    random = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            {"case_id": f"c{case}", "group": f"p{min(case, 3)}", "fold": case % 2, "class": name, "presence": "both"}
            for case in range(6)
            for name in ("liver", "kidney")
        ]
    )
    table["dice"] = random.uniform(0.7, 0.95, len(table))
    table["hd95_mm"] = random.uniform(1, 9, len(table))
    table.loc[1, ["presence", "dice", "hd95_mm"]] = ["absent", np.nan, np.nan]
    table.loc[3, ["presence", "dice", "hd95_mm"]] = ["missed", 0.0, np.nan]
    return table


def test_counts_and_moments(rows):
    found = summarise(rows)
    assert (found["cases"], found["groups"]) == (6, 4)
    kidney = found["classes"]["kidney"]
    own = rows[rows["class"] == "kidney"]
    assert kidney["presence"] == {"both": 4, "missed": 1, "false_positive": 0, "absent": 1, "not_annotated": 0}
    for column, count in (("dice", 5), ("hd95_mm", 4)):
        figures = kidney["metrics"][column]
        assert figures["n"] == count
        assert figures["mean"] == pytest.approx(own[column].mean())
        assert figures["std"] == pytest.approx(own[column].std())
        assert figures["median"] == pytest.approx(own[column].median())
        assert figures["low"] <= figures["mean"] <= figures["high"]


def test_mean_over_classes_weighs_classes_alike(rows):
    found = summarise(rows)
    means = rows.groupby("class")["dice"].mean()
    assert found["classes_mean"]["dice"]["mean"] == pytest.approx(means.mean())
    apart = summarise(rows, headline=["liver"])
    assert apart["classes_mean"]["dice"]["mean"] == pytest.approx(means["liver"])
    assert apart["headline"] == ["liver"]


def test_one_patient_has_no_interval(rows):
    found = summarise(rows[rows["group"] == "p3"])
    assert found["groups"] == 1
    figures = found["classes"]["liver"]["metrics"]["dice"]
    assert (figures["low"], figures["high"]) == (None, None)
    assert figures["n"] == 3


def test_class_without_any_figure_is_none(rows):
    rows.loc[rows["class"] == "kidney", ["presence", "dice", "hd95_mm"]] = ["not_annotated", np.nan, np.nan]
    found = summarise(rows)
    figures = found["classes"]["kidney"]["metrics"]["dice"]
    assert figures["n"] == 0
    assert figures["mean"] is None
    assert found["classes_mean"]["dice"]["mean"] == pytest.approx(found["classes"]["liver"]["metrics"]["dice"]["mean"])


def test_is_strict_json_and_the_same_each_time(rows):
    text = json.dumps(summarise(rows), allow_nan=False)
    assert text == json.dumps(summarise(rows), allow_nan=False)


def test_a_case_without_a_row_of_a_class_counts_as_unknown(rows):
    found = summarise(rows.drop(index=0))
    assert found["cases"] == 6
    assert found["classes"]["liver"]["metrics"]["dice"]["n"] == 5
