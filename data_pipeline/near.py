"""Which images are near duplicates: one picture turned, mirrored, zoomed, brightened or re-encoded. Pure.

prints = fingerprints(thumbnails)        # [n, 64, 64] uint8, grey, box-reduced → [n, 192] int8
pairs = near_duplicates(prints)          # pairs.left, pairs.right, pairs.similarity
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from data_pipeline.near_background import Background, fisher, least_conceivable
from data_pipeline.near_candidates import candidates
from data_pipeline.near_moments import FINGERPRINT_BYTES, THUMBNAIL_PX, best_correlation, fingerprints

__all__ = [
    "DISTINCTION",
    "FINGERPRINT_BYTES",
    "THRESHOLD",
    "THUMBNAIL_PX",
    "NearPairs",
    "fingerprints",
    "near_duplicates",
]

# The least correlation of near duplicates, and by how many standard deviations it has to stand out from matches with
# strangers, of which larger sets of images offer more.
THRESHOLD = 0.7
DISTINCTION, DISTINCTION_AMONG = 9.0, 2500

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NearPairs:
    """Pairs of indices, `left[p] < right[p]`, in order, and their `similarity[p]` in 0 … 1.

    They connect all images found to be near duplicates of one another; of many copies not every pair is listed.
    """

    left: Indices
    right: Indices
    similarity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.left)


def distinction(images: int) -> float:
    """By how many standard deviations near duplicates stand out, among so many images.

    Among 2,000 made-up cells, 102 unrelated pairs stand out by 7.5, 29 by 9, 3 by 11, none by 12: with each, e^1.1
    times fewer. So much more, among more images, keeps false links per image, and with them chains of links, as rare as
    they are.
    """
    return DISTINCTION + 0.88 * float(np.log(max(1.0, images / DISTINCTION_AMONG)))


def near_duplicates(
    prints: NDArray[np.int8], rows: Indices | None = None, *, threshold: float = THRESHOLD, margin: float = 0.0
) -> NearPairs:
    """The near duplicates among `[n, 192] int8`. The same images are connected in whatever order they come.

    `rows` says which of `prints` to look at, in rising order, all by default: a selection would exist twice in memory.
    `margin` asks for so many standard deviations more than `distinction`.
    """
    rows = np.arange(len(prints)) if rows is None else rows
    # Many small matrix products: on a busy machine, threads that wait for each other cost ten times what they save.
    with threadpool_limits(limits=1, user_api="blas"):
        prints = np.ascontiguousarray(prints)
        return _near_duplicates(prints, rows, _Judge(prints, threshold, distinction(len(rows)) + margin))


def _near_duplicates(prints: NDArray[np.int8], rows: Indices, judge: "_Judge") -> NearPairs:
    kept, first, again = _distinct(prints, rows)
    accepted = judge.copies(first, again)
    found, labels = [accepted], np.arange(len(prints))
    for left, right in candidates(prints, kept, judge.least[kept]):
        labels = _joined(labels, accepted.left, accepted.right)
        apart = labels[kept[left]] != labels[kept[right]]
        accepted = judge.accepted(kept[left[apart]], kept[right[apart]])
        found.append(accepted)
    left, right, similarity = (
        np.concatenate([getattr(part, name) for part in found]) for name in ("left", "right", "similarity")
    )
    order = np.lexsort((right, left))
    return NearPairs(left[order], right[order], similarity[order])


class _Judge:
    """Decides about pairs; what is learnt about an image on the way is kept."""

    def __init__(self, prints: NDArray[np.int8], threshold: float, distinction: float) -> None:
        self._prints, self._threshold, self._distinction = prints, threshold, distinction
        # Of each image, the least Fisher z of a match that means something; unknown at first.
        self._least_z = np.full(len(prints), np.nan)
        # A lower bound of it, as a correlation, known of all.
        self.least = np.maximum(threshold, np.tanh(least_conceivable(prints, distinction=distinction)))

    def accepted(self, left: Indices, right: Indices) -> NearPairs:
        """Those of the pairs that are near duplicates."""
        least = np.maximum(self.least[left], self.least[right])
        similarity = best_correlation(self._prints, left, right, least=least)
        near = similarity >= least
        left, right, similarity = left[near], right[near], similarity[near]
        self._learn(np.union1d(left, right))
        near = fisher(similarity) >= np.maximum(self._least_z[left], self._least_z[right])
        low, high = np.minimum(left, right), np.maximum(left, right)
        return NearPairs(low[near], high[near], similarity[near])

    def copies(self, first: Indices, again: Indices) -> NearPairs:
        """The same of pairs that have one fingerprint: those of images with enough structure to be known by it."""
        known, which = np.unique(first, return_inverse=True)
        self._learn(known)
        near = (self._least_z[known] <= fisher(np.ones(1)))[which]
        return NearPairs(first[near], again[near], np.ones(np.count_nonzero(near)))

    def _learn(self, images: Indices) -> None:
        unknown = images[np.isnan(self._least_z[images])]
        self._least_z[unknown] = Background.of(self._prints[unknown]).least(distinction=self._distinction)


def _distinct(prints: NDArray[np.int8], rows: Indices) -> tuple[Indices, Indices, Indices]:
    """(one index of each fingerprint, in an order that is the contents' own; pairs with the same fingerprint).

    Of `rows` alone. Fingerprints without structure are left out.
    """
    keys = _keys(prints)
    order = rows[keys[rows].argsort(kind="stable")]
    order = order[np.asarray(prints.any(axis=1))[order]]
    new = np.ones(len(order), dtype=bool)
    same_key = np.flatnonzero(keys[order[1:]] == keys[order[:-1]]) + 1
    new[same_key] = (prints[order[same_key]] != prints[order[same_key - 1]]).any(axis=1)
    kept = order[new]
    return kept, kept[np.cumsum(new) - 1][~new], order[~new]


def _keys(prints: NDArray[np.int8]) -> NDArray[np.uint64]:
    """`[n, 192] int8` → `[n] uint64`: a number for the contents, as good as random (FNV-1a over words, then mixed)."""
    keys = np.full(len(prints), 0xCBF29CE484222325, dtype=np.uint64)
    for word in prints.view(np.uint64).T:
        keys = (keys ^ word) * np.uint64(0x100000001B3)
        keys ^= keys >> np.uint64(29)
    return keys


def _joined(labels: Indices, left: Indices, right: Indices) -> Indices:
    """`labels`, each the least index of those connected so far, after connecting the pairs as well."""
    labels = labels.copy()
    while len(left):
        a, b = labels[left], labels[right]
        np.minimum.at(labels, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(further := labels[labels], labels):
            labels = further
        apart = labels[left] != labels[right]
        left, right = left[apart], right[apart]
    return labels
