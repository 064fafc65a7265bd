"""Which group goes to train, validation or test: stratified by diagnosis, whole groups only. Pure.

    assignment = split_groups(counts, names, fractions=Fractions(test=0.15, validation=0.30), seed=0)

1. Every group draws a number from (seed, name). Within the diagnosis a group has most images of, groups are laid end to
   end in the order of their numbers, and cut where the fractions say. So a new image moves at most the groups at
   the cuts of its own diagnosis, and the order of the files plays no part.
2. Where that leaves a diagnosis off its fractions by more than `TOLERANCE`, or missing from a split it could be in,
   single groups are moved or swapped, the most useful first, until no change helps.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.manifest import SPLITS

TRAIN, VALIDATION, TEST = range(len(SPLITS))
TOLERANCE = 0.01
MAX_REPAIRS = 500
# Swaps are tried between this many groups of each split, which bounds their number at its square.
SWAP_CANDIDATES = 256
MISSING_PENALTY = 1e3


@dataclass(frozen=True, slots=True)
class Fractions:
    """`test` is a share of all images, `validation` of what remains."""

    test: float = 0.15
    validation: float = 0.30

    def of_all(self) -> NDArray[np.float64]:
        """The share of each split, in the order of `SPLITS`."""
        rest = 1 - self.test
        return np.array([rest * (1 - self.validation), rest * self.validation, self.test])


def split_groups(
    counts: NDArray[np.int64], names: Sequence[str], *, fractions: Fractions, seed: int
) -> NDArray[np.int64]:
    """The split of each group, as an index into `SPLITS`.

    `counts` is `[groups, classes]`: how many images of each class a group has. `names` are unique.
    """
    order = np.argsort(np.array([_draw(seed, name) for name in names]), kind="stable")
    target = fractions.of_all()
    assignment = np.empty(len(names), dtype=np.int64)
    assignment[order] = _cut(counts[order], target)
    return _repair(counts, assignment, order, target)


def _draw(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest()[:7], "big")


def _cut(counts: NDArray[np.int64], target: NDArray[np.float64]) -> NDArray[np.int64]:
    """Step 1, on groups in the order of their numbers."""
    sizes = counts.sum(axis=1)
    diagnosis = counts.argmax(axis=1)
    assignment = np.empty(len(counts), dtype=np.int64)
    for members in (np.flatnonzero(diagnosis == c) for c in range(counts.shape[1])):
        middles = np.cumsum(sizes[members]) - sizes[members] / 2
        place = middles / max(1, sizes[members].sum())
        assignment[members] = np.select(
            [place < target[TEST], place < target[TEST] + target[VALIDATION]], [TEST, VALIDATION], TRAIN
        )
    return assignment


def _repair(
    counts: NDArray[np.int64], assignment: NDArray[np.int64], order: NDArray[np.int64], target: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Step 2. Each change lowers the cost, so it ends."""
    balance = _Balance(counts, assignment.copy(), target)
    for _ in range(MAX_REPAIRS):
        if balance.is_good() or not (balance.move_best(order) or balance.swap_best(order)):
            break
    return balance.assignment


class _Balance:
    """How far an assignment is from its fractions, and the changes that bring it nearer."""

    def __init__(self, counts: NDArray[np.int64], assignment: NDArray[np.int64], target: NDArray[np.float64]) -> None:
        self.assignment = assignment
        self._present = counts > 0
        self._shares = counts / np.maximum(1, counts.sum(axis=0))  # [groups, classes], columns sum to 1
        self._target = target[:, None]
        self._required = _required_splits(self._present.sum(axis=0), target)
        self._held = np.stack([self._shares[assignment == s].sum(axis=0) for s in range(len(target))])

    def is_good(self) -> bool:
        off = np.abs(self._held - self._target)[:, self._present.any(axis=0)]
        return bool((off <= TOLERANCE).all()) and not self._missing(self._held).any()

    def move_best(self, order: NDArray[np.int64]) -> bool:
        """Move the group whose move helps most. False if none helps."""
        best, change = -1e-12, None
        for source in range(len(self._target)):
            groups = order[self.assignment[order] == source]
            for goal in range(len(self._target)):
                if goal == source or not len(groups):
                    continue
                gain = self._gain(source, goal, self._shares[groups])
                at = int(gain.argmin())
                if gain[at] < best:
                    best, change = gain[at], (groups[at], source, goal)
        if change is not None:
            self._move(*change)
        return change is not None

    def swap_best(self, order: NDArray[np.int64]) -> bool:
        """Swap the two groups whose swap helps most. False if none helps."""
        best, change = -1e-12, None
        for source in range(len(self._target)):
            for goal in range(source):
                left = order[self.assignment[order] == source][:SWAP_CANDIDATES]
                right = order[self.assignment[order] == goal][:SWAP_CANDIDATES]
                if not len(left) or not len(right):
                    continue
                gain = self._gain(source, goal, self._shares[left][:, None] - self._shares[right][None])
                at = np.unravel_index(int(gain.argmin()), gain.shape)
                if gain[at] < best:
                    best, change = gain[at], (left[at[0]], right[at[1]], source, goal)
        if change is not None:
            self._move(change[0], change[2], change[3])
            self._move(change[1], change[3], change[2])
        return change is not None

    def _move(self, group: int, source: int, goal: int) -> None:
        self._held[source] -= self._shares[group]
        self._held[goal] += self._shares[group]
        self.assignment[group] = goal

    def _gain(self, source: int, goal: int, moved: NDArray[np.float64]) -> NDArray[np.float64]:
        """The cost's change when `moved` (`[..., classes]`) goes from `source` to `goal`."""
        rows = [source, goal]
        before = self._cost(self._held[rows], rows)
        held = np.stack([self._held[source] - moved, self._held[goal] + moved], axis=-2)
        return np.asarray(self._cost(held, rows) - before)

    def _cost(self, held: NDArray[np.float64], rows: list[int]) -> NDArray[np.float64]:
        squares = np.square(held - self._target[rows]).sum(axis=(-2, -1))
        missing = (self._required[rows] & (held < 1e-9)).sum(axis=(-2, -1))
        return np.asarray(squares + MISSING_PENALTY * missing)

    def _missing(self, held: NDArray[np.float64]) -> NDArray[np.bool_]:
        return np.asarray(self._required & (held < 1e-9))


def _required_splits(groups_of_class: NDArray[np.int64], target: NDArray[np.float64]) -> NDArray[np.bool_]:
    """`[splits, classes]`: a class with one group is for training, with two also for testing, with three for all."""
    required = np.zeros((len(target), len(groups_of_class)), dtype=np.bool_)
    for split, least_groups in ((TRAIN, 1), (TEST, 2), (VALIDATION, 3)):
        required[split] = (groups_of_class >= least_groups) & (target[split] > 0)
    return required
