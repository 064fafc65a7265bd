"""The verdict on a slide, smear or patient: the mean of the probabilities of its images.

    groups = grouped(named.ids, parse_rule("auto"))         # groups.of[0] is the group of the first image
    verdicts = Verdicts(groups.of, classes=5)
    for number, row in enumerate(predictions):
        verdicts.add(number, row.probabilities)
    verdicts.rows()                                         # one for each group, by name

Which images belong together is what conversion's `--group_by` says of their names, and evaluation averages alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.grouping import NO_RULE, Rule, group_images


@dataclass(frozen=True)
class Groups:
    """The group of each image, and the rule that gave it in words; no `of` if nothing ties images together."""

    of: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class Verdict:
    """A group's row: `probabilities` is `[classes]`, the mean over its images, or None if each of them `failed`."""

    group: str
    images: int
    failed: int
    probabilities: NDArray[np.float32] | None


def grouped(ids: Sequence[str], rule: Rule) -> Groups:
    """The groups of images by their ids, FOLDER/…/FILE. Raises `RequestError` if a rule that was asked for fits none.

    FOLDER stands where conversion has the diagnosis, which isn't known here.
    """
    found = group_images(ids, [name.partition("/")[0] for name in ids], rule)
    if found.rule == NO_RULE:
        return Groups((), found.description)
    return Groups(tuple(found.groups), found.description)


class Verdicts:
    """Sums over the images of each group, as they come."""

    def __init__(self, of: Sequence[str], *, classes: int) -> None:
        names, self._group_of = np.unique(np.array(of, dtype=object).astype(object), return_inverse=True)
        self._names: list[str] = names.tolist()
        self._sums = np.zeros([len(self._names), classes])
        self._images, self._failed = (np.zeros(len(self._names), np.int64) for _ in range(2))

    def add(self, number: int, probabilities: NDArray[np.float32] | None) -> None:
        """The image of this number: `[classes]`, or None if it failed."""
        group = self._group_of[number]
        self._images[group] += 1
        if probabilities is None:
            self._failed[group] += 1
        else:
            self._sums[group] += probabilities

    def rows(self) -> list[Verdict]:
        """One for each group, in the order of their names."""
        rows = []
        for name, total, images, failed in zip(self._names, self._sums, self._images, self._failed, strict=True):
            good = int(images - failed)
            mean = (total / good).astype(np.float32) if good else None
            rows.append(Verdict(name, int(images), int(failed), mean))
        return rows
