"""One-vs-rest curves of a split: every threshold there is, thinned to what a drawing can show. Pure arithmetic.

    curves = one_vs_rest_curves(predictions, classes)
    curves["benign"].roc.x, curves["benign"].roc.y, curves["benign"].roc.area      # None for a class no example carries
    reliability(predictions)                                                       # bins of the reliability diagram

Points that are left out change no area: areas are worked out before. Those that stay are real operating points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from trainer.calibration import Bin, reliability_bins
from trainer.metrics import Predictions

POINTS = 200


@dataclass(frozen=True, slots=True)
class Curve:
    """Points from left to right, and the area under the curve with all its points."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    area: float


@dataclass(frozen=True, slots=True)
class ClassCurves:
    """One class against the rest.

    `roc` is the true by the false positive rate. `precision_recall` is precision by recall, a staircase whose area is
    the average precision; `prevalence` is the precision of guessing.
    """

    roc: Curve
    precision_recall: Curve
    prevalence: float


def one_vs_rest_curves(predictions: Predictions, classes: Sequence[str]) -> dict[str, ClassCurves | None]:
    """The curves of each class; None where the split has no example of it, or no other."""
    return {name: _curves(predictions, index) for index, name in enumerate(classes)}


def areas(predictions: Predictions, index: int) -> tuple[float | None, float | None]:
    """ROC AUC and average precision of one class, None where the split has no example of it, or no other."""
    carried, scores = predictions.labels == index, predictions.probabilities[:, index]
    if carried.all() or not carried.any():
        return None, None
    return float(roc_auc_score(carried, scores)), float(average_precision_score(carried, scores))


def reliability(predictions: Predictions) -> tuple[Bin, ...]:
    """The bins of the reliability diagram, from the least sure to the surest."""
    return reliability_bins(predictions.confidences, predictions.answers == predictions.labels)


def thinned(x: NDArray[Any], y: NDArray[Any], points: int = POINTS) -> NDArray[np.int64]:
    """Which of the points `[n]` to show: all, or `points` of them, evenly along the curve, with its ends."""
    if len(x) <= points:
        return np.arange(len(x))
    way = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    return np.unique(np.searchsorted(way, np.linspace(0.0, way[-1], points))).astype(np.int64)


def _curves(predictions: Predictions, index: int) -> ClassCurves | None:
    roc_area, average_precision = areas(predictions, index)
    if roc_area is None or average_precision is None:
        return None
    carried, scores = predictions.labels == index, predictions.probabilities[:, index]
    false_rate, true_rate, _ = roc_curve(carried, scores)
    precision, recall, _ = precision_recall_curve(carried, scores, drop_intermediate=True)
    return ClassCurves(
        roc=_curve(false_rate, true_rate, roc_area),
        precision_recall=_curve(recall[::-1], precision[::-1], average_precision),
        prevalence=float(carried.mean()),
    )


def _curve(x: NDArray[Any], y: NDArray[Any], area: float) -> Curve:
    shown = thinned(x, y)
    return Curve(tuple(x[shown].tolist()), tuple(y[shown].tolist()), area)
