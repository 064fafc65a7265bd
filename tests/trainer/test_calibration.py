"""Temperature scaling and calibration error: a temperature that is known is found, and cases worked out by hand."""

import numpy as np
import pytest

from tests.trainer.simulated import simulate, softmax
from trainer.calibration import (
    BINS,
    FEWEST_EXAMPLES,
    HIGHEST,
    SMALLEST_LOG,
    apply_temperature,
    bin_numbers,
    calibrated,
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
)
from trainer.metrics import Predictions, compute_metrics

CLASSES = ("a", "b", "c", "d", "e")


def logits_of(predictions: Predictions) -> np.ndarray:
    logits: np.ndarray = np.log(predictions.probabilities.astype(np.float64))
    return logits


@pytest.mark.parametrize("known", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found_and_undone(known: float) -> None:
    good = simulate(np.random.default_rng(1), n=20_000, classes=5, groups=50, skill=1.5)
    fit = fit_temperature(known * logits_of(good), good.labels)
    assert fit.reason == ""
    assert fit.temperature == pytest.approx(known, rel=0.04)
    undone = apply_temperature(known * logits_of(good), known)
    assert undone == pytest.approx(good.probabilities, abs=1e-6)
    assert undone.dtype == np.float32


def test_no_other_temperature_has_a_smaller_loss() -> None:
    predictions = simulate(np.random.default_rng(2), n=200, classes=5, groups=50, skill=0.8)
    fit = fit_temperature(logits_of(predictions), predictions.labels)
    losses = {
        temperature: compute_metrics(calibrated(predictions, temperature), CLASSES)["log_loss"]
        for temperature in (fit.temperature, *np.geomspace(0.2, 9, 60))
    }
    assert min(losses, key=losses.__getitem__) == fit.temperature


def test_temperature_changes_no_answer_and_makes_an_overconfident_model_honest() -> None:
    good = simulate(np.random.default_rng(3), n=3000, classes=5, groups=50, skill=1.2)
    boastful = Predictions(good.ids, good.groups, good.labels, softmax(3 * logits_of(good)))
    honest = calibrated(boastful, fit_temperature(logits_of(boastful), boastful.labels).temperature)
    before, after = (compute_metrics(one, CLASSES) for one in (boastful, honest))
    assert after["confusion_matrix"] == before["confusion_matrix"]
    assert before["ece"] > 0.15
    assert after["ece"] < 0.04
    assert after["log_loss"] < before["log_loss"]
    assert after["brier"] < before["brier"]


def test_logits_and_log_probabilities_have_the_same_temperature() -> None:
    random = np.random.default_rng(4)
    logits, labels = random.normal(0, 3, (100, 5)), random.integers(0, 5, 100)
    shifted = logits + random.normal(0, 50, (100, 1))
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    found = {fit_temperature(one, labels).temperature for one in (logits, shifted, logs)}
    assert len(found) == 1


def test_one_temperature_is_the_very_same_predictions() -> None:
    predictions = simulate(np.random.default_rng(0), n=9, classes=3, groups=3)
    assert calibrated(predictions, 1.0) is predictions


@pytest.mark.parametrize("scale", [0.8, 3.0, 10.0])  # of logits: a model that is too modest, and two too sure
@pytest.mark.parametrize("n", [30, 98])
def test_without_a_mistake_it_is_as_sure_as_that_many_right_answers_make_it(scale: float, n: int) -> None:
    labels = np.arange(n) % 2
    fit = fit_temperature(scale * np.eye(2)[labels], labels)
    # Laplace's rule of succession: n of n were right, so the next one is with (n + 1) / (n + 2)
    confidence = apply_temperature(scale * np.eye(2)[labels], fit.temperature).max(axis=1)
    assert confidence == pytest.approx((n + 1) / (n + 2), abs=2e-4)
    assert "no mistake" in fit.reason


def test_of_a_tiny_split_the_temperature_is_one_and_says_why() -> None:
    predictions = simulate(np.random.default_rng(0), n=FEWEST_EXAMPLES - 1, classes=5, groups=9)
    fit = fit_temperature(logits_of(predictions), predictions.labels)
    assert (fit.temperature, "too few" in fit.reason) == (1.0, True)


@pytest.mark.parametrize("classes", [2, 30])
def test_a_model_that_is_always_wrong_gets_the_bound_and_says_so(classes: int) -> None:
    labels = np.arange(90) % classes
    fit = fit_temperature(5.0 * np.eye(classes)[(labels + 1) % classes], labels)
    assert fit.temperature == HIGHEST
    assert "beyond 10" in fit.reason


def test_one_class_has_nothing_to_be_unsure_of() -> None:
    assert fit_temperature(np.zeros((50, 1)), np.zeros(50, np.int64)).temperature == 1.0


def test_a_probability_of_zero_stays_finite_and_small() -> None:
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([[1.0, 0.0]]))
    warm = apply_temperature(logs, 2.0)
    assert np.isfinite(warm).all()
    assert warm[0, 1] == pytest.approx(np.exp(SMALLEST_LOG / 2), rel=1e-5, abs=0)
    labels = np.arange(40) % 2
    never = np.where(np.eye(2)[labels] > 0, 0.0, -np.inf)
    never[0] = [-np.inf, 0.0]  # one answer that was sure and wrong
    assert 1.0 < fit_temperature(never, labels).temperature <= HIGHEST


@pytest.mark.parametrize(
    ("logits", "labels"), [(np.zeros(3), [0]), (np.zeros((3, 2)), [0]), (np.array([[np.nan, 0.0]]), [0])]
)
def test_what_is_no_table_of_logits_is_refused(logits: np.ndarray, labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"Expected logits \[n, classes\]"):
        fit_temperature(logits, np.array(labels))


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf])
def test_a_temperature_is_above_zero(temperature: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        apply_temperature(np.zeros((1, 2)), temperature)


def test_the_calibration_error_of_a_case_worked_by_hand() -> None:
    # Bin (13/15, 14/15]: 0.9 and 0.92, one of two right: gap |0.5 − 0.91|. Bin (8/15, 9/15]: 0.6, right: gap 0.4.
    confidences, correct = np.array([0.9, 0.92, 0.6]), np.array([True, False, True])
    assert expected_calibration_error(confidences, correct) == pytest.approx((2 * 0.41 + 1 * 0.4) / 3)
    bins = reliability_bins(confidences, correct)
    assert len(bins) == BINS
    assert [one.count for one in bins] == [0] * 8 + [1] + [0] * 4 + [2, 0]
    assert (bins[13].low, bins[13].high) == (13 / 15, 14 / 15)
    assert bins[13].accuracy == 0.5
    assert bins[13].confidence == pytest.approx(0.91)
    assert (bins[0].accuracy, bins[0].confidence) == (None, None)


def test_a_bin_holds_its_upper_end() -> None:
    assert bin_numbers(np.array([0.0, 1 / 15, 1.01 / 15, 3 / 15, 1.0])).tolist() == [0, 0, 1, 2, 14]


def test_the_calibration_error_of_a_model_that_is_right_as_often_as_it_says() -> None:
    correct = np.arange(100) < 80
    assert expected_calibration_error(np.full(100, 0.8), correct) == pytest.approx(0.0, abs=1e-12)
    assert expected_calibration_error(np.full(100, 1.0), correct) == pytest.approx(0.2)
