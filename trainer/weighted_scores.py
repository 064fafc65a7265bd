"""The scores of many resamples of a split at once, from sums over its groups. Pure arithmetic.

    tally = Tally.of(predictions, classes)
    scores = tally.scores(counts)      # counts [draws, groups] → {"accuracy": [draws], "recall": [draws, classes], …}

Drawing a group twice adds its confusion matrix twice. So a resample is a weighted sum of the groups' matrices, and all
of them are one product of matrices; each score is worked out from the sum as `compute_metrics` would from the examples.
A score that a resample can't have is NaN.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array  # type: ignore[import-untyped]

from trainer.bootstrap import group_numbers, ratio
from trainer.calibration import BINS, bin_numbers
from trainer.metrics import Predictions, brier_scores, log_losses

Scores = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Tally:
    """Sums over each group: `confusion [groups, classes²]`, `losses [groups, 2 + 2 × BINS]`, both sparse.

    Of the losses the first column is the log loss, the second Brier's; then come for each bin the confidences, and the
    right answers, of its examples.
    """

    confusion: Any
    losses: Any
    classes: int
    groups: int

    @classmethod
    def of(cls, predictions: Predictions, classes: Sequence[str]) -> "Tally":
        """The sums of these predictions; as many rows as `group_numbers` finds groups."""
        numbers, groups = group_numbers(predictions.groups)
        labels, answers, confidences = predictions.labels, predictions.answers, predictions.confidences
        ones, bins = np.ones(len(labels)), bin_numbers(confidences)
        columns = [np.zeros_like(bins), np.ones_like(bins), 2 + bins, 2 + BINS + bins]
        values = [log_losses(predictions), brier_scores(predictions), confidences.astype(np.float64), answers == labels]
        return cls(
            confusion=_summed(numbers, labels * len(classes) + answers, ones, (groups, len(classes) ** 2)),
            losses=_summed(
                np.tile(numbers, 4), np.concatenate(columns), np.concatenate(values), (groups, 2 + 2 * BINS)
            ),
            classes=len(classes),
            groups=groups,
        )

    def scores(self, counts: NDArray[np.float64]) -> Scores:
        """Every score of each draw: `[draws]`, and `[draws, classes]` for `recall` and `precision`."""
        confusion = (counts @ self.confusion).reshape(len(counts), self.classes, self.classes)
        losses = counts @ self.losses
        n = confusion.sum(axis=(1, 2))
        sure, right = losses[:, 2 : 2 + BINS], losses[:, 2 + BINS :]
        return _of_confusion(confusion, n) | {
            "log_loss": ratio(losses[:, 0], n),
            "brier": ratio(losses[:, 1], n),
            "ece": ratio(np.abs(sure - right).sum(axis=1), n),
        }

    def groups_with(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many groups carry each class, and how many were given each: two of `[classes] int64`."""
        shaped = self.confusion.toarray().reshape(-1, self.classes, self.classes)
        return (shaped.sum(axis=2) > 0).sum(axis=0), (shaped.sum(axis=1) > 0).sum(axis=0)


def _of_confusion(confusion: NDArray[np.float64], n: NDArray[np.float64]) -> Scores:
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    carried, answered = confusion.sum(axis=2), confusion.sum(axis=1)
    recall, f1 = ratio(hits, carried), ratio(2 * hits, carried + answered)
    return {
        "accuracy": ratio(hits.sum(axis=1), n),
        "balanced_accuracy": mean_of_defined(recall),
        "macro_f1": mean_of_defined(f1),
        "cohen_kappa": _kappa(confusion, carried, answered, n, power=0),
        "quadratic_kappa": _kappa(confusion, carried, answered, n, power=2),
        "recall": recall,
        "precision": ratio(hits, answered),
    }


def mean_of_defined(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the values of a row that aren't NaN: `[draws, classes]` → `[draws]`, NaN if none is defined."""
    return ratio(np.nansum(values, axis=1), (~np.isnan(values)).sum(axis=1))


def _kappa(
    confusion: NDArray[np.float64],
    carried: NDArray[np.float64],
    answered: NDArray[np.float64],
    n: NDArray[np.float64],
    *,
    power: int,
) -> NDArray[np.float64]:
    """1 − seen / expected disagreement, each weighted by the distance of the classes to this power."""
    every = np.arange(confusion.shape[1], dtype=np.float64)
    apart = np.abs(every[:, None] - every)
    weights = np.where(apart > 0, apart**power, 0.0)
    expected = np.einsum("di,ij,dj->d", carried, weights, answered, optimize=True)
    return 1.0 - ratio(np.einsum("dij,ij->d", confusion, weights) * n, expected)


def _summed(
    rows: NDArray[np.int64], columns: NDArray[np.int64], values: NDArray[Any], shape: tuple[int, int]
) -> csr_array:
    """Values with their places, those of the same place added up, as a sparse matrix."""
    return csr_array((values.astype(np.float64), (rows, columns)), shape=shape)
