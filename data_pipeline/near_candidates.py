"""Which pairs of fingerprints are worth comparing: near linear in their number, however many lie close together. Pure.

    for left, right in candidates(prints, kept): ...    # one round per table, indices into `kept`, left < right

What turning and mirroring leave alone, amplitudes and bispectra, is seen through three windows onto the rings, so that
zoomed copies meet too. The views are sorted by which side of random cuts they lie on, a cut being halfway along the
difference of two of them (random projection trees: Dasgupta and Freund, STOC 2008), and each is compared with its
neighbours in that order by one matrix product. A stretch of the order has the same length wherever it lies, so a pile
of look-alikes costs what any other images cost.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_pipeline.near_moments import ORDERS, Spectra, spectra

TABLES = 8
STRETCH, STRETCHES_AT_ONCE = 256, 16
ROWS_AT_ONCE = 16384
# Whatever the zoom between two images, up to three rings, one of these windows on one shows what one on the other does.
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
# On average over a stretch. Of more, each view keeps its best: copies need to be connected, not all paired.
LIKE_PER_VIEW = 4

Indices = NDArray[np.int64]


def candidates(prints: NDArray[np.int8], kept: Indices) -> Iterator[tuple[Indices, Indices]]:
    """Pairs among `prints[kept]`, `[n, 192] int8`, table by table, none twice in a table."""
    n = len(kept)
    if n < 2:
        return
    views = _views(prints, kept)
    doublings = max(0.0, float(np.log2(n / FEW_IMAGES)))
    likeness = min(MOST_LIKENESS, LEAST_LIKENESS + LIKENESS_PER_DOUBLING * doublings)
    for table in range(TABLES if len(views) > STRETCH else 1):
        order = _order(views, table)
        pairs = [_alike(views, stretches, n, likeness) for stretches in _stretches(order)]
        keys = np.unique(np.concatenate(pairs))
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
    halves = np.median(views[:: max(1, rows // ROWS_AT_ONCE)].astype(np.float32) @ directions, axis=0)
    weights = 2 ** np.arange(cuts)[::-1]
    keys = np.empty(rows, dtype=np.int64)
    for start in range(0, rows, ROWS_AT_ONCE):
        along = views[start : start + ROWS_AT_ONCE].astype(np.float32) @ directions
        sides = (along[:, :cuts] > halves[:cuts]) @ weights
        # The last direction's value is a whole number of 23 bits and a sign.
        keys[start : start + ROWS_AT_ONCE] = sides * 2**24 + along[:, cuts].astype(np.int64) + 2**23
    return keys.argsort(kind="stable")


def _stretches(order: Indices) -> Iterator[Indices]:
    """`order` in stretches of equal length, `[some, stretch]`; the last one reaches back into the one before it."""
    length = min(STRETCH, len(order))
    whole = len(order) // length
    rows = order[: whole * length].reshape(whole, length)
    for start in range(0, whole, STRETCHES_AT_ONCE):
        yield rows[start : start + STRETCHES_AT_ONCE]
    if len(order) % length:
        yield order[None, -length:]


def _alike(views: NDArray[np.int8], stretches: Indices, n: int, likeness: float) -> Indices:
    """Pairs of images, as left · n + right, that have like views in one of `[some, stretch]`."""
    length = stretches.shape[1]
    block = views[stretches].astype(np.float32)
    products: NDArray[np.float32] = block @ block.transpose(0, 2, 1)
    cells = np.flatnonzero(products > likeness * VIEW_SQUARE)
    stretch = cells // length**2
    crowded = np.bincount(stretch, minlength=len(stretches)) > (2 * LIKE_PER_VIEW + 1) * length
    cells = cells[~crowded[stretch]]
    cells = np.concatenate(
        [cells, *(_best(products, stretches % n, which, likeness) for which in np.flatnonzero(crowded).tolist())]
    )
    stretch, row, column = np.unravel_index(cells, products.shape)
    left, right = stretches[stretch, row] % n, stretches[stretch, column] % n
    low, high = np.minimum(left, right), np.maximum(left, right)
    return np.unique((low * n + high)[low < high])


def _best(products: NDArray[np.float32], images: Indices, which: int, likeness: float) -> Indices:
    """In one stretch, the cells of the most alike of the views of other images before, and after, each view."""
    length = images.shape[1]
    others = products[which] * (images[which][:, None] != images[which])
    before = np.tri(length, k=-1, dtype=bool)
    rows = np.tile(np.arange(length), 2)
    columns = np.concatenate([(others * half).argmax(axis=1) for half in (before, before.T)])
    alike = others[rows, columns] > likeness * VIEW_SQUARE
    return np.asarray(which * length**2 + rows[alike] * length + columns[alike])
