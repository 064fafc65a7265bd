"""Which group goes to train, validation or test: stratified by diagnosis, whole groups only. Pure.

    assignment = split_groups(counts, names, fractions=Fractions(test=0.15, validation=0.30), seed=0)
    assignment = split_groups(counts, names, fractions=Fractions(test=0.15), seed=0, fold=Fold(of=5, number=2))
    assignment = split_groups(counts, names, fractions=Fractions(), seed=0, test=given)   # a test split of others
    part = cut_into_parts(counts, names, parts=5, seed=0)

The test split is chosen first and depends on neither the validation fraction nor the fold, so that models made with
different ones are tested on the same images. What remains is cut into train and validation, or into folds. Each time:

1. Every group draws a number from (seed, name). Within the diagnosis a group has most images of, groups are laid end to
   end in the order of their numbers, and cut where the fractions say. So a new image moves at most the groups at
   the cuts of its own diagnosis, and the order of the files plays no part.
2. Where that leaves a diagnosis off its fractions by more than `TOLERANCE`, or missing from a part it could be in,
   single groups are moved or swapped, the most useful first, until no change helps. A result that is still off is
   shaken: a large group is put elsewhere and the others, smaller ones first, arrange themselves around it, as long as
   that helps.
"""

import hashlib
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from data_pipeline.manifest import SPLITS

TRAIN, VALIDATION, TEST = range(len(SPLITS))
TOLERANCE = 0.01
MAX_REPAIRS = 500
# How many of the largest groups are tried elsewhere, and how often.
SHAKEN_GROUPS, MAX_SHAKES = 10, 4
# Parts up to which `cut_into_parts` shakes: for 20 of them it took a minute and a half, and gained next to nothing.
SHAKEN_PARTS = 8
# Swaps are tried between this many groups of each split, which bounds their number at its square.
SWAP_CANDIDATES = 256
MISSING_PENALTY = 1e3
# A class with one group is for training, with two also for testing, with three for all (in the order of SPLITS).
LEAST_GROUPS = np.array([1, 3, 2])


@dataclass(frozen=True, slots=True)
class Fractions:
    """`test` is a share of all images, `validation` of what remains."""

    test: float = 0.15
    validation: float = 0.30

    def of_all(self) -> NDArray[np.float64]:
        """The share of each split, in the order of `SPLITS`."""
        rest = 1 - self.test
        return np.array([rest * (1 - self.validation), rest * self.validation, self.test])


@dataclass(frozen=True, slots=True)
class Fold:
    """Part `number` of `of` equal parts of all that isn't for testing: the one to validate on."""

    of: int
    number: int


def split_groups(
    counts: NDArray[np.int64],
    names: Sequence[str],
    *,
    fractions: Fractions,
    seed: int,
    fold: Fold | None = None,
    test: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """The split of each group, as an index into `SPLITS`.

    `counts` is `[groups, classes]`: how many images of each class a group has. `names` are unique. With `fold`,
    `fractions.validation` plays no part; with `test`, `[groups]`, which says who is to be tested on, nor does
    `fractions.test`.
    """
    order = _drawn_order(names, seed)
    if test is None:
        # Some validation split is kept room for: a diagnosis of three groups must not lose two of them to the test.
        is_test = _assign(counts[order], Fractions(test=fractions.test).of_all(), LEAST_GROUPS) == TEST
    else:
        is_test = test[order]
    assignment = np.where(is_test, TEST, TRAIN)
    rest = np.flatnonzero(~is_test)
    if fold is None:
        target = np.array([1 - fractions.validation, fractions.validation])
        assignment[rest] = _assign(counts[order][rest], target, LEAST_GROUPS[:TEST] - [0, 1])
    else:
        assignment[rest[_equal_parts(counts[order][rest], fold.of) == fold.number]] = VALIDATION
    in_given_order = np.empty_like(assignment)
    in_given_order[order] = assignment
    return in_given_order


def cut_into_parts(counts: NDArray[np.int64], names: Sequence[str], *, parts: int, seed: int) -> NDArray[np.int64]:
    """The part of each group, from 0, of so many equal ones; `counts` and `names` as for `split_groups`."""
    order = _drawn_order(names, seed)
    in_given_order = np.empty(len(names), dtype=np.int64)
    in_given_order[order] = _equal_parts(counts[order], parts, shakes=MAX_SHAKES if parts <= SHAKEN_PARTS else 0)
    return in_given_order


def _equal_parts(counts: NDArray[np.int64], parts: int, *, shakes: int = MAX_SHAKES) -> NDArray[np.int64]:
    return _assign(counts, np.full(parts, 1 / parts), np.full(parts, parts), shakes=shakes)


def _drawn_order(names: Sequence[str], seed: int) -> NDArray[np.int64]:
    return np.argsort(np.array([_draw(seed, name) for name in names]), kind="stable")


def _draw(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest()[:7], "big")


def _assign(
    counts: NDArray[np.int64],
    target: NDArray[np.float64],
    least_groups: NDArray[np.int64],
    *,
    shakes: int = MAX_SHAKES,
) -> NDArray[np.int64]:
    """The part of each group, for groups in the order of their numbers. `target` are the shares of the parts.

    A class must be in part p if it has `least_groups[p]` groups.
    """
    balance = _Balance(counts, _cut(counts, target), target, least_groups)
    balance.repair()
    for _ in range(shakes):
        if balance.is_good():
            break
        shaken = min(balance.shaken(), key=_Balance.cost, default=balance)
        if shaken.cost() > balance.cost() - 1e-9:
            break
        balance = shaken
    return balance.assignment


def _cut(counts: NDArray[np.int64], target: NDArray[np.float64]) -> NDArray[np.int64]:
    """Step 1: the last part is cut off first, so that training gets what is left."""
    sizes = counts.sum(axis=1)
    diagnosis = counts.argmax(axis=1) if len(counts) else np.empty(0, dtype=np.int64)
    ends = np.cumsum(target[::-1])[:-1]
    assignment = np.empty(len(counts), dtype=np.int64)
    for members in (np.flatnonzero(diagnosis == c) for c in range(counts.shape[1])):
        middles = np.cumsum(sizes[members]) - sizes[members] / 2
        place = middles / max(1, sizes[members].sum())
        assignment[members] = len(target) - 1 - np.searchsorted(ends, place, side="right")
    return assignment


class _Balance:
    """How far an assignment is from its fractions, and the changes that bring it nearer."""

    def __init__(
        self,
        counts: NDArray[np.int64],
        assignment: NDArray[np.int64],
        target: NDArray[np.float64],
        least_groups: NDArray[np.int64],
    ) -> None:
        self.assignment = assignment
        self._present = counts > 0
        self._shares = counts / np.maximum(1, counts.sum(axis=0))  # [groups, classes], columns sum to 1
        self._target = target[:, None]
        self._required = (self._present.sum(axis=0) >= least_groups[:, None]) & (target[:, None] > 0)
        self._held = np.stack([self._shares[assignment == s].sum(axis=0) for s in range(len(target))])
        self._fixed = np.zeros(len(counts), dtype=bool)

    def repair(self) -> None:
        """Move and swap groups for as long as that helps and something is off."""
        for _ in range(MAX_REPAIRS):  # each change lowers the cost, so it ends
            if self.is_good() or not (self.move_best() or self.swap_best()):
                break

    def shaken(self) -> Iterator[Self]:
        """This assignment with one of the largest groups fixed elsewhere and the others repaired around it.

        Groups as large as that one stay at first: the best single move would be to let one of them take its place.
        """
        sizes = self._shares.max(axis=1)
        largest = np.argsort(-sizes, kind="stable")[:SHAKEN_GROUPS]
        for group in largest.tolist():
            for goal in range(len(self._target)):
                if goal != self.assignment[group] and self._target[goal] > 0:
                    other = copy(self)
                    other.assignment, other._held = self.assignment.copy(), self._held.copy()
                    other._move(group, int(self.assignment[group]), goal)
                    for fixed in (sizes >= sizes[group], np.arange(len(sizes)) == group):
                        other._fixed = fixed
                        other.repair()
                    yield other

    def cost(self) -> float:
        """How far off all parts are together."""
        return float(self._cost(self._held, list(range(len(self._target)))))

    def _members(self, part: int) -> NDArray[np.int64]:
        """The groups of a part that may be moved."""
        return np.flatnonzero((self.assignment == part) & ~self._fixed)

    def is_good(self) -> bool:
        off = np.abs(self._held - self._target)[:, self._present.any(axis=0)]
        return bool((off <= TOLERANCE).all()) and not self._missing(self._held).any()

    def move_best(self) -> bool:
        """Move the group whose move helps most. False if none helps."""
        best, change = -1e-12, None
        for source in range(len(self._target)):
            groups = self._members(source)
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

    def swap_best(self) -> bool:
        """Swap the two groups whose swap helps most. False if none helps."""
        best, change = -1e-12, None
        for source in range(len(self._target)):
            for goal in range(source):
                left, right = self._members(source)[:SWAP_CANDIDATES], self._members(goal)[:SWAP_CANDIDATES]
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
