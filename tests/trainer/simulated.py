"""Predictions of models whose worth is known, for the tests of the numbers.

predictions = simulate(np.random.default_rng(0), n=300, classes=4, groups=30, skill=1.5)
"""

from dataclasses import replace

import numpy as np

from trainer.metrics import Predictions


def simulate(
    random: np.random.Generator, *, n: int, classes: int, groups: int, skill: float = 1.0, alike: float = 0.0
) -> Predictions:
    """Predictions of `n` examples in at most so many groups; labels don't depend on the group.

    `skill` is what the true class's logit has above the others', which are normal; the probabilities are then Bayes's,
    and so calibrated, if `skill` is at least 0.5. `alike` is the share of luck that a group's examples have in common.
    """
    number = random.integers(0, groups, n)
    labels = random.integers(0, classes, n)
    luck = (
        np.sqrt(1 - alike) * random.normal(size=(n, classes))
        + np.sqrt(alike) * random.normal(size=(groups, classes))[number]
    )
    luck[np.arange(n), labels] += skill
    return Predictions(
        ids=tuple(f"{row:05}.png" for row in range(n)),
        groups=tuple(f"slide-{one:03}" for one in number),
        labels=labels.astype(np.int64),
        probabilities=softmax(luck * max(skill, 0.5)),
    )


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def repeated(predictions: Predictions, counts: np.ndarray) -> Predictions:
    """The examples of each group as often as `counts` says, groups in the order of their names."""
    names = sorted(set(predictions.groups))
    times = {name: int(count) for name, count in zip(names, counts, strict=True)}
    rows = np.array([row for row, name in enumerate(predictions.groups) for _ in range(times[name])], np.int64)
    return Predictions(
        ids=tuple(f"{place}" for place in range(len(rows))),
        groups=tuple(predictions.groups[row] for row in rows),
        labels=predictions.labels[rows],
        probabilities=predictions.probabilities[rows],
    )


def answering(predictions: Predictions, answers: np.ndarray, *, confidence: float = 1.0) -> Predictions:
    """The same examples, answered so with this confidence."""
    classes = predictions.probabilities.shape[1]
    probabilities = np.full((len(answers), classes), (1 - confidence) / max(1, classes - 1), np.float32)
    probabilities[np.arange(len(answers)), answers] = confidence
    return replace(predictions, probabilities=probabilities)
