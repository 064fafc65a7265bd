"""One verdict a group: the mean of the probabilities of its images, for a slide or a patient. Pure arithmetic.

    scored = by_group(predictions)
    scored.predictions, scored.mixed            # None if there aren't two groups to score

A group whose images carry several diagnoses has no one truth to compare with: such groups are counted and left out.
"""

from dataclasses import dataclass

import numpy as np

from trainer.bootstrap import FEWEST_GROUPS, group_numbers
from trainer.metrics import Predictions


@dataclass(frozen=True)
class GroupsScored:
    """Predictions with a row for each group of one diagnosis, by name; how many groups had several."""

    predictions: Predictions
    mixed: int


def by_group(predictions: Predictions) -> GroupsScored | None:
    """The predictions averaged over each group; None if fewer than two groups are of one diagnosis."""
    numbers, groups = group_numbers(predictions.groups)
    names = np.array(sorted(set(predictions.groups)), dtype=object)
    lowest, highest = np.full(groups, np.iinfo(np.int64).max), np.full(groups, -1)
    np.minimum.at(lowest, numbers, predictions.labels)
    np.maximum.at(highest, numbers, predictions.labels)
    pure = lowest == highest
    if pure.sum() < FEWEST_GROUPS:
        return None
    sums = np.zeros((groups, predictions.probabilities.shape[1]))
    np.add.at(sums, numbers, predictions.probabilities.astype(np.float64))
    means = sums / np.bincount(numbers, minlength=groups)[:, None]
    kept = tuple(names[pure])
    return GroupsScored(
        Predictions(
            ids=kept, groups=kept, labels=lowest[pure].astype(np.int64), probabilities=means[pure].astype(np.float32)
        ),
        mixed=int((~pure).sum()),
    )
