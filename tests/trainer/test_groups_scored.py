"""Scores by group: probabilities averaged, groups of several diagnoses counted and left out."""

import numpy as np
import pytest

from trainer.groups_scored import by_group
from trainer.metrics import Predictions


def made(rows: list[tuple[str, int, float]]) -> Predictions:
    """Images of (group, label, probability of the first of two classes)."""
    first = np.array([row[2] for row in rows], np.float32)
    return Predictions(
        ids=tuple(str(place) for place in range(len(rows))),
        groups=tuple(row[0] for row in rows),
        labels=np.array([row[1] for row in rows], np.int64),
        probabilities=np.stack([first, 1 - first], axis=1),
    )


def test_a_case_worked_by_hand() -> None:
    scored = by_group(made([("b", 1, 0.6), ("a", 0, 0.4), ("b", 1, 0.2), ("a", 0, 0.9), ("b", 1, 0.1)]))
    assert scored is not None
    assert scored.predictions.ids == scored.predictions.groups == ("a", "b")
    assert scored.predictions.labels.tolist() == [0, 1]
    assert scored.predictions.probabilities == pytest.approx(np.array([[0.65, 0.35], [0.3, 0.7]]))
    assert scored.predictions.probabilities.dtype == np.float32
    assert scored.mixed == 0


def test_a_group_of_several_diagnoses_is_counted_and_left_out() -> None:
    scored = by_group(made([("a", 0, 0.9), ("mixed", 0, 0.9), ("mixed", 1, 0.9), ("z", 1, 0.2)]))
    assert scored is not None
    assert scored.predictions.ids == ("a", "z")
    assert scored.mixed == 1


def test_a_group_of_one_image_says_what_the_image_says() -> None:
    predictions = made([("a", 0, 0.123), ("b", 1, 0.456)])
    scored = by_group(predictions)
    assert scored is not None
    assert np.array_equal(scored.predictions.probabilities, predictions.probabilities)


@pytest.mark.parametrize(
    "rows", [[("a", 0, 0.9)], [("a", 0, 0.9), ("a", 0, 0.8)], [("a", 0, 0.9), ("b", 0, 0.9), ("b", 1, 0.9)]]
)
def test_fewer_than_two_groups_of_one_diagnosis_are_no_groups(rows: list[tuple[str, int, float]]) -> None:
    assert by_group(made(rows)) is None
