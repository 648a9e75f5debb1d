"""Charts: valid SVG, the same each time, whatever is missing."""

import xml.etree.ElementTree as ET

import numpy as np

from pipeline.stages.report.plots import curves, distributions, volumes

COLOURS = {"liver": "#e69f00", "kidney": "#56b4e9"}
EPOCHS = np.arange(1.0, 6.0)


def words(drawing):
    return [text for node in ET.fromstring(drawing).iter() if node.text and (text := node.text.strip())]


def test_curves_name_their_panels_and_lines():
    values = np.array([1.0, np.nan, 0.5, np.nan, 0.4])
    drawing = curves({"Loss": {"fold 0": (EPOCHS, values), "fold 1": (EPOCHS, values + 1)}}, {"fold 0": 3.0})
    assert {"Loss", "fold 0", "fold 1", "epoch"} <= set(words(drawing))


def test_curves_without_any_value():
    assert words(curves({"Loss": {"all cases": (EPOCHS, np.full(5, np.nan))}}))


def test_distributions_show_every_case_and_class():
    panels = {
        "Dice": {"liver": [0.9, 0.8, np.nan], "kidney": []},
        "HD95, mm": {"liver": [3.0, 4.0, 5.0], "kidney": [np.nan]},
    }
    drawing = distributions(panels, COLOURS, {"Dice": (0.0, 1.0)})
    assert {"Dice", "HD95, mm", "liver", "kidney"} <= set(words(drawing))


def test_volumes_leave_out_zeros():
    drawing = volumes({"liver": ([1500.0, 0.0], [1400.0, 10.0]), "kidney": ([], [])}, COLOURS)
    assert {"reference, ml", "prediction, ml"} <= set(words(drawing))
    assert ET.fromstring(volumes({"liver": ([], [])}, COLOURS)) is not None


def test_same_drawing_each_time():
    table = {"Dice": {"liver": list(np.random.default_rng(0).random(30)), "kidney": [0.5]}}
    assert distributions(table, COLOURS, {}) == distributions(table, COLOURS, {})


def test_settings_of_other_plots_stay_as_they_were():
    import matplotlib

    before = dict(matplotlib.rcParams)
    volumes({"liver": ([1.0], [1.0])}, COLOURS)
    assert dict(matplotlib.rcParams) == before
