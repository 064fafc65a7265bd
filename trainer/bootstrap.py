"""How far a score may be off by the luck of the draw: 95 % intervals that resample whole groups. Pure arithmetic.

    for counts in resamples(group_count, seed=0):            # [draws, groups]: how often each group was drawn
        scores.append(weighted_scores(tally, counts))
    percentile_interval(np.concatenate(scores))              # [0.71, 0.86], or None

Tiles of one slide resemble each other: a hundred tiles of ten slides say about as much as ten images do. So groups are
drawn with replacement, and all examples of a group come with it: B. Efron, R. J. Tibshirani, "An Introduction to the
Bootstrap", 1993, chapters 8 and 13; C. A. Field, A. H. Welsh, "Bootstrapping clustered data", JRSS B 69 (2007).

Fewer than about twenty groups make such intervals too narrow, and a rate that never failed has none at all: where all
draws agree on a rate, `rate_interval` gives Wilson's interval over the groups instead.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.metrics import wilson_interval

RESAMPLES = 2000
FEWEST_GROUPS = 2
TAIL_PERCENT = 2.5
# A score that most draws can't have (the only slide of its class was left out) has no interval worth the name.
LEAST_DEFINED = 0.5
_CELLS_AT_ONCE = 2_000_000

Interval = list[float] | None


def group_numbers(groups: Sequence[str]) -> tuple[NDArray[np.int64], int]:
    """The number of each example's group, in the order of their names, `[n] int64`; and how many groups there are."""
    numbers = {name: number for number, name in enumerate(sorted(set(groups)))}
    return np.array([numbers[name] for name in groups], np.int64), len(numbers)


def resamples(groups: int, *, seed: int, draws: int = RESAMPLES, width: int = 0) -> Iterator[NDArray[np.float64]]:
    """How often each group was drawn, `[draws at once, groups]`, until there were `draws`; rows sum to `groups`.

    `width` is how many numbers a user keeps for each draw, if more than one a group: so many draws come at once that
    they fit the memory. The draws are the same for the same groups and seed, however many come at once.
    """
    random = np.random.default_rng([seed, groups])
    at_once = max(1, _CELLS_AT_ONCE // max(groups, width))
    for start in range(0, draws, at_once):
        rows = min(at_once, draws - start)
        # A draw is made as a whole, so that the number of rows can't change what is drawn.
        drawn = np.stack([random.integers(0, groups, groups) for _ in range(rows)])
        cells = (drawn + groups * np.arange(rows)[:, None]).ravel()
        yield np.bincount(cells, minlength=rows * groups).reshape(rows, groups).astype(np.float64)


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """The middle 95 % of the values `[draws]` that are defined (NaN isn't); None if most aren't, or all are equal."""
    defined = values[~np.isnan(values)]
    if defined.size < max(1, LEAST_DEFINED * values.size) or np.ptp(defined) < 1e-12:
        return None
    low, high = np.percentile(defined, [TAIL_PERCENT, 100 - TAIL_PERCENT])
    return [float(low), float(high)]


def rate_interval(values: NDArray[np.float64], rate: float | None, *, groups: int) -> Interval:
    """The same for a rate found on so many `groups`; where all draws agree on it, Wilson's interval over the groups."""
    if rate is None or groups < FEWEST_GROUPS:
        return None
    found = percentile_interval(values)
    if found is None and not 0 < rate < 1:
        low, high = wilson_interval(rate, groups)
        return [low, high]
    return found


def difference_interval(values: NDArray[np.float64]) -> Interval:
    """The same for paired differences: those of two models that answer alike are all zero, and so is their interval."""
    defined = values[~np.isnan(values)]
    if defined.size < max(1, LEAST_DEFINED * values.size):
        return None
    low, high = np.percentile(defined, [TAIL_PERCENT, 100 - TAIL_PERCENT])
    return [float(low), float(high)]


def ratio(numerator: Any, denominator: Any) -> NDArray[np.float64]:
    """The quotient, NaN where the denominator is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient: NDArray[np.float64] = np.where(denominator > 0, np.divide(numerator, denominator), np.nan)
    return quotient
