"""All scores of a split: golden models, JSON whatever the split looks like, intervals and paired differences."""

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from tests.trainer.simulated import answering, repeated, simulate, softmax
from trainer.bootstrap import resamples
from trainer.metrics import Predictions
from trainer.scores import SCORES, paired_difference, paired_differences, scores_with_intervals, split_scores

NAMES = tuple(f"class {one:02}" for one in range(30))
ALL = {*SCORES, "roc_auc", "average_precision"}


def scored(predictions: Predictions, **options: Any) -> dict[str, Any]:
    names = NAMES[: predictions.probabilities.shape[1]]
    with warnings.catch_warnings():
        # scikit-learn wonders about a single class, which no dataset has.
        warnings.simplefilter("error" if len(names) > 1 else "ignore")
        found = split_scores(predictions, names, **({"groups_known": True, "draws": 200} | options))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def test_a_perfect_model_scores_one_everywhere_and_loses_nothing() -> None:
    predictions = simulate(np.random.default_rng(0), n=120, classes=4, groups=30)
    perfect = scored(answering(predictions, predictions.labels))
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "cohen_kappa", "quadratic_kappa"):
        assert perfect[name] == 1.0, name
    assert (perfect["roc_auc"], perfect["average_precision"]) == (1.0, 1.0)
    assert [perfect[name] for name in ("log_loss", "brier", "ece")] == [0.0, 0.0, 0.0]
    assert {row[key] for row in perfect["per_class"].values() for key in row if key != "support"} == {1.0}
    # Nothing went wrong, but 30 groups can't show that nothing will.
    low, high = perfect["intervals"]["accuracy"]
    assert (0.85 < low < 0.95, high) == (True, 1.0)
    assert perfect["intervals"]["balanced_accuracy"][0] < 0.9
    assert perfect["intervals"]["macro_f1"] is None


def test_a_random_model_scores_what_theory_says() -> None:
    random = np.random.default_rng(1)
    predictions = simulate(random, n=30_000, classes=5, groups=30_000, skill=0.0)
    found = scored(predictions, draws=100)
    for name, theory in {"accuracy": 1 / 5, "balanced_accuracy": 1 / 5, "macro_f1": 1 / 5, "roc_auc": 1 / 2}.items():
        assert found[name] == pytest.approx(theory, abs=0.01), name
    assert found["cohen_kappa"] == pytest.approx(0, abs=0.01)
    assert found["quadratic_kappa"] == pytest.approx(0, abs=0.02)
    assert found["average_precision"] == pytest.approx(1 / 5, abs=0.01)


def test_a_model_that_always_says_the_shares_scores_what_theory_says() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    shares = np.tile(np.array([0.6, 0.3, 0.1], np.float32), (100, 1))
    ids = tuple(str(row) for row in range(100))
    found = scored(Predictions(ids, ids, labels, shares))
    assert found["accuracy"] == pytest.approx(0.6)
    assert found["balanced_accuracy"] == pytest.approx(1 / 3)
    assert found["macro_f1"] == pytest.approx(2 * 0.6 / 1.6 / 3)
    assert (found["cohen_kappa"], found["quadratic_kappa"]) == (0.0, 0.0)
    assert found["log_loss"] == pytest.approx(-sum(p * np.log(p) for p in (0.6, 0.3, 0.1)), rel=1e-6)
    assert found["brier"] == pytest.approx(1 - (0.36 + 0.09 + 0.01), rel=1e-6)
    assert found["ece"] == pytest.approx(0, abs=1e-6)
    assert (found["roc_auc"], found["average_precision"]) == (0.5, pytest.approx(1 / 3))
    assert found["intervals"]["precision"]["class 01"] is None


def test_permuted_labels_score_chance_within_the_interval() -> None:
    held = []
    for seed in range(20):
        random = np.random.default_rng(seed)
        good = simulate(random, n=400, classes=4, groups=400, skill=3.0)
        permuted = scored(replace(good, labels=random.permutation(good.labels)), groups_known=False)
        for name, chance in {"balanced_accuracy": 1 / 4, "roc_auc": 1 / 2, "cohen_kappa": 0}.items():
            low, high = permuted["intervals"][name]
            held.append(low <= chance <= high)
    assert sum(held) >= 0.85 * len(held)


def test_an_interval_holds_its_score_and_is_wider_where_images_of_a_group_are_alike() -> None:
    alone, alike = (
        simulate(np.random.default_rng(2), n=2000, classes=4, groups=40, alike=alike) for alike in (0.0, 0.9)
    )
    widths = []
    for predictions in (alone, alike):
        found = scored(predictions)
        for name in ALL - {"ece"}:
            low, high = found["intervals"][name]
            assert low < found[name] < high, name
        for name in NAMES[:4]:
            low, high = found["intervals"]["recall"][name]
            assert low < found["per_class"][name]["recall"] < high
        low, high = found["intervals"]["accuracy"]
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_more_groups_make_narrower_intervals_and_more_images_of_them_hardly_do() -> None:
    def width(n: int, groups: int) -> float:
        low, high = scored(simulate(np.random.default_rng(3), n=n, classes=3, groups=groups, alike=1.0))["intervals"][
            "accuracy"
        ]
        return float(high - low)

    assert width(3200, 160) < 0.7 * width(800, 40)
    assert width(3200, 40) > 0.7 * width(800, 40)


def test_equal_input_gives_equal_scores_and_another_seed_other_intervals() -> None:
    predictions = simulate(np.random.default_rng(0), n=100, classes=3, groups=20)
    assert scored(predictions) == scored(predictions)
    assert scored(predictions, seed=1)["intervals"] != scored(predictions)["intervals"]
    backwards = Predictions(
        predictions.ids[::-1], predictions.groups[::-1], predictions.labels[::-1], predictions.probabilities[::-1]
    )
    assert scored(backwards)["intervals"]["accuracy"] == scored(predictions)["intervals"]["accuracy"]


@pytest.mark.parametrize("classes", [1, 2, 3, 30])
@pytest.mark.parametrize(("n", "groups"), [(1, 1), (2, 2), (7, 1), (40, 8)])
def test_any_split_gives_every_key_and_no_nan(n: int, groups: int, classes: int) -> None:
    found = scored(simulate(np.random.default_rng(n), n=n, classes=classes, groups=groups))
    assert set(found) >= ALL
    assert set(found["intervals"]) == {*ALL, "recall", "precision"}
    assert set(found["per_class"]) == set(NAMES[:classes])
    if found["groups"] < 2:
        assert {found["intervals"][name] for name in ALL} == {None}
        assert found["by_group"] is None


def test_what_is_not_defined_is_null() -> None:
    labels, answers = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 2])
    ids = tuple("abcd")
    found = scored(
        Predictions(
            ids,
            ids,
            labels,
            answering(simulate(np.random.default_rng(0), n=4, classes=4, groups=4), answers).probabilities,
        )
    )
    rows = found["per_class"]
    assert (rows["class 01"]["recall"], rows["class 01"]["precision"], rows["class 01"]["f1"]) == (0.0, None, 0.0)
    assert (rows["class 02"]["recall"], rows["class 02"]["precision"], rows["class 02"]["f1"]) == (None, 0.0, 0.0)
    nothing = {"precision": None, "recall": None, "f1": None, "support": 0, "roc_auc": None, "average_precision": None}
    assert rows["class 03"] == nothing
    assert found["intervals"]["recall"]["class 03"] is None
    assert found["balanced_accuracy"] == 0.5
    assert found["roc_auc"] == pytest.approx(np.mean([rows["class 00"]["roc_auc"], rows["class 01"]["roc_auc"]]))


def test_a_class_of_one_group_has_no_interval() -> None:
    predictions = simulate(np.random.default_rng(0), n=60, classes=3, groups=12)
    alone = np.array([group == "slide-003" for group in predictions.groups])
    found = scored(replace(predictions, labels=np.where(alone, 2, predictions.labels % 2)))
    assert found["intervals"]["recall"]["class 02"] is None
    assert found["intervals"]["recall"]["class 01"] is not None


def test_groups_have_the_same_scores_counted_in_groups() -> None:
    predictions = simulate(np.random.default_rng(0), n=200, classes=3, groups=20)
    number = np.array([int(group[-3:]) for group in predictions.groups])
    labels = np.where(number < 2, predictions.labels, number % 3)  # the first two groups carry several diagnoses
    found = scored(replace(predictions, labels=labels), uncalibrated=predictions)
    groups = found["by_group"]
    assert (groups["n"], groups["groups"], groups["mixed"]) == (18, 18, 2)
    assert set(groups) == set(found) - {"by_group", "uncalibrated"} | {"mixed"}
    assert set(groups["intervals"]) == set(found["intervals"])
    assert scored(predictions, groups_known=False)["by_group"] is None


def test_the_scores_before_temperature_scaling_stand_beside() -> None:
    predictions = simulate(np.random.default_rng(0), n=200, classes=3, groups=20)
    before = replace(predictions, probabilities=softmax(3 * np.log(predictions.probabilities)))
    found = scored(predictions, uncalibrated=before)
    assert set(found["uncalibrated"]) == {"log_loss", "brier", "ece"}
    assert found["uncalibrated"]["log_loss"] > found["log_loss"]
    assert "uncalibrated" not in scored(predictions)


def test_a_paired_difference_is_the_difference_on_each_resample() -> None:
    random = np.random.default_rng(4)
    a = simulate(random, n=150, classes=3, groups=15, skill=2.0)
    b = replace(a, probabilities=simulate(random, n=150, classes=3, groups=15).probabilities)
    found = paired_difference(a, b, NAMES[:3], metric="balanced_accuracy", draws=50)
    values = []
    for counts in resamples(15, seed=0, draws=50):
        for row in counts:
            ours, theirs = repeated(a, row), repeated(b, row)
            values.append(
                balanced_accuracy_score(ours.labels, ours.answers)
                - balanced_accuracy_score(theirs.labels, theirs.answers)
            )
    assert found["interval"] == pytest.approx(np.percentile(values, [2.5, 97.5]).tolist())
    assert found["value"] == pytest.approx(
        balanced_accuracy_score(a.labels, a.answers) - balanced_accuracy_score(b.labels, b.answers)
    )


def test_a_difference_knows_no_order_of_the_examples_and_turns_its_sign() -> None:
    random = np.random.default_rng(5)
    a = simulate(random, n=80, classes=3, groups=10, skill=2.0)
    b = replace(a, probabilities=simulate(random, n=80, classes=3, groups=10).probabilities)
    mixed = random.permutation(80)
    shuffled = Predictions(
        tuple(b.ids[row] for row in mixed),
        tuple(b.groups[row] for row in mixed),
        b.labels[mixed],
        b.probabilities[mixed],
    )
    there, back = paired_differences(a, shuffled, NAMES[:3]), paired_differences(b, a, NAMES[:3])
    assert there == paired_differences(a, b, NAMES[:3])
    low, high = there["accuracy"]["interval"]
    assert back["accuracy"]["value"] == -there["accuracy"]["value"]
    assert back["accuracy"]["interval"] == pytest.approx([-high, -low])


def test_the_same_model_differs_by_nothing() -> None:
    a = simulate(np.random.default_rng(0), n=80, classes=3, groups=10)
    assert paired_difference(a, a, NAMES[:3]) == {"value": 0.0, "interval": [0.0, 0.0]}


def test_what_is_hard_for_both_is_no_difference() -> None:
    random = np.random.default_rng(6)
    a = simulate(random, n=600, classes=3, groups=30, alike=0.9)
    b = replace(a, probabilities=softmax(np.log(a.probabilities) + random.normal(0, 0.1, (600, 3))))
    low, high = paired_difference(a, b, NAMES[:3])["interval"]
    alone = scores_with_intervals(a, NAMES[:3])["intervals"]["accuracy"]
    assert high - low < 0.4 * (alone[1] - alone[0])


def test_one_group_has_a_difference_without_an_interval() -> None:
    a = simulate(np.random.default_rng(0), n=9, classes=3, groups=1)
    assert paired_difference(a, a, NAMES[:3])["interval"] is None


def test_predictions_of_other_images_or_labels_can_t_be_paired() -> None:
    a = simulate(np.random.default_rng(0), n=9, classes=3, groups=3)
    with pytest.raises(ValueError, match=r"same ids.*other\.png"):
        paired_difference(a, replace(a, ids=("other.png", *a.ids[1:])), NAMES[:3])
    with pytest.raises(ValueError, match="same ids"):
        paired_difference(a, replace(a, ids=(a.ids[1], *a.ids[1:])), NAMES[:3])
    with pytest.raises(ValueError, match=r"00000\.png' has two"):
        paired_difference(a, replace(a, labels=np.append((a.labels[0] + 1) % 3, a.labels[1:])), NAMES[:3])
