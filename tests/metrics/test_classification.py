"""Figures of classification against scikit-learn, and their intervals."""

import numpy as np
import pytest
from sklearn import metrics as reference

from pipeline.metrics.base import ScoreTable
from pipeline.metrics.class_summary import apply_temperature, confusion, fit_temperature, roc_curve, summarise_table
from pipeline.metrics.classification import (
    F1,
    Accuracy,
    Auprc,
    Auroc,
    BalancedAccuracy,
    Brier,
    Ece,
    Sensitivity,
    Specificity,
)

NAMES = ("a", "b", "c")


def table(n=200, k=3, seed=0, ties=False, multi=False):
    random = np.random.default_rng(seed)
    y = random.integers(0, k, n)
    scores = random.normal(size=(n, k)) + 1.2 * np.eye(k)[y]
    if ties:
        scores = np.round(scores)
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    if multi:
        return ScoreTable(1 / (1 + np.exp(-scores)), random.random((n, k)) < 0.4, NAMES[:k], False)
    return ScoreTable(p, np.eye(k, dtype=bool)[y], NAMES[:k], True)


@pytest.mark.parametrize("k", [2, 3])
def test_figures_of_decisions_agree_with_scikit_learn(k):
    t = table(k=k)
    y, said = t.truth.argmax(1), t.probabilities.argmax(1)
    assert Accuracy().score(t)["accuracy"] == pytest.approx(reference.accuracy_score(y, said))
    assert BalancedAccuracy().score(t)["balanced_accuracy"] == pytest.approx(reference.balanced_accuracy_score(y, said))
    recalls = reference.recall_score(y, said, average=None)
    assert [Sensitivity().score(t)[f"sensitivity_{name}"] for name in NAMES[:k]] == pytest.approx(recalls.tolist())
    assert F1().score(t)["f1"] == pytest.approx(reference.f1_score(y, said, average="macro"))
    negatives = [reference.recall_score(y != c, said != c) for c in range(k)]
    assert [Specificity().score(t)[f"specificity_{name}"] for name in NAMES[:k]] == pytest.approx(negatives)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("multi", [False, True])
def test_ranking_figures_agree_with_scikit_learn(ties, multi):
    t = table(ties=ties, multi=multi)
    for k, name in enumerate(NAMES):
        truth, scores = t.truth[:, k], t.probabilities[:, k]
        assert Auroc().score(t)[f"auroc_{name}"] == pytest.approx(reference.roc_auc_score(truth, scores))
        assert Auprc().score(t)[f"auprc_{name}"] == pytest.approx(reference.average_precision_score(truth, scores))


@pytest.mark.parametrize("k", [2, 3])
def test_brier_is_that_of_scikit_learn(k):
    t = table(k=k)
    expected = ((t.probabilities - t.truth) ** 2).sum(1).mean() / (2 if k == 2 else 1)
    assert Brier().score(t)["brier"] == pytest.approx(expected)
    if k == 2:
        assert expected == pytest.approx(reference.brier_score_loss(t.truth[:, 1], t.probabilities[:, 1]))


def test_weights_count_cases_several_times():
    t = table(60, ties=True)
    weights = np.random.default_rng(1).integers(0, 4, (5, 60)).astype(float)
    for metric in (Accuracy(), BalancedAccuracy(), F1(), Auroc(), Auprc(), Brier(), Ece(), Specificity()):
        for row, found in zip(weights, metric.overall(t, weights), strict=True):
            rows = np.repeat(np.arange(60), row.astype(int))
            repeated = ScoreTable(t.probabilities[rows], t.truth[rows], NAMES, True)
            assert found == pytest.approx(metric.score(repeated)[metric.name])


def test_ece_is_zero_where_confidence_is_accuracy():
    p = np.array([[0.75, 0.25]] * 4)
    truth = np.array([[True, False]] * 3 + [[False, True]])
    assert Ece().score(ScoreTable(p, truth, ("a", "b"), True))["ece"] == pytest.approx(0)
    sure = np.array([[1.0, 0.0]] * 4)
    assert Ece().score(ScoreTable(sure, truth, ("a", "b"), True))["ece"] == pytest.approx(0.25)


def test_a_class_without_cases_has_no_figure_and_counts_in_no_mean():
    t = table()
    without = ScoreTable(t.probabilities[~t.truth[:, 2]], t.truth[~t.truth[:, 2]], NAMES, True)
    found = Auroc().score(without)
    assert np.isnan(found["auroc_c"])
    assert found["auroc"] == pytest.approx((found["auroc_a"] + found["auroc_b"]) / 2)


def test_confusion_counts_by_true_and_said_class():
    t = table()
    counts = confusion(t)
    expected = reference.confusion_matrix(t.truth.argmax(1), t.probabilities.argmax(1))
    assert [[counts[a][b] for b in NAMES] for a in NAMES] == expected.tolist()


def test_intervals_hold_the_value_and_widen_with_fewer_groups():
    t = table(120)
    alone = summarise_table(t, [str(i) for i in range(120)], [Accuracy(), Auroc()])
    grouped = summarise_table(t, [str(i // 12) for i in range(120)], [Accuracy(), Auroc()])
    for found in (alone, grouped):
        for entry in (*found["figures"].values(), found["classes"]["a"]["auroc"]):
            assert entry["low"] <= entry["value"] <= entry["high"]
    assert (alone["groups"], grouped["groups"]) == (120, 10)
    lonely = summarise_table(t, ["p"] * 120, [Accuracy()])
    assert lonely["figures"]["accuracy"]["low"] is None


def test_the_interval_of_accuracy_is_near_the_binomial_one():
    t = table(400)
    entry = summarise_table(t, [str(i) for i in range(400)], [Accuracy()])["figures"]["accuracy"]
    half = 1.96 * (entry["value"] * (1 - entry["value"]) / 400) ** 0.5
    assert entry["high"] - entry["low"] == pytest.approx(2 * half, rel=0.12)


@pytest.mark.parametrize("multi", [False, True])
def test_a_known_temperature_is_found_again(multi):
    random = np.random.default_rng(5)
    logits = random.normal(size=(4000, 3)) * 2
    if multi:
        p = 1 / (1 + np.exp(-logits))
        honest = ScoreTable(p, random.random(p.shape) < p, NAMES, False)
    else:
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        drawn = (random.random((4000, 1)) > np.cumsum(p, 1)).sum(1)
        honest = ScoreTable(p, np.eye(3, dtype=bool)[np.minimum(drawn, 2)], NAMES, True)
    too_sure = ScoreTable(apply_temperature(p, 0.5, exclusive=not multi), honest.truth, NAMES, not multi)
    assert fit_temperature(honest) == pytest.approx(1, abs=0.06)
    assert fit_temperature(too_sure) == pytest.approx(2, abs=0.12)
    assert Ece().score(too_sure)["ece"] > Ece().score(honest)["ece"]


def test_a_temperature_keeps_the_order_and_one_keeps_all():
    t = table()
    assert np.allclose(apply_temperature(t.probabilities, 1.0, exclusive=True), t.probabilities)
    cooled = apply_temperature(t.probabilities, 3.0, exclusive=True)
    assert np.array_equal(cooled.argmax(1), t.probabilities.argmax(1))
    assert np.allclose(cooled.sum(1), 1)


def test_the_area_below_the_curve_is_auroc():
    t = table(ties=True)
    false, true = roc_curve(t.probabilities[:, 0], t.truth[:, 0])
    assert np.trapezoid(true, false) == pytest.approx(Auroc().score(t)["auroc_a"])
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
