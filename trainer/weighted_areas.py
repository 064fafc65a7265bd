"""The areas under one-vs-rest curves of many resamples of a split at once. Pure arithmetic.

    for counts in resamples(groups, seed=0, width=len(predictions.ids)):
        areas = Ranking.of(predictions).areas(counts)     # {"roc_auc": [draws, classes], "average_precision": …}

A class's examples are put into order once. After that a resample is a set of weights, and both areas are sums over the
examples of the class: of the share of the others that lie below (half of those level), and of the precision there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.bootstrap import group_numbers, ratio
from trainer.metrics import Predictions


@dataclass(frozen=True)
class _Class:
    """One class against the rest, examples in ascending order of their probability.

    `positive` and `negative` hold the groups of the examples with and without the class. For each positive one:
    `negative_below` and `negative_level` count the negatives below it, and with those level, `positive_below` the
    positives below.
    """

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]
    negative_below: NDArray[np.int64]
    negative_level: NDArray[np.int64]
    positive_below: NDArray[np.int64]


@dataclass(frozen=True)
class Ranking:
    """The order of a split's examples by each class's probability."""

    classes: tuple[_Class, ...]

    @classmethod
    def of(cls, predictions: Predictions) -> "Ranking":
        """The order of these predictions; groups are those of `group_numbers`."""
        numbers, _ = group_numbers(predictions.groups)
        columns = predictions.probabilities.T
        return cls(tuple(_class(column, predictions.labels == i, numbers) for i, column in enumerate(columns)))

    def areas(self, counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """`roc_auc` and `average_precision`, each `[draws, classes]`, NaN for a class that all carry or none does."""
        found = [_areas(one, counts) for one in self.classes]
        return {
            "roc_auc": np.stack([area for area, _ in found], axis=1),
            "average_precision": np.stack([precision for _, precision in found], axis=1),
        }


def _class(scores: NDArray[np.float32], carried: NDArray[np.bool_], groups: NDArray[np.int64]) -> _Class:
    order = np.argsort(scores, kind="stable")
    scores, carried, groups = scores[order], carried[order], groups[order]
    with_it, without = scores[carried], scores[~carried]
    return _Class(
        positive=groups[carried],
        negative=groups[~carried],
        negative_below=np.searchsorted(without, with_it, side="left"),
        negative_level=np.searchsorted(without, with_it, side="right"),
        positive_below=np.searchsorted(with_it, with_it, side="left"),
    )


def _areas(one: _Class, counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both areas of one class, `[draws]` each."""
    weights = counts[:, one.positive]
    negatives, positives = _sums(counts[:, one.negative]), _sums(weights)
    below = negatives[:, one.negative_below]
    level = negatives[:, one.negative_level]
    carried, rest = positives[:, -1], negatives[:, -1]
    area = ratio(np.einsum("dp,dp->d", weights, below + level) / 2, carried * rest)
    # Who draws the line at a positive example takes those level with it too.
    taken = carried[:, None] - positives[:, one.positive_below]
    precision = ratio(taken, taken + rest[:, None] - below)
    mean_precision = ratio(np.nansum(weights * precision, axis=1), carried)
    return area, np.where(rest > 0, mean_precision, np.nan)


def _sums(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weight of all before each place, and of all: `[draws, places]` → `[draws, places + 1]`."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1))
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums
