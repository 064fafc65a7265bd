"""When a model should say "I don't know": the confidence below which its answers aren't worth having. Pure arithmetic.

    abstention = abstention_scores(validation, test, target_error=0.05)
    abstention["threshold"]                       # 0.83: answers less sure than that are withheld; None if none will do
    curve = risk_coverage(test)                   # errors among the answers kept, for each share that is kept

The threshold is chosen on the validation split and only looked at on the test split. Choosing the best of all
thresholds would find one that was merely lucky, so:

* `CANDIDATES` thresholds are tried, those that answer 10, 20 … 100 % of the split, whatever is right or wrong there;
* each must pass a test that a threshold with a greater error passes with a probability of 5 % / `CANDIDATES`: the upper
  Clopper-Pearson bound of the error among the answered is at most `target_error`. So all that pass keep the promise
  together with 95 % confidence, also the lowest, which is taken (A. N. Angelopoulos et al., "Learn then test",
  Annals of Applied Statistics 2025, with Bonferroni's correction);
* images of one group resemble each other, so they are counted as fewer, by the design effect of their groups (L. Kish,
  "Survey Sampling", 1965; E. L. Korn, B. I. Graubard, Survey Methodology 24 (1998) 193-201, for the bound).

So a small split has no threshold: 5 % can't be promised on fewer than 104 independent answers, all of them right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv  # type: ignore[import-untyped]

from trainer.bootstrap import group_numbers
from trainer.curves import thinned
from trainer.metrics import Predictions

CANDIDATES = 10
RISK = 0.05  # that the threshold breaks its promise


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """The error among the answers kept, for each share of them that is kept, surest first; and the mean error.

    `area` is the mean over all shares (Y. Geifman, G. Uziel, R. El-Yaniv, ICLR 2019, "Bias-reduced uncertainty
    estimation"), of all examples even where the curve shows fewer.
    """

    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float


def risk_coverage(predictions: Predictions) -> RiskCoverage:
    """The curve of these predictions, at most `curves.POINTS` points; equally sure answers are kept together."""
    _, answered, wrong = _by_threshold(predictions)
    risk, coverage = wrong / answered, answered / answered[-1]
    area = float((risk * np.diff(answered, prepend=0)).sum() / answered[-1])
    shown = thinned(coverage, risk)
    return RiskCoverage(tuple(coverage[shown].tolist()), tuple(risk[shown].tolist()), area)


def recommended_threshold(predictions: Predictions, target_error: float) -> float | None:
    """The lowest confidence at which the error among the answered can be promised, None if there is none, see above.

    Raises `ValueError` for a `target_error` that isn't between 0 and 1.
    """
    if not 0 < target_error < 1:
        raise ValueError(f"Expected a target error above 0 and below 1. Received: {target_error}.")
    if not predictions.ids:
        return None
    thresholds, answered, wrong = _by_threshold(predictions)
    likeness = _likeness(predictions)
    for candidate in range(CANDIDATES, 0, -1):
        row = int(np.searchsorted(answered, answered[-1] * candidate / CANDIDATES))
        effect = _design_effect(predictions, thresholds[row], likeness)
        if error_bound(wrong[row] / effect, answered[row] / effect, RISK / CANDIDATES) <= target_error:
            return float(thresholds[row])
    return None


def error_bound(wrong: float, n: float, risk: float) -> float:
    """What the true error rate exceeds with a probability of at most `risk` if `wrong` of `n` answers were wrong.

    C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413; counts need not be whole.
    """
    return 1.0 if wrong >= n else float(betaincinv(wrong + 1, n - wrong, 1 - risk))


def abstention_scores(validation: Predictions, test: Predictions, target_error: float) -> dict[str, Any]:
    """The threshold of `validation` and what it does to both splits: the share answered, and the error among those.

    Without a threshold these are None, and so is an error among none. `reason` says why there is no threshold.
    """
    threshold = recommended_threshold(validation, target_error)
    reason = (
        f"With {len(validation.ids)} validation images of {len(set(validation.groups))} groups, no threshold can be "
        f"shown to keep the error among the answered at {100 * target_error:g}% or less."
    )
    return {
        "target_error": target_error,
        "threshold": threshold,
        "validation": selective_scores(validation, threshold),
        "test": selective_scores(test, threshold),
        "reason": reason if threshold is None else None,
    }


def selective_scores(predictions: Predictions, threshold: float | None) -> dict[str, float | None]:
    """`coverage` and `error` of answering only with a confidence of at least `threshold`."""
    if threshold is None or not predictions.ids:
        return {"coverage": None, "error": None}
    answered = predictions.confidences >= threshold
    wrong = predictions.answers != predictions.labels
    error = float(wrong[answered].mean()) if answered.any() else None
    return {"coverage": float(answered.mean()), "error": error}


def _by_threshold(
    predictions: Predictions,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Each distinct confidence, greatest first; how many are at least so sure, and how many of these are wrong."""
    order = np.argsort(-predictions.confidences, kind="stable")
    confidences = predictions.confidences[order]
    wrong = np.cumsum((predictions.answers != predictions.labels)[order])
    last = np.flatnonzero(np.append(np.diff(confidences) != 0, True))
    return confidences[last], last + 1, wrong[last]


def _likeness(predictions: Predictions) -> float:
    """How alike answers of one group are in being right or wrong: the intraclass correlation, from 0 to 1.

    By analysis of variance (A. Donner, International Statistical Review 54 (1986) 67-82). Where all answers are right,
    or all wrong, nothing is known of it and it is 1.
    """
    numbers, groups = group_numbers(predictions.groups)
    wrong = (predictions.answers != predictions.labels).astype(np.float64)
    n, sizes = len(wrong), np.bincount(numbers)
    means = np.bincount(numbers, weights=wrong) / sizes
    if groups in (1, n) or wrong.min() == wrong.max():
        return 1.0
    between = float((sizes * (means - wrong.mean()) ** 2).sum()) / (groups - 1)
    within = float(((wrong - means[numbers]) ** 2).sum()) / (n - groups)
    usual_size = (n - float((sizes**2).sum()) / n) / (groups - 1)
    likeness = (between - within) / (between + (usual_size - 1) * within)
    return min(1.0, max(0.0, likeness))


def _design_effect(predictions: Predictions, threshold: np.float32, likeness: float) -> float:
    """How many answered images count as one."""
    numbers, _ = group_numbers(predictions.groups)
    sizes = np.bincount(numbers[predictions.confidences >= threshold])
    return 1.0 + (float((sizes**2).sum()) / float(sizes.sum()) - 1.0) * likeness
