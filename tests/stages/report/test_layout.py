"""The parts of a report for runs of many kinds."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.metrics.summary import summarise
from pipeline.stages.report.layout import build_page, cards, notes, verdict
from pipeline.stages.report.page import Figure, Section, Table, Text, render


@pytest.fixture(scope="module")
def page(report_data):
    return build_page(report_data)


@pytest.fixture
def no_charts(monkeypatch):
    """Leave out the drawing, which takes most of the time."""
    for name in ("results.distributions", "results.volumes", "background.curves"):
        monkeypatch.setattr(f"pipeline.stages.report.{name}", lambda *_: "<svg/>")


def tables(page):
    return [item for section in page.sections for item in section.items if isinstance(item, Table)]


def titles(page):
    return [section.title for section in page.sections if section.items]


def test_whole_page(page):
    assert titles(page) == ["Results", "Cases", "Training", "Data", "How it was made"]
    text = render(page)
    for part in ("phantom_099", "lung", "ribs", "fold 2", "torch", "dataset: {name: phantom", "1.40 M"):
        assert part in text


def test_verdict_says_what_the_mean_is_over(report_data):
    text = verdict(report_data)
    mean = report_data.summary["classes_mean"]["dice"]
    assert f"Mean Dice over lung, liver, kidney and spine is {mean['mean']:.3f}" in text
    assert f"{mean['low']:.3f} to {mean['high']:.3f}" in text
    assert "Ribs, vessels and lesion are reported apart" in text
    assert "reaches a mean Dice of 0.46" in text


def test_class_table_holds_the_summary(report_data, page):
    table = tables(page)[0]
    heads = [column.name for column in table.columns]
    assert heads == ["Class", "0 to 1", "Dice", "median", "NSD at 2 mm", "HD95", "n", "missed", "false +", "threshold"]
    rows = {row[0].text: row for row in table.rows}
    lesion = report_data.summary["classes"]["lesion"]
    assert rows["lesion"][2].text == f"{lesion['metrics']['dice']['mean']:.3f}"
    assert rows["lesion"][7].text == str(lesion["presence"]["missed"]) == "2"
    assert rows["mean of 4 classes"][2].text == f"{report_data.summary['classes_mean']['dice']['mean']:.3f}"
    assert all(len(row) == len(heads) for row in table.rows)


def test_every_table_has_as_many_cells_as_heads(page):
    for table in tables(page):
        assert {len(row) for row in table.rows} == {len(table.columns)}


def test_case_table_starts_with_the_worst(page):
    table = next(table for table in tables(page) if table.sortable)
    means = [row[3].sort for row in table.rows]
    assert means == sorted(means)
    assert len(means) == 12


@pytest.mark.usefixtures("no_charts")
def test_test_cases_have_their_own_section(report_data):
    rows = report_data.rows[report_data.rows["case_id"] < "phantom_004"]
    page = build_page(replace(report_data, test=(rows, summarise(rows))))
    assert titles(page)[:2] == ["Results", "Test cases"]
    assert "On 4 cases set aside for testing" in page.verdict


@pytest.mark.usefixtures("no_charts")
def test_sections_of_other_tasks_come_after_the_results(report_data):
    extra = Section("roc", "ROC", (Text("curves"),))
    assert "ROC" in titles(build_page(replace(report_data, extra=(extra,))))


@pytest.mark.usefixtures("no_charts")
def test_nothing_evaluated(report_data):
    page = build_page(replace(report_data, rows=None, summary=None, overlays=(), baseline={}))
    assert titles(page) == ["Training", "Data", "How it was made"]
    assert page.verdict == "3 models trained; no masks were evaluated."
    assert render(page)


@pytest.mark.usefixtures("no_charts")
def test_nothing_at_all(report_data):
    bare = replace(
        report_data, rows=None, summary=None, overlays=(), baseline={}, cases=(), trainings=(), patches=None, costs=(),
        environment={}, config_yaml="", dropped={},
    )  # fmt: skip
    assert titles(build_page(bare)) == []
    assert render(build_page(bare))


@pytest.mark.usefixtures("no_charts")
def test_one_case_of_one_class(report_data):
    rows = report_data.rows[(report_data.rows["case_id"] == "phantom_000") & (report_data.rows["class"] == "liver")]
    data = replace(report_data, rows=rows, summary=summarise(rows), class_names=("liver",), baseline={})
    page = build_page(data)
    assert "interval" not in page.verdict
    assert any("one patient" in note.text for note in page.notes)
    assert render(page)


@pytest.mark.usefixtures("no_charts")
def test_class_that_is_nowhere(report_data):
    rows = report_data.rows.copy()
    figures = [name for name in rows.columns if name not in ("case_id", "group", "fold", "class", "presence")]
    rows.loc[rows["class"] == "lesion", figures] = np.nan
    rows.loc[rows["class"] == "lesion", "presence"] = "not_annotated"
    assert render(build_page(replace(report_data, rows=rows, summary=summarise(rows))))


@pytest.mark.parametrize("extent", [1, 40])
def test_notes_name_failures_and_stay_short(report_data, extent):
    failed = {f"case_{number}": f"case case_{number}: memory ran out" for number in range(extent)}
    note = next(note for note in notes(replace(report_data, failed=failed)) if "prediction" in note.text)
    assert note.items[0] == "case case_0: memory ran out"
    assert len(note.items) == min(extent, 31)


def test_folds_that_were_left_out_are_named(report_data):
    assert any("fold 1 and 2" in note.text for note in notes(replace(report_data, not_run=(1, 2))))


def test_cards_show_means_with_units(report_data):
    shown = {card.label: card.value for card in cards(report_data)}
    assert shown["Mean HD95"].endswith(" mm")
    assert shown["Structures missed"] == "2"
    assert shown["Training"] == "6:03"


def test_pictures_are_in_order(page):
    cases = next(section for section in page.sections if section.anchor == "cases")
    assert [item.title.split(":")[0] for item in cases.items if isinstance(item, Figure)] == ["Best", "Median", "Worst"]


def test_leaks_come_first_and_the_verdict_promises_nothing(report_data):
    leaky = replace(report_data, leaks=("group p in fold 0 and fold 1: cases a, b",), failed={"a": "no"})
    assert "never saw" in verdict(report_data)
    assert "never saw" not in verdict(leaky)
    first = notes(leaky)[0]
    assert "too good" in first.text
    assert first.items == leaky.leaks
    assert not any("too good" in note.text for note in notes(report_data))


def test_post_processing_says_what_was_tried_and_kept(report_data):
    found = {
        "cases": 4,
        "tried": [{"name": "largest_component"}, {"name": "fill_holes"}],
        "raw": {"liver": 0.8, "spleen": 0.7, "lung": 0.9},
        "classes": {
            "liver": {"steps": [{"name": "largest_component"}], "kept": True, "raw": 0.8, "mended": 0.85,
                      "mended_nested": 0.84, "cases": 4},
            "spleen": {"steps": [{"name": "fill_holes"}], "kept": False, "raw": 0.7, "mended": 0.71,
                       "mended_nested": 0.7, "cases": 4},
        },
    }  # fmt: skip
    made = build_page(replace(report_data, postprocess=found))
    (section,) = [one for one in made.sections if one.anchor == "postprocess"]
    assert "largest component and fill holes" in section.lead
    rows = [[cell.text for cell in row] for row in section.items[0].rows]
    assert rows[0] == ["liver", "0.8000", "0.8500", "0.8400", "largest component", "yes"]
    assert rows[1][-1].startswith("no, ")
    assert rows[2][1:] == ["0.9000", "–", "–", "none", "no gain"]
    assert not [one for one in build_page(report_data).sections if one.anchor == "postprocess" and one.items]
