"""Which pairs of fingerprints are worth comparing: near linear in their number, however many lie close together. Pure.

    for left, right in candidates(prints, kept): ...    # one round per table, indices into `kept`, left < right

What turning and mirroring leave alone, amplitudes and bispectra, is seen through three windows onto the rings, so that
zoomed copies meet too. The views are sorted by which side of random cuts they lie on, a cut being halfway along the
difference of two of them (random projection trees: Dasgupta and Freund, STOC 2008), and each is compared with its
neighbours in that order by one matrix product. A stretch of the order has the same length wherever it lies, so a pile
of look-alikes costs what any other images cost. Of a thousand images or fewer, every view is compared with every other.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_pipeline.near_moments import ORDERS, Spectra, spectra

# Where more images lie between two copies, more tables are needed for one in which the copies are neighbours.
TABLES, TABLES_PER_DOUBLING = 4, 1.25
STRETCH, STRETCHES_AT_ONCE = 128, 32
FEW_ENOUGH_FOR_ALL = 1000
# So many pairs of an image, on average, are worth a round of comparisons, after which those connected needn't be
# compared. Fewer wait for the next table's, which are often the same ones.
PAIRS_PER_ROUND = 4
ROWS_AT_ONCE, ROWS_FOR_MEDIAN = 4096, 1024
# Every other ring is enough. Whatever the zoom between two images, up to three rings, one window on the one shows what
# another window on the other does.
WINDOWS = tuple(slice(first, first + 9, 2) for first in (0, 1, 3))
VIEW_RINGS = 5
KINDS = (slice(0, VIEW_RINGS * ORDERS), slice(VIEW_RINGS * ORDERS, VIEW_RINGS * (2 * ORDERS - 1)))
FEATURES = VIEW_RINGS * (2 * ORDERS - 1)
# Products of views of this length are whole numbers below 2²⁴, which float32 adds up exactly in any order.
KIND_LENGTH = 280
VIEW_SQUARE = 2 * KIND_LENGTH**2
# The cosine above which two views are alike; stricter where so many images make chance likenesses common.
LEAST_LIKENESS, MOST_LIKENESS, LIKENESS_PER_DOUBLING, FEW_IMAGES = 0.45, 0.75, 0.03, 2000
# By how much less alike, at most, two images' views are than the images: true of all but 2 of 560 real pairs that were
# made by turning, zooming and cropping.
MOST_UNLIKE = 0.25
# On average over a stretch. Of more, each view keeps its best: copies need to be connected, not all paired.
LIKE_PER_VIEW = 2

Indices = NDArray[np.int64]


def candidates(
    prints: NDArray[np.int8], kept: Indices, needed: NDArray[np.float64]
) -> Iterator[tuple[Indices, Indices]]:
    """Pairs among `prints[kept]`, `[n, 192] int8`, round by round, none twice in a round.

    `needed`, `[n]`: the correlation that a copy of each has to have.
    """
    n = len(kept)
    if n < 2:
        return
    views = _views(prints, kept)
    doublings = max(0.0, float(np.log2(n / FEW_IMAGES)))
    likeness = min(MOST_LIKENESS, LEAST_LIKENESS + LIKENESS_PER_DOUBLING * doublings)
    least = np.maximum(likeness, needed - MOST_UNLIKE).astype(np.float32)
    tables = TABLES + round(TABLES_PER_DOUBLING * doublings) if n > FEW_ENOUGH_FOR_ALL else 1
    waiting: list[Indices] = []
    for table in range(tables):
        order = _order(views, table)
        stretches = _stretches(order) if n > FEW_ENOUGH_FOR_ALL else _all_pairs(order)
        waiting += [_alike(views, some, least) for some in stretches]
        if table == tables - 1 or sum(map(len, waiting)) > PAIRS_PER_ROUND * n:
            keys = np.unique(np.concatenate(waiting))
            waiting.clear()
            yield keys // n, keys % n


def _views(prints: NDArray[np.int8], kept: Indices) -> NDArray[np.int8]:
    """`[windows · n, features] int8`: the invariants in each window, less the mean of all, at one length."""
    n = len(kept)
    views = np.empty((len(WINDOWS), n, FEATURES), dtype=np.int8)
    for start in range(0, n, ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        kinds = _invariants(spectra(prints[kept[part]]))
        for view, rings in enumerate(WINDOWS):
            views[view, part] = np.concatenate([kind[:, rings].reshape(len(kind), -1) for kind in kinds], axis=1)
    rows = views.reshape(-1, FEATURES)
    mean = rows.sum(axis=0, dtype=np.int64) // len(rows)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        for kind in KINDS:
            some = rows[start : start + ROWS_AT_ONCE, kind]
            centred = some.astype(np.int64) - mean[kind]
            length = np.sqrt(np.maximum(np.square(centred).sum(axis=1), 1))
            some[...] = np.clip(np.rint(centred * (KIND_LENGTH / length)[:, None]), -127, 127)
    return rows


def _invariants(values: Spectra) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What turning and mirroring leave alone: `[n, rings, orders]` amplitudes and `[n, rings, orders - 1]` bispectra.

    Roots, so that the strongest few don't decide alone, scaled to fit a byte.
    """
    power = np.square(values.real) + np.square(values.imag)
    # The phases of orders 1, m and m + 1 turn by θ, mθ and (m + 1)θ, so those of this product cancel.
    bispectra = (values[:, :, :1] * values[:, :, :-1] * values[:, :, 1:].conj()).real
    roots = np.sqrt(np.sqrt(np.abs(bispectra)))
    return np.rint(9 * np.sqrt(np.sqrt(power))), np.rint(2.5 * np.copysign(roots, bispectra))


def _order(views: NDArray[np.int8], table: int) -> Indices:
    """The views, sorted by the sides they lie on of each cut in turn; within the last cell, along a last direction."""
    rows = len(views)
    cuts = max(0, int(np.ceil(np.log2(rows / STRETCH))))
    # Unlike newer generators, this one keeps its numbers in every version of NumPy.
    ends = np.random.RandomState(table).randint(0, rows, (2, cuts + 1))
    directions = (views[ends[0]].astype(np.float32) - views[ends[1]]).T
    sample = views[:: max(1, rows // ROWS_FOR_MEDIAN)]
    halves = np.median(sample.astype(np.float32) @ directions, axis=0)
    weights = (2 ** np.arange(cuts)[::-1]).astype(np.float32)
    bits = rows.bit_length()
    keys = np.empty(rows, dtype=np.int64)
    for start in range(0, rows, ROWS_AT_ONCE):
        along = views[start : start + ROWS_AT_ONCE].astype(np.float32) @ directions
        sides = ((along[:, :cuts] > halves[:cuts]) @ weights).astype(np.int64)
        # The last direction's value is a whole number of 23 bits and a sign.
        some = keys[start : start + ROWS_AT_ONCE]
        some[...] = sides * 2**24 + along[:, cuts].astype(np.int64) + 2**23
        # A row's number in the lowest bits decides between equal keys, whatever way of sorting NumPy chooses.
        some <<= bits
        some += np.arange(start, start + len(some))
    keys.sort()
    keys &= 2**bits - 1
    return keys


def _stretches(order: Indices) -> Iterator[Indices]:
    """`order` in stretches of equal length, `[some, stretch]`; the last one reaches back into the one before it."""
    length = min(STRETCH, len(order))
    whole = len(order) // length
    rows = order[: whole * length].reshape(whole, length)
    for start in range(0, whole, STRETCHES_AT_ONCE):
        yield rows[start : start + STRETCHES_AT_ONCE]
    if len(order) % length:
        yield order[None, -length:]


def _all_pairs(order: Indices) -> Iterator[Indices]:
    """As `_stretches`, but such that any two views lie in one of them: each two halves of a stretch together."""
    length = min(STRETCH // 2, len(order))
    starts = np.minimum(np.arange(0, len(order), length), len(order) - length)
    halves = order[starts[:, None] + np.arange(length)]
    first, second = np.triu_indices(len(halves), k=min(1, len(halves) - 1))
    for start in range(0, len(first), STRETCHES_AT_ONCE):
        part = slice(start, start + STRETCHES_AT_ONCE)
        yield np.concatenate([halves[first[part]], halves[second[part]]], axis=1)


def _alike(views: NDArray[np.int8], stretches: Indices, least: NDArray[np.float32]) -> Indices:
    """Pairs of images, as left · n + right, that have views as alike as both need in one of `[some, stretch]`."""
    n, length = len(least), stretches.shape[1]
    images = stretches % n
    block = views[stretches].astype(np.float32)
    products: NDArray[np.float32] = block @ block.transpose(0, 2, 1)
    alike = products > (least[images] * np.float32(VIEW_SQUARE))[:, :, None]
    crowded = np.count_nonzero(alike, axis=(1, 2)) > (2 * LIKE_PER_VIEW + 1) * length
    few = np.flatnonzero(~crowded)
    stretch, row, column = np.unravel_index(np.flatnonzero(alike[few]), (len(few), length, length))
    cells = [(few[stretch], row, column)]
    if crowded.any():
        cells += _best(products, images, np.flatnonzero(crowded))
    stretch, row, column = (np.concatenate(part) for part in zip(*cells, strict=True))
    left, right = images[stretch, row], images[stretch, column]
    near = products[stretch, row, column] > np.maximum(least[left], least[right]) * np.float32(VIEW_SQUARE)
    low, high = np.minimum(left, right), np.maximum(left, right)
    return np.unique((low * n + high)[near & (low < high)])


def _best(products: NDArray[np.float32], images: Indices, crowded: Indices) -> list[tuple[Indices, Indices, Indices]]:
    """In crowded stretches, the cells of the most alike of the views of other images before, and after, each view."""
    _forget_same_image(products, images, crowded)
    before = np.tri(images.shape[1], k=-1, dtype=np.float32)
    cells = []
    for half in (before, before.T):
        column = (products[crowded] * half).argmax(axis=2)
        row = np.broadcast_to(np.arange(images.shape[1]), column.shape)
        cells.append((crowded.repeat(images.shape[1]), row.ravel(), column.ravel()))
    return cells


def _forget_same_image(products: NDArray[np.float32], images: Indices, crowded: Indices) -> None:
    """Sets the products of an image's own views to 0, in crowded stretches."""
    order = images[crowded].argsort(axis=1)
    in_order = np.take_along_axis(images[crowded], order, axis=1)
    for apart in range(1, len(WINDOWS)):
        which, at = np.nonzero(in_order[:, apart:] == in_order[:, :-apart])
        one, other = order[which, at], order[which, at + apart]
        products[crowded[which], one, other] = products[crowded[which], other, one] = 0
