"""Whether a model is as sure as it is right, and the one number that makes it so. Pure arithmetic, no TensorFlow.

    fit = fit_temperature(np.log(validation.probabilities), validation.labels)
    fit.temperature, fit.reason                              # 1.31 and "", or why nothing better could be said
    test = calibrated(test, fit.temperature)
    expected_calibration_error(test.confidences, test.answers == test.labels)

Temperature scaling divides the logits by one number for all classes. It changes no answer, only how
sure of it the model claims to be: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On
calibration of modern neural networks", ICML 2017.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import log_softmax, softmax  # type: ignore[import-untyped]

if TYPE_CHECKING:  # which needs what is here
    from trainer.metrics import Predictions

BINS = (
    15  # of equal width, as Guo et al. have them: the same for each split and resample, as those of equal mass aren't
)
LOWEST, HIGHEST = 0.1, 10.0
FEWEST_EXAMPLES = 20
# The logarithm of the smallest normal float32. A probability of zero counts as this one and not as impossible.
SMALLEST_LOG = float(np.log(np.finfo(np.float32).tiny))


@dataclass(frozen=True, slots=True)
class TemperatureFit:
    """The temperature, and in words why it isn't the best one of those examples; empty if it is."""

    temperature: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Bin:
    """The examples of a confidence in (`low`, `high`]; their mean confidence and accuracy, None if there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


def fit_temperature(logits: NDArray[Any], labels: NDArray[np.int64]) -> TemperatureFit:
    """The temperature with the least negative log likelihood; logits or log-probabilities `[n, classes]`.

    The likelihood has one optimum between `LOWEST` and `HIGHEST`, since it is concave in the temperature's inverse. Few
    examples don't say how sure is too sure, and the temperature is 1. Nor do those without a mistake, which any
    sharpening would suit: of n of them, 1 / (n + 2) of each is then taken for a mistake, for its second choice (the
    targets of J. Platt 1999, "Probabilistic outputs for support vector machines").
    Raises `ValueError` for shapes that don't fit or values that are NaN.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or np.isnan(logits).any():
        raise ValueError(
            f"Expected logits [n, classes] without NaN and labels [n]. Received shapes {list(logits.shape)} and "
            f"{list(labels.shape)}, {int(np.isnan(logits).sum())} NaN."
        )
    if len(labels) < FEWEST_EXAMPLES:
        return TemperatureFit(1.0, f"{len(labels)} examples are too few to fit a temperature, {FEWEST_EXAMPLES} aren't")
    scores = _scores(logits)
    if logits.shape[1] < 2:
        return TemperatureFit(1.0, "with one class there is nothing to be unsure of")
    rows = np.arange(len(labels))
    faultless = bool((np.argmax(scores, axis=1) == labels).all())
    doubt = 1 / (len(labels) + 2) if faultless else 0.0
    second = np.argsort(scores, axis=1)[:, -2]

    def loss(log_temperature: float) -> float:
        logs = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(((1 - doubt) * logs[rows, labels] + doubt * logs[rows, second]).mean())

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-7})
    temperature = round(float(np.exp(found.x)), 4)
    for bound in (LOWEST, HIGHEST):
        if abs(temperature / bound - 1) < 1e-3:
            return TemperatureFit(bound, f"the best temperature lies beyond {bound:g}, the last one looked at")
    why = "the model makes no mistake on these examples: it is made as sure as so many right answers allow"
    return TemperatureFit(temperature, why if faultless else "")


def apply_temperature(logits: NDArray[Any], temperature: float) -> NDArray[np.float32]:
    """Probabilities `[n, classes] float32` of logits or log-probabilities at this temperature."""
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"Expected a temperature above 0. Received: {temperature}.")
    probabilities: NDArray[np.float32] = softmax(_scores(logits) / temperature, axis=1).astype(np.float32)
    return probabilities


def calibrated(predictions: "Predictions", temperature: float) -> "Predictions":
    """The same predictions at this temperature; at 1 with the very same probabilities."""
    if temperature == 1.0:
        return predictions
    with np.errstate(divide="ignore"):
        logs = np.log(predictions.probabilities.astype(np.float64))
    return replace(predictions, probabilities=apply_temperature(logs, temperature))


def bin_numbers(confidences: NDArray[Any]) -> NDArray[np.int64]:
    """Which of `BINS` bins of equal width each confidence `[n]` lies in; a bin holds its upper end: `[n] int64`."""
    numbers: NDArray[np.int64] = np.clip(np.ceil(confidences.astype(np.float64) * BINS) - 1, 0, BINS - 1).astype(
        np.int64
    )
    return numbers


def reliability_bins(confidences: NDArray[Any], correct: NDArray[np.bool_]) -> tuple[Bin, ...]:
    """What a reliability diagram shows: all `BINS` bins, from the least sure to the surest."""
    numbers = bin_numbers(confidences)
    counts = np.bincount(numbers, minlength=BINS)
    sure = np.bincount(numbers, weights=confidences.astype(np.float64), minlength=BINS)
    right = np.bincount(numbers, weights=correct.astype(np.float64), minlength=BINS)
    return tuple(
        Bin(
            low=number / BINS,
            high=(number + 1) / BINS,
            count=int(counts[number]),
            confidence=float(sure[number] / counts[number]) if counts[number] else None,
            accuracy=float(right[number] / counts[number]) if counts[number] else None,
        )
        for number in range(BINS)
    )


def expected_calibration_error(confidences: NDArray[Any], correct: NDArray[np.bool_]) -> float:
    """The mean gap between confidence and accuracy over the bins, weighted by their examples (Guo et al., eq. 3).

    Chance alone opens gaps: with few examples a model that is calibrated perfectly has an error above zero too.
    """
    gaps = [
        one.count * abs(one.accuracy - one.confidence)
        for one in reliability_bins(confidences, correct)
        if one.accuracy is not None and one.confidence is not None
    ]
    return float(sum(gaps) / len(confidences))


def _scores(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Logits in float64, the greatest of a row 0 and none beyond what a float32 probability can say."""
    wide = logits.astype(np.float64)
    scores: NDArray[np.float64] = np.maximum(wide - wide.max(axis=1, keepdims=True), SMALLEST_LOG)
    return scores
