"""Images that are there more than once, pixel for pixel. Pure but for what it asks about pixels.

    copies = find_copies(table, table.usable(), identify)

Of copies under one diagnosis the first by id is kept. The same image under two diagnoses teaches nothing but
contradiction: none of them is.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.manifest import QuarantineRow
from data_pipeline.table import Table

# By how many grey levels of 255 the mean of a sixteenth of an image may differ between two ways to make its thumbnail.
# Of 300 real images, at two sizes, it was 1.1 at most at JPEG qualities of 30 to 95, and 7.7 at 5.
LEVELS_APART = 8


@dataclass(frozen=True, slots=True)
class Copies:
    """`kept` are the rows to be written, in order; `pairs` ties each copy's row to that of the first of its kind."""

    kept: NDArray[np.int64]
    left_out: list[QuarantineRow]
    pairs: list[tuple[int, int]]


def find_copies(table: Table, rows: NDArray[np.int64], identify: Callable[[int], bytes]) -> Copies:
    """Copies among `rows` of `table`, which are in the order of their ids.

    `identify(row)` is equal for equal pixels. It is asked only where images look the same and files differ.
    """
    left_out: list[QuarantineRow] = []
    pairs: list[tuple[int, int]] = []
    dropped: list[int] = []
    alike = _alike(table, rows)
    for same in (equal for group in alike for equal in _equal(table, group, identify)):
        first = same[0]
        pairs += [(first, row) for row in same[1:]]
        diagnoses = sorted({table.diagnosis(row) for row in same})
        if len(diagnoses) > 1:
            reason = f"label conflict: the same image stands under {' and '.join(diagnoses)}"
            left_out += [QuarantineRow(table.ids[row], "quarantined", reason, "") for row in same]
            dropped += same
            continue
        for row in same[1:]:
            reason = "same file" if _same_file(table, row, first) else "same pixels in another file"
            left_out.append(QuarantineRow(table.ids[row], "duplicate", reason, table.ids[first]))
        dropped += same[1:]
    return Copies(np.setdiff1d(rows, dropped), left_out, pairs)


def _alike(table: Table, rows: NDArray[np.int64]) -> Iterator[list[int]]:
    """Rows that may be of one picture, where there are several; each row in one list, in the order of the ids."""
    across = set(_alike_across(table, rows).tolist())
    together = set(across)
    for alike in _equal_likeness(table, rows):
        if across.isdisjoint(alike):
            yield alike
        else:
            together.update(alike)
    if together:
        yield sorted(together)


def _alike_across(table: Table, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """JPEGs that were kept, and other images as large, which differ by no more than their thumbnails may.

    Their thumbnails were made in two ways, so that likeness tells nothing. Of images that all are kept JPEGs, or that
    none is, this finds none.
    """
    halved = (table.kept & table.of_format("JPEG"))[rows]
    some, others = rows[halved], rows[~halved]
    if not (len(some) and len(others)):
        return rows[:0]
    others = others[(table.width[others] == table.width[some[0]]) & (table.height[others] == table.height[some[0]])]
    return np.concatenate([_with_neighbour(table, some, others), _with_neighbour(table, others, some)])


def _with_neighbour(table: Table, rows: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of `rows` that have one of `others` within `LEVELS_APART` in every part."""
    # Hardly ever needed, and takes as long to import as all the rest.
    from scipy.spatial import KDTree  # type: ignore[import-untyped]

    if not len(others):
        return others
    tree = KDTree(table.levels[others])
    distance, _ = tree.query(table.levels[rows], p=np.inf, distance_upper_bound=LEVELS_APART + 0.5)
    return np.asarray(rows[np.isfinite(distance)])


def _equal_likeness(table: Table, rows: NDArray[np.int64]) -> Iterator[list[int]]:
    """Rows of equal likeness, where there are several; each list in the order of the ids."""
    if not len(rows):
        return
    keys = np.ascontiguousarray(table.likeness[rows]).view("<u8")
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal keys stay in the order of their ids
    keys, rows = keys[order], rows[order]
    starts = np.flatnonzero(np.r_[True, (keys[1:] != keys[:-1]).any(axis=1)])
    sizes = np.diff(np.r_[starts, len(rows)])
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        yield rows[start : start + size].tolist()


def _equal(table: Table, alike: list[int], identify: Callable[[int], bytes]) -> list[list[int]]:
    """Those of `alike` that have equal pixels, where there are several."""
    files: dict[bytes, list[int]] = {}
    for row in alike:
        files.setdefault(table.sha256[row].tobytes(), []).append(row)
    if len(files) == 1:
        return [alike]
    pictures: dict[bytes, list[int]] = {}
    for same_file in files.values():
        pictures.setdefault(identify(same_file[0]), []).extend(same_file)
    return [sorted(same) for same in pictures.values() if len(same) > 1]


def _same_file(table: Table, one: int, other: int) -> bool:
    return bool((table.sha256[one] == table.sha256[other]).all())
