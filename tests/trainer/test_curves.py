"""One-vs-rest curves: what scikit-learn has, thinned without moving an area."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score

from tests.trainer.simulated import answering, simulate, softmax
from trainer.curves import POINTS, one_vs_rest_curves, reliability, thinned
from trainer.metrics import Predictions
from trainer.report_curves import report_curves

CLASSES = ("a", "b", "c")


def test_a_large_split_keeps_its_areas_and_shows_few_points() -> None:
    predictions = simulate(np.random.default_rng(0), n=20_000, classes=3, groups=50)
    for index, curves in enumerate(one_vs_rest_curves(predictions, CLASSES).values()):
        assert curves is not None
        roc, staircase = curves.roc, curves.precision_recall
        assert roc.area == roc_auc_score(predictions.labels == index, predictions.probabilities[:, index])
        assert 100 < len(roc.x) <= POINTS
        assert 100 < len(staircase.x) <= POINTS
        assert auc(roc.x, roc.y) == pytest.approx(roc.area, abs=1e-3)
        assert auc(staircase.x, staircase.y) == pytest.approx(staircase.area, abs=5e-3)
        assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0.0, 0.0, 1.0, 1.0)
        assert list(roc.x) == sorted(roc.x)
        assert list(staircase.x) == sorted(staircase.x)
        assert (staircase.x[0], staircase.y[0], staircase.x[-1]) == (0.0, 1.0, 1.0)
        assert curves.prevalence == pytest.approx(1 / 3, abs=0.02)


def test_equal_predictions_give_equal_curves() -> None:
    made = [simulate(np.random.default_rng(0), n=900, classes=3, groups=50) for _ in range(2)]
    assert one_vs_rest_curves(made[0], CLASSES) == one_vs_rest_curves(made[1], CLASSES)


def test_a_perfect_model_has_areas_of_one_and_a_constant_one_of_chance() -> None:
    predictions = simulate(np.random.default_rng(0), n=60, classes=3, groups=9)
    perfect = one_vs_rest_curves(answering(predictions, predictions.labels), CLASSES)
    constant = one_vs_rest_curves(answering(predictions, np.zeros(60, np.int64)), CLASSES)
    for good, dull in zip(perfect.values(), constant.values(), strict=True):
        assert good is not None
        assert dull is not None
        assert (good.roc.area, good.precision_recall.area) == (1.0, 1.0)
        assert dull.roc.area == 0.5
        assert dull.precision_recall.area == pytest.approx(dull.prevalence)


def test_a_case_worked_by_hand() -> None:
    # Scores of the class: 0.9 yes, 0.8 no, 0.6 yes, 0.3 no. Of four pairs three are in order.
    scores = np.array([0.9, 0.8, 0.6, 0.3], np.float32)
    made = Predictions(tuple("abcd"), tuple("abcd"), np.array([1, 0, 1, 0]), np.stack([1 - scores, scores], axis=1))
    curves = one_vs_rest_curves(made, ("no", "yes"))["yes"]
    assert curves is not None
    assert curves.roc.area == 0.75
    assert list(zip(curves.roc.x, curves.roc.y, strict=True)) == [(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)]
    assert curves.precision_recall.area == pytest.approx((1 + 2 / 3) / 2)


def test_a_class_that_all_carry_or_none_does_has_no_curve() -> None:
    predictions = simulate(np.random.default_rng(0), n=30, classes=3, groups=9)
    alone = Predictions(predictions.ids, predictions.groups, np.zeros(30, np.int64), predictions.probabilities)
    assert one_vs_rest_curves(alone, CLASSES) == {"a": None, "b": None, "c": None}


def test_few_points_are_all_kept_and_many_keep_their_ends() -> None:
    assert thinned(np.arange(5.0), np.arange(5.0)).tolist() == [0, 1, 2, 3, 4]
    x = np.linspace(0, 1, 5000)
    shown = thinned(x, np.where(x < 0.5, 0.0, 1.0))
    assert (shown[0], shown[-1]) == (0, 4999)
    assert len(shown) <= POINTS
    assert (np.diff(shown) > 0).all()


def test_the_bins_count_every_example() -> None:
    predictions = simulate(np.random.default_rng(0), n=77, classes=3, groups=9)
    assert sum(one.count for one in reliability(predictions)) == 77


def test_the_report_gets_every_curve_as_plain_numbers() -> None:
    predictions = simulate(np.random.default_rng(0), n=77, classes=3, groups=9)
    no_c = Predictions(predictions.ids, predictions.groups, predictions.labels % 2, predictions.probabilities)
    boastful = replace(no_c, probabilities=softmax(5 * np.log(no_c.probabilities)))
    curves = report_curves(no_c, CLASSES, uncalibrated=boastful)
    assert set(curves) == {"roc", "pr", "reliability", "reliability_uncalibrated", "risk_coverage"}
    assert set(curves["roc"]["a"]) == {"fpr", "tpr", "auc"}
    assert set(curves["pr"]["a"]) == {"recall", "precision", "ap"}
    assert curves["roc"]["c"] is None
    assert sum(row["n"] for row in curves["reliability"]) == 77
    assert curves["reliability_uncalibrated"][-1]["n"] > curves["reliability"][-1]["n"]
    assert json.loads(json.dumps(curves, allow_nan=False)) == curves
    assert curves["risk_coverage"]["coverage"][-1] == 1.0
    assert curves["risk_coverage"]["risk"][-1] == pytest.approx(1 - (no_c.answers == no_c.labels).mean())
    assert "reliability_uncalibrated" not in report_curves(no_c, CLASSES)
