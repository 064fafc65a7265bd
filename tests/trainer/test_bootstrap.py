"""Intervals by resampling groups: exactly what scikit-learn says of each resample, and as wide as they should be."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from tests.trainer.simulated import repeated, simulate
from trainer.bootstrap import difference_interval, group_numbers, percentile_interval, rate_interval, resamples
from trainer.calibration import expected_calibration_error
from trainer.metrics import Predictions
from trainer.weighted_areas import Ranking
from trainer.weighted_scores import Tally


def brute_force(predictions: Predictions, classes: int) -> dict[str, float | list[float]]:
    """What scikit-learn says of these examples; NaN where it, or a class, says nothing."""
    labels, answers, every = predictions.labels, predictions.answers, range(classes)
    probabilities = predictions.probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    carried = [(labels == one) for one in every]
    part = [bool(some.any() and not some.all()) for some in carried]
    present = sorted({*labels.tolist(), *answers.tolist()})
    scores = list(zip(carried, predictions.probabilities.T, part, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": accuracy_score(labels, answers),
            "balanced_accuracy": balanced_accuracy_score(labels, answers),
            "macro_f1": f1_score(labels, answers, labels=present, average="macro", zero_division=0.0),
            "cohen_kappa": cohen_kappa_score(labels, answers, labels=every),
            "quadratic_kappa": cohen_kappa_score(labels, answers, labels=every, weights="quadratic"),
            "log_loss": log_loss(labels, probabilities, labels=every),
            "brier": brier_score_loss(labels, probabilities, labels=every, scale_by_half=False),
            "ece": expected_calibration_error(predictions.confidences, answers == labels),
            "recall": recall_score(labels, answers, labels=every, average=None, zero_division=np.nan).tolist(),
            "precision": precision_score(labels, answers, labels=every, average=None, zero_division=np.nan).tolist(),
            "roc_auc": [roc_auc_score(some, score) if both else np.nan for some, score, both in scores],
            "average_precision": [
                average_precision_score(some, score) if both else np.nan for some, score, both in scores
            ],
        }


@pytest.mark.parametrize(("n", "classes", "groups"), [(60, 2, 6), (90, 4, 25), (40, 30, 9), (12, 3, 2)])
def test_weights_say_what_scikit_learn_says_of_the_repeated_examples(n: int, classes: int, groups: int) -> None:
    predictions = simulate(np.random.default_rng(n), n=n, classes=classes, groups=groups)
    rounded = np.maximum(np.round(predictions.probabilities, 1), np.float32(0.05))  # many equal scores
    predictions = Predictions(
        predictions.ids, predictions.groups, predictions.labels, rounded / rounded.sum(axis=1, keepdims=True)
    )
    _, found = group_numbers(predictions.groups)
    counts = np.concatenate(list(resamples(found, seed=1, draws=8)))
    scores = Tally.of(predictions, range(classes)).scores(counts) | Ranking.of(predictions).areas(counts)  # type: ignore[arg-type]
    for draw, row in enumerate(counts):
        for name, value in brute_force(repeated(predictions, row), classes).items():
            np.testing.assert_allclose(scores[name][draw], value, rtol=0, atol=1e-6, err_msg=f"{name} of draw {draw}")


def test_resamples_are_the_same_however_many_come_at_once() -> None:
    together = np.concatenate(list(resamples(7, seed=3, draws=50)))
    one_by_one = list(resamples(7, seed=3, draws=50, width=2_000_000))
    assert len(one_by_one) == 50
    assert np.array_equal(together, np.concatenate(one_by_one))
    assert (together.sum(axis=1) == 7).all()
    assert not np.array_equal(together, np.concatenate(list(resamples(7, seed=4, draws=50))))


def test_a_group_is_drawn_as_often_as_chance_would() -> None:
    counts = np.concatenate(list(resamples(20, seed=0, draws=4000)))
    assert counts.mean(axis=0) == pytest.approx(np.ones(20), abs=0.08)
    assert counts.var(axis=0) == pytest.approx(np.full(20, 0.95), abs=0.12)


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_interval_holds_the_true_accuracy_95_times_of_100(alike: float) -> None:
    # 40 groups of about 8 examples that are right with the probability of their group.
    random, truth, held = np.random.default_rng(5), 0.7, 0
    for trial in range(300):
        chance = random.beta(truth, 1 - truth, 40) if alike else np.full(40, truth)
        sizes = random.integers(4, 13, 40)
        right = random.binomial(sizes, chance)
        counts = np.concatenate(list(resamples(40, seed=trial, draws=400)))
        interval = percentile_interval(counts @ right / (counts @ sizes))
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert 0.91 <= held / 300 <= 0.98  # images drawn alone hold it 60 times of 100 where groups are alike


def test_the_middle_95_percent_is_taken() -> None:
    assert percentile_interval(np.arange(1001.0)) == [25.0, 975.0]


def test_draws_without_the_score_are_left_out_unless_they_are_most() -> None:
    some = np.array([np.nan, 1.0, 2.0, 3.0])
    assert percentile_interval(some) == percentile_interval(some[1:])
    few = np.array([np.nan, np.nan, np.nan, 1.0, 2.0])
    assert percentile_interval(few) is None
    assert difference_interval(few) is None


def test_a_rate_that_never_failed_is_as_uncertain_as_its_groups_are_few() -> None:
    always = np.ones(100)
    assert percentile_interval(always) is None
    assert rate_interval(always, 1.0, groups=10) == pytest.approx([0.7225, 1.0], abs=5e-5)
    assert rate_interval(always, 1.0, groups=1) is None
    assert rate_interval(np.full(100, np.nan), None, groups=5) is None
    assert difference_interval(np.zeros(100)) == [0.0, 0.0]
