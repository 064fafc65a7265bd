"""All that a report says of a split: scores with 95 % intervals, areas under curves, the same by group. Pure.

    test = split_scores(predictions, classes, groups_known=True, uncalibrated=before_temperature)
    test["intervals"]["balanced_accuracy"]                          # [0.71, 0.86]
    paired_difference(cnn, baseline, classes, metric="accuracy")    # {"value": 0.04, "interval": [-0.01, 0.09]}

Everything is ready for JSON: what isn't defined is None, never NaN. The log loss, Brier's score and the calibration
error rise when an example is doubled rather than replaced by another like it, the last one most: of a small split its
interval may lie above the score itself, and is best read as how bad it may be.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.bootstrap import (
    FEWEST_GROUPS,
    RESAMPLES,
    Interval,
    difference_interval,
    percentile_interval,
    rate_interval,
    resamples,
)
from trainer.curves import areas
from trainer.groups_scored import by_group
from trainer.metrics import Predictions, compute_metrics, wilson_interval
from trainer.weighted_areas import Ranking
from trainer.weighted_scores import Tally, mean_of_defined

PROPER = ("log_loss", "brier", "ece")  # of probabilities, not of answers
SCORES = ("accuracy", "balanced_accuracy", "macro_f1", "cohen_kappa", "quadratic_kappa", *PROPER)
AREAS = ("roc_auc", "average_precision")


def split_scores(
    predictions: Predictions,
    classes: Sequence[str],
    *,
    groups_known: bool,
    uncalibrated: Predictions | None = None,
    seed: int = 0,
    draws: int = RESAMPLES,
) -> dict[str, Any]:
    """Every score of a split, as `metrics.json` has it.

    With `groups_known` also those of its groups, under `by_group`. `uncalibrated` are the same predictions before
    temperature scaling. Raises `ValueError` as `compute_metrics` does.
    """
    scores = scores_with_intervals(predictions, classes, seed=seed, draws=draws)
    if uncalibrated is not None:
        before = compute_metrics(uncalibrated, classes)
        scores["uncalibrated"] = {name: before[name] for name in PROPER}
    scored = by_group(predictions) if groups_known else None
    scores["by_group"] = scored and (
        scores_with_intervals(scored.predictions, classes, seed=seed, draws=draws) | {"mixed": scored.mixed}
    )
    return scores


def scores_with_intervals(
    predictions: Predictions, classes: Sequence[str], *, seed: int = 0, draws: int = RESAMPLES, with_areas: bool = True
) -> dict[str, Any]:
    """The scores of these predictions and their intervals.

    Of 5,000 examples in 300 groups and 7 classes that takes 0.8 s of CPU time, nearly all for the areas; 7 s of 20,000
    examples and 30 classes.
    """
    scores = compute_metrics(predictions, classes)
    for name, row in scores["per_class"].items():
        said = sum(counts[list(classes).index(name)] for counts in scores["confusion_matrix"])
        row["recall"] = row["recall"] if row["support"] else None
        row["precision"] = row["precision"] if said else None
        row["f1"] = row["f1"] if row["support"] or said else None
    if with_areas:
        for index, row in enumerate(scores["per_class"].values()):
            row["roc_auc"], row["average_precision"] = areas(predictions, index)
        for area in AREAS:
            defined = [row[area] for row in scores["per_class"].values() if row[area] is not None]
            scores[area] = float(np.mean(defined)) if defined else None
    scores["intervals"] = _intervals(predictions, classes, scores, seed=seed, draws=draws, with_areas=with_areas)
    return scores


def paired_difference(
    a: Predictions,
    b: Predictions,
    classes: Sequence[str],
    *,
    metric: str = "accuracy",
    seed: int = 0,
    draws: int = RESAMPLES,
) -> dict[str, Any]:
    """How much `a` scores above `b` in one of `SCORES`, and the interval of that; see `paired_differences`."""
    return paired_differences(a, b, classes, metrics=(metric,), seed=seed, draws=draws)[metric]


def paired_differences(
    a: Predictions,
    b: Predictions,
    classes: Sequence[str],
    *,
    metrics: Sequence[str] = ("accuracy", "balanced_accuracy"),
    seed: int = 0,
    draws: int = RESAMPLES,
) -> dict[str, dict[str, Any]]:
    """How much `a` scores above `b` on the same examples, in any order: `value` and `interval` of each metric.

    Both are scored on the same draws of the groups of `a`, so what is hard for both doesn't count as a difference.
    Raises `ValueError` if they aren't of the same ids and labels.
    """
    b = _in_order_of(a, b)
    of_a, of_b = compute_metrics(a, classes), compute_metrics(b, classes)
    tallies = Tally.of(a, classes), Tally.of(b, classes)
    drawn: dict[str, list[NDArray[np.float64]]] = {name: [] for name in metrics}
    if tallies[0].groups >= FEWEST_GROUPS:
        for counts in resamples(tallies[0].groups, seed=seed, draws=draws):
            ours, theirs = (tally.scores(counts) for tally in tallies)
            for name in metrics:
                drawn[name].append(ours[name] - theirs[name])
    return {
        name: {
            "value": None if None in (of_a[name], of_b[name]) else of_a[name] - of_b[name],
            "interval": difference_interval(np.concatenate(values)) if values else None,
        }
        for name, values in drawn.items()
    }


def _in_order_of(a: Predictions, b: Predictions) -> Predictions:
    places = {name: place for place, name in enumerate(b.ids)}
    if len(places) != len(b.ids) or len(a.ids) != len(b.ids) or set(a.ids) != set(places):
        alone = sorted(set(a.ids) ^ set(places))[:3]
        raise ValueError(f"Expected predictions of the same ids, each once. Only one of both has {alone}.")
    order = np.array([places[name] for name in a.ids], np.int64)
    if not np.array_equal(a.labels, b.labels[order]):
        wrong = a.ids[int(np.flatnonzero(a.labels != b.labels[order])[0])]
        raise ValueError(f"Expected the same label for an id in both. {wrong!r} has two.")
    return Predictions(a.ids, a.groups, a.labels, b.probabilities[order])


def _intervals(
    predictions: Predictions,
    classes: Sequence[str],
    scores: dict[str, Any],
    *,
    seed: int,
    draws: int,
    with_areas: bool,
) -> dict[str, Any]:
    tally = Tally.of(predictions, classes)
    named = [*SCORES, *(AREAS if with_areas else ())]
    if tally.groups < FEWEST_GROUPS:
        nothing: dict[str, Any] = dict.fromkeys(named)
        return nothing | {name: dict.fromkeys(classes) for name in ("recall", "precision")}
    drawn = _drawn(predictions, tally, seed=seed, draws=draws, with_areas=with_areas)
    found: dict[str, Any] = {name: percentile_interval(drawn[name]) for name in named}
    found["accuracy"] = rate_interval(drawn["accuracy"], scores["accuracy"], groups=tally.groups)
    for name, counts in zip(("recall", "precision"), tally.groups_with(), strict=True):
        found[name] = {
            label: rate_interval(drawn[name][:, i], scores["per_class"][label][name], groups=int(counts[i]))
            for i, label in enumerate(classes)
        }
    found["balanced_accuracy"] = found["balanced_accuracy"] or _of_all_or_none(scores, tally)
    return found


def _drawn(
    predictions: Predictions, tally: Tally, *, seed: int, draws: int, with_areas: bool
) -> dict[str, NDArray[np.float64]]:
    """All scores of all draws. The draws of the scores and of the areas are the same ones."""
    ranking = Ranking.of(predictions) if with_areas else None
    parts = []
    width = len(predictions.ids) if ranking else 0
    for counts in resamples(tally.groups, seed=seed, draws=draws, width=width):
        part = tally.scores(counts)
        if ranking:
            part |= {name: mean_of_defined(values) for name, values in ranking.areas(counts).items()}
        parts.append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _of_all_or_none(scores: dict[str, Any], tally: Tally) -> Interval:
    """For a balanced accuracy of 1 or 0, on which all draws agree: the mean of Wilson's intervals of the recalls."""
    if 0 < scores["balanced_accuracy"] < 1:
        return None
    carrying, _ = tally.groups_with()
    each = np.array([wilson_interval(scores["balanced_accuracy"], int(n)) for n in carrying if n])
    low, high = each.mean(axis=0)
    return [float(low), float(high)]
