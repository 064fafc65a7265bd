"""The groups that a report shows. Pure arithmetic.

group_results(predictions, classes)               # one GroupResult a group that has one diagnosis
"""

from collections import Counter
from collections.abc import Sequence

from trainer.groups_scored import by_group
from trainer.metrics import Predictions
from trainer.report_inputs import GroupResult


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
