"""The numbers: what a set of predictions is worth. Pure arithmetic, no file, no TensorFlow.

    test = compute_metrics(predictions, classes)
    baseline = majority_baseline(manifest.splits["train"].per_class, predictions, classes)

What is here is cheap enough for every epoch; `scores.py` adds intervals, areas under curves and scores by group.

Every number but kappa is defined for every split. A diagnosis that no example of the split carries has no recall and
one that was never predicted has no precision: both are 0.0 here, beside their `support`. The averages leave such holes
out: `balanced_accuracy` is the mean recall of the diagnoses present, `macro_f1` the mean F1 of those present or
predicted. So a perfect model scores 1.0 on any split. Kappa compares with chance, and is None where chance would be
perfect too: where labels and answers are all of one class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score, confusion_matrix, precision_recall_fscore_support

from trainer.calibration import expected_calibration_error

# A class given probability zero costs this much and not infinity: one such example shouldn't hide all the others.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Predictions:
    """What a model said about a split, one row an example.

    `labels` is `[n] int64`, `probabilities` is `[n, classes] float32` with rows that sum to one.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]

    @property
    def answers(self) -> NDArray[np.int64]:
        """The most probable class of each example, the first of equals: `[n] int64`."""
        answers: NDArray[np.int64] = np.argmax(self.probabilities, axis=1).astype(np.int64)
        return answers

    @property
    def confidences(self) -> NDArray[np.float32]:
        """The probability of that class: `[n] float32`."""
        confidences: NDArray[np.float32] = np.max(self.probabilities, axis=1)
        return confidences


def compute_metrics(predictions: Predictions, classes: Sequence[str]) -> dict[str, Any]:
    """Every number of one split, ready for JSON; rows of `confusion_matrix` are the true classes.

    Raises `ValueError` for no examples, shapes or labels that don't fit `classes`, or probabilities that aren't finite.
    """
    _check(predictions, classes)
    labels, answers = predictions.labels, predictions.answers
    scores = _scores(labels, answers, classes)
    return {
        "n": len(labels),
        "groups": len(set(predictions.groups)),
        "accuracy": scores["accuracy"],
        "balanced_accuracy": scores["balanced_accuracy"],
        "macro_f1": scores["macro_f1"],
        "cohen_kappa": _kappa(labels, answers, classes, weights=None),
        "quadratic_kappa": _kappa(labels, answers, classes, weights="quadratic"),
        "log_loss": float(log_losses(predictions).mean()),
        "brier": float(brier_scores(predictions).mean()),
        "ece": expected_calibration_error(predictions.confidences, answers == labels),
        "confusion_matrix": scores["confusion_matrix"],
        "per_class": scores["per_class"],
    }


def log_losses(predictions: Predictions) -> NDArray[np.float64]:
    """Minus the logarithm of the probability of the truth, of each example: `[n] float64`."""
    probabilities = predictions.probabilities.astype(np.float64)
    chosen = probabilities[np.arange(len(predictions.labels)), predictions.labels]
    losses: NDArray[np.float64] = -np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0))
    return losses


def brier_scores(predictions: Predictions) -> NDArray[np.float64]:
    """The squared error summed over all classes, of each example: `[n] float64` from 0 to 2.

    As G. W. Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950),
    has it. Those who score two classes by the error of one of them get half of this.
    """
    errors = predictions.probabilities.astype(np.float64)
    errors[np.arange(len(predictions.labels)), predictions.labels] -= 1.0
    scores: NDArray[np.float64] = (errors**2).sum(axis=1)
    return scores


def majority_baseline(
    train_class_counts: Mapping[str, int], predictions: Predictions, classes: Sequence[str]
) -> dict[str, Any]:
    """What always answering the commonest class of the train split would score on the same examples.

    Of classes that are equally common the first counts. Raises `ValueError` as `compute_metrics` does.
    """
    _check(predictions, classes)
    answer = int(np.argmax([train_class_counts.get(name, 0) for name in classes]))
    scores = _scores(predictions.labels, np.full_like(predictions.labels, answer), classes)
    return {"answer": classes[answer]} | {key: scores[key] for key in ("accuracy", "balanced_accuracy", "macro_f1")}


def confident_mistakes(predictions: Predictions, limit: int) -> list[int]:
    """Rows of the `limit` wrong answers the model was surest of, surest first; equals in the order of their ids."""
    answers, confidences = predictions.answers, predictions.confidences
    wrong = [int(row) for row in np.flatnonzero(answers != predictions.labels)]
    return sorted(wrong, key=lambda row: (-float(confidences[row]), predictions.ids[row]))[:limit]


def least_certain(predictions: Predictions, limit: int) -> list[int]:
    """Rows of the `limit` examples whose two most probable classes are closest, closest first; equals by their ids."""
    if predictions.probabilities.shape[1] < 2:
        return []
    best = np.sort(predictions.probabilities, axis=1)
    margins = best[:, -1] - best[:, -2]
    return sorted(range(len(margins)), key=lambda row: (float(margins[row]), predictions.ids[row]))[:limit]


def wilson_interval(rate: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Where the true rate lies with 95 % confidence if `n` independent trials showed `rate`.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927) 209-212.
    """
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def _scores(labels: NDArray[np.int64], answers: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Any]:
    every = range(len(classes))
    confusion = confusion_matrix(labels, answers, labels=every)
    precision, recall, f1, support = precision_recall_fscore_support(labels, answers, labels=every, zero_division=0.0)
    present = support > 0
    return {
        "accuracy": float(np.trace(confusion) / len(labels)),
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[present | (confusion.sum(axis=0) > 0)].mean()),
        "confusion_matrix": [[int(count) for count in row] for row in confusion],
        "per_class": {
            name: {
                "precision": float(precision[index]),
                "recall": float(recall[index]),
                "f1": float(f1[index]),
                "support": int(support[index]),
            }
            for index, name in enumerate(classes)
        },
    }


def _kappa(
    labels: NDArray[np.int64], answers: NDArray[np.int64], classes: Sequence[str], *, weights: str | None
) -> float | None:
    """Agreement beyond chance. The quadratic one means something only if the order of `classes` does, as of grades."""
    if len(np.union1d(labels, answers)) < 2:
        return None
    return float(cohen_kappa_score(labels, answers, labels=range(len(classes)), weights=weights))


def _check(predictions: Predictions, classes: Sequence[str]) -> None:
    n, labels, probabilities = len(predictions.ids), predictions.labels, predictions.probabilities
    if n == 0:
        raise ValueError("There are no examples to score. To fix it: give the split at least one image.")
    if len(predictions.groups) != n or labels.shape != (n,) or probabilities.shape != (n, len(classes)):
        raise ValueError(
            f"Expected {n} groups, labels [{n}] and probabilities [{n}, {len(classes)}]. Received "
            f"{len(predictions.groups)} groups, labels {list(labels.shape)}, probabilities {list(probabilities.shape)}."
        )
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"Expected labels from 0 to {len(classes) - 1}. Received {labels.min()} to {labels.max()}.")
    broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if broken.size:
        raise ValueError(
            f"The model's answer for {predictions.ids[broken[0]]!r} and {broken.size - 1} more isn't a finite number. "
            "The training has diverged. To fix it: lower the learning rate or use an earlier checkpoint."
        )
