"""Whether a model is any good: what the first lines of a report say. Pure arithmetic.

    verdict = judge(metrics["test"], metrics["baselines"], groups_known=True)
    verdict.level, verdict.headline

Two things must be beaten: always answering the commonest diagnosis, and a classical classifier on colour and texture,
which costs a second to train. What can't be shown to be better isn't called better.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.metrics import wilson_interval

Interval = tuple[float, float]
BETTER, UNCLEAR, NO_BETTER, WORSE = "better", "unclear", "no-better", "worse"

_HEADLINES = {
    (NO_BETTER, ""): "No better than always answering the commonest diagnosis.",
    (UNCLEAR, ""): "Ahead of always answering the commonest diagnosis, but too close to be sure.",
    (BETTER, ""): "Clearly better than always answering the commonest diagnosis.",
    (NO_BETTER, WORSE): "No better than always answering the commonest diagnosis, and worse than a classical baseline.",
    (UNCLEAR, UNCLEAR): "Not shown to beat the classical baseline, nor always answering the commonest diagnosis.",
    (BETTER, UNCLEAR): "Better than always answering the commonest diagnosis, but not shown to beat the classical "
    "baseline.",
    (UNCLEAR, WORSE): "Worse than the classical baseline, which costs a fraction of the effort.",
    (BETTER, WORSE): "Worse than the classical baseline, which costs a fraction of the effort.",
    (BETTER, BETTER): "Clearly better than always answering the commonest diagnosis, and than the classical baseline.",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the model beats the baselines.

    `level` is `better`, `unclear` or `no-better`. `majority` is the same against always answering the commonest
    diagnosis alone, `classical` is `better`, `unclear` or `worse`, and empty if there is no such baseline.
    `interval` is where the true accuracy lies with 95 % confidence, by `trials` groups or images; None if too few.
    """

    level: str
    headline: str
    majority: str
    classical: str
    interval: Interval | None
    trials: int


def judge(test: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], *, groups_known: bool = True) -> Verdict:
    """Compare test metrics with the baselines, as sceptically as the data deserves.

    Images of one group resemble each other, so where groups are known they are what is counted, not images. A model
    beats the majority if the whole interval of its accuracy lies above it and its balanced accuracy does too, and the
    classical baseline as `beats_classical` says.
    """
    trials = test["groups"] if groups_known else test["n"]
    interval = accuracy_interval(test, trials)
    majority = _beats_majority(test, baselines["majority"], interval, trials)
    classical = beats_classical(baselines["classical"]) if baselines.get("classical") else ""
    default = _HEADLINES[majority, ""]
    headline = _HEADLINES.get((majority, classical), default)
    return Verdict(_level(majority, classical), headline, majority, classical, interval, trials)


def accuracy_interval(test: Mapping[str, Any], trials: int) -> Interval | None:
    """The interval that was found by resampling; Wilson's over `trials` if none was looked for."""
    if "intervals" not in test:
        return wilson_interval(test["accuracy"], trials)
    found = test["intervals"].get("accuracy")
    return (found[0], found[1]) if found else None


def beats_classical(classical: Mapping[str, Any]) -> str:
    """`better`, `unclear` or `worse`, by the paired difference of balanced accuracy to this baseline.

    The whole interval must lie on one side of zero. A model that gains in balanced accuracy what it loses in plain
    accuracy isn't called better.
    """
    balanced, plain = (classical["difference"][name] for name in ("balanced_accuracy", "accuracy"))
    if not balanced["interval"]:
        return UNCLEAR
    low, high = balanced["interval"]
    if high < 0:
        return WORSE
    return BETTER if low > 0 and plain["value"] >= 0 else UNCLEAR


def high_shortcuts(shortcuts: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The names of the probes that score high without seeing what they should."""
    return tuple(name for name, probe in sorted((shortcuts or {}).items()) if probe and probe["high"])


def _beats_majority(
    test: Mapping[str, Any], majority: Mapping[str, Any], interval: Interval | None, trials: int
) -> str:
    if test["accuracy"] <= majority["accuracy"]:
        return NO_BETTER
    # Resampling a handful of groups gives intervals that are too narrow; Wilson's aren't.
    lowest = min(interval[0], wilson_interval(test["accuracy"], trials)[0]) if interval else 0.0
    if lowest > majority["accuracy"] and test["balanced_accuracy"] > majority["balanced_accuracy"]:
        return BETTER
    return UNCLEAR


def _level(majority: str, classical: str) -> str:
    if majority == NO_BETTER or classical == WORSE:
        return NO_BETTER
    return UNCLEAR if UNCLEAR in (majority, classical) else BETTER
