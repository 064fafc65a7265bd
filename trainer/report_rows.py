"""Which rows of the predictions a report shows: groups, and the answers a person should look at. Pure arithmetic.

least_certain(predictions, 12)                    # numbers of examples, the least certain first
group_results(predictions, classes)               # one GroupResult a group that has one diagnosis
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from trainer.groups_scored import by_group
from trainer.metrics import Predictions
from trainer.report_inputs import GroupResult


def least_certain(predictions: Predictions, limit: int) -> list[int]:
    """Rows of the `limit` answers with the smallest lead over the next diagnosis; equals in the order of their ids."""
    ordered = np.sort(predictions.probabilities, axis=1)
    leads = ordered[:, -1] - ordered[:, -2] if ordered.shape[1] > 1 else ordered[:, -1]
    return sorted(range(len(predictions.ids)), key=lambda row: (float(leads[row]), predictions.ids[row]))[:limit]


def group_results(predictions: Predictions, classes: Sequence[str]) -> tuple[GroupResult, ...]:
    """The answer of each group's averaged probabilities, by name; none of groups that have several diagnoses.

    Empty if there aren't two groups to score.
    """
    scored = by_group(predictions)
    if scored is None:
        return ()
    images, means = Counter(predictions.groups), scored.predictions
    rows = zip(means.groups, means.labels, means.answers, means.confidences, strict=True)
    return tuple(
        GroupResult(group, images[group], classes[truth], classes[answer], float(confidence))
        for group, truth, answer, confidence in rows
    )
