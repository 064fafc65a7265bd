"""The numbers of a report, against cases worked out by hand and against scikit-learn."""

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss

from trainer.metrics import (
    Predictions,
    compute_metrics,
    confident_mistakes,
    least_certain,
    majority_baseline,
    wilson_interval,
)

CLASSES = ("benign", "atypical", "malignant")


def predictions_of(labels: Sequence[int], answers: Sequence[int], *, confidence: float = 0.8) -> Predictions:
    """Predictions that answer `answers`, each with `confidence`, the rest spread evenly over three classes."""
    probabilities = np.full((len(labels), 3), (1 - confidence) / 2, np.float32)
    probabilities[np.arange(len(answers)), list(answers)] = confidence
    return Predictions(
        ids=tuple(f"{row}.png" for row in range(len(labels))),
        groups=tuple(f"slide-{row // 2}" for row in range(len(labels))),
        labels=np.array(labels, np.int64),
        probabilities=probabilities,
    )


def test_a_case_worked_by_hand_gives_the_numbers_of_the_hand() -> None:
    metrics = compute_metrics(predictions_of([0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 2]), CLASSES)
    assert metrics["n"] == 7
    assert metrics["groups"] == 4
    assert metrics["confusion_matrix"] == [[3, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert metrics["accuracy"] == pytest.approx(5 / 7)
    assert metrics["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert metrics["macro_f1"] == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert metrics["log_loss"] == pytest.approx(-(5 * math.log(0.8) + 2 * math.log(0.1)) / 7, rel=1e-6)
    assert metrics["per_class"]["benign"] == pytest.approx(
        {"precision": 0.75, "recall": 0.75, "f1": 0.75, "support": 4}
    )


def test_rows_of_the_confusion_matrix_are_the_true_classes() -> None:
    metrics = compute_metrics(predictions_of([0, 0], [2, 2]), CLASSES)
    assert metrics["confusion_matrix"] == [[0, 0, 2], [0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 2], [1]])
def test_a_perfect_model_scores_one_on_any_split(labels: list[int]) -> None:
    metrics = compute_metrics(predictions_of(labels, labels, confidence=1.0), CLASSES)
    assert [metrics[key] for key in ("accuracy", "balanced_accuracy", "macro_f1")] == [1.0, 1.0, 1.0]
    assert metrics["log_loss"] == 0.0


def test_a_constant_model_scores_what_the_majority_baseline_says() -> None:
    predictions = predictions_of([0, 0, 0, 1, 2], [0, 0, 0, 0, 0])
    metrics = compute_metrics(predictions, CLASSES)
    baseline = majority_baseline({"benign": 9, "atypical": 3, "malignant": 3}, predictions, CLASSES)
    assert baseline == {"answer": "benign"} | {k: metrics[k] for k in ("accuracy", "balanced_accuracy", "macro_f1")}
    assert metrics["accuracy"] == pytest.approx(3 / 5)
    assert metrics["balanced_accuracy"] == pytest.approx(1 / 3)
    assert metrics["macro_f1"] == pytest.approx((2 * 0.6 * 1 / 1.6 + 0 + 0) / 3)


def test_the_majority_is_the_commonest_class_of_training_not_of_the_split() -> None:
    predictions = predictions_of([0, 0, 0, 1], [0, 0, 0, 0])
    baseline = majority_baseline({"benign": 1, "atypical": 5}, predictions, CLASSES)
    assert (baseline["answer"], baseline["accuracy"]) == ("atypical", 0.25)


def test_a_tie_for_the_majority_goes_to_the_first_class() -> None:
    baseline = majority_baseline({"malignant": 4, "atypical": 4, "benign": 1}, predictions_of([1], [1]), CLASSES)
    assert baseline["answer"] == "atypical"


def test_an_absent_class_leaves_every_number_defined_and_the_averages_untouched() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = compute_metrics(predictions_of([0, 0, 1, 1], [0, 1, 1, 1]), CLASSES)
    assert metrics["per_class"]["malignant"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert metrics["balanced_accuracy"] == pytest.approx((1 / 2 + 1) / 2)
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_an_absent_class_that_was_predicted_costs_macro_f1() -> None:
    metrics = compute_metrics(predictions_of([0, 0], [0, 2]), CLASSES)
    assert metrics["balanced_accuracy"] == 0.5
    assert metrics["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)


def test_a_class_never_predicted_has_precision_zero() -> None:
    metrics = compute_metrics(predictions_of([0, 1], [0, 0]), CLASSES)
    assert metrics["per_class"]["atypical"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 1}


def test_a_probability_of_zero_for_the_truth_costs_a_finite_loss() -> None:
    assert 15 < compute_metrics(predictions_of([0], [1], confidence=1.0), CLASSES)["log_loss"] < 16


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
def test_any_predictions_give_finite_json_that_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    labels, answers = [p[0] for p in pairs], [p[1] for p in pairs]
    predictions = predictions_of(labels, answers)
    metrics = compute_metrics(predictions, CLASSES)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, answers))
        assert metrics["macro_f1"] == pytest.approx(f1_score(labels, answers, average="macro", zero_division=0))
        assert metrics["log_loss"] == pytest.approx(
            log_loss(labels, predictions.probabilities, labels=range(3)), rel=1e-5
        )


def test_the_surest_mistakes_come_first_and_right_answers_never() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.6, 0.4]], np.float32)
    predictions = Predictions(("d", "c", "b", "a"), ("g",) * 4, np.array([0, 1, 0, 1]), probabilities)
    assert confident_mistakes(predictions, 9) == [2, 3, 1]
    assert confident_mistakes(predictions, 1) == [2]


def test_the_interval_of_wilson_is_that_of_the_tables() -> None:
    # R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson_interval(1.0, 10) == pytest.approx((0.7225, 1.0), abs=5e-5)
    assert wilson_interval(0.0, 10)[0] == 0.0


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.zeros((0, 3)), "no examples"),
        ([0, 1], np.full((1, 3), 1 / 3), "Expected 2 groups"),
        ([0], np.full((1, 2), 1 / 2), r"probabilities \[1, 3\]"),
        ([3], np.full((1, 3), 1 / 3), "labels from 0 to 2"),
        ([0, 1], np.array([[1, 0, 0], [math.nan, 0, 0]]), r"'1\.png'.*diverged"),
    ],
)
def test_predictions_that_mean_nothing_are_refused(labels: list[int], probabilities: np.ndarray, message: str) -> None:
    ids = tuple(f"{row}.png" for row in range(len(labels)))
    predictions = Predictions(ids, ids, np.array(labels, np.int64), probabilities.astype(np.float32))
    with pytest.raises(ValueError, match=message):
        compute_metrics(predictions, CLASSES)
    with pytest.raises(ValueError, match=message):
        majority_baseline({}, predictions, CLASSES)


def test_a_group_for_each_example_is_demanded() -> None:
    with pytest.raises(ValueError, match=r"Expected 2 groups.*Received 1 groups"):
        compute_metrics(replace(predictions_of([0, 1], [0, 1]), groups=("only-one",)), CLASSES)


def test_kappa_brier_and_calibration_error_of_a_case_worked_by_hand() -> None:
    # Accuracy 5/7. By chance 4/7 · 4/7 + 2/7 · 2/7 + 1/7 · 1/7 = 21/49 would agree. Confidence is 0.8 throughout.
    metrics = compute_metrics(predictions_of([0, 0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 0, 2]), CLASSES)
    assert metrics["cohen_kappa"] == pytest.approx((5 / 7 - 3 / 7) / (1 - 3 / 7))
    # Two answers are one class off. By chance (8 + 8) · 1 + 2 · 2 · 1 + 2 · 4 · 4 of 49 would be.
    assert metrics["quadratic_kappa"] == pytest.approx(1 - (2 / 7) / (52 / 49))
    assert metrics["brier"] == pytest.approx((5 * (0.04 + 2 * 0.01) + 2 * (0.81 + 0.64 + 0.01)) / 7, rel=1e-6)
    assert metrics["ece"] == pytest.approx(0.8 - 5 / 7, rel=1e-6)


def test_where_chance_is_perfect_too_there_is_no_kappa() -> None:
    metrics = compute_metrics(predictions_of([1, 1], [1, 1]), CLASSES)
    assert (metrics["cohen_kappa"], metrics["quadratic_kappa"]) == (None, None)
    assert compute_metrics(predictions_of([1, 1], [1, 0]), CLASSES)["cohen_kappa"] == 0.0


def test_the_least_certain_come_first_by_their_margin() -> None:
    probabilities = np.array([[0.5, 0.45, 0.05], [0.4, 0.3, 0.3], [0.34, 0.33, 0.33], [0.9, 0.1, 0.0]], np.float32)
    predictions = Predictions(("d", "c", "b", "a"), ("g",) * 4, np.array([0, 1, 0, 1]), probabilities)
    assert least_certain(predictions, 9) == [2, 0, 1, 3]
    assert least_certain(predictions, 1) == [2]
    level = replace(predictions, probabilities=np.tile(probabilities[1], (4, 1)))
    assert least_certain(level, 9) == [3, 2, 1, 0]
    alone = replace(predictions, probabilities=np.ones((4, 1), np.float32))
    assert least_certain(alone, 9) == []
