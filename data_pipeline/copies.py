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


@dataclass(frozen=True, slots=True)
class Copies:
    """`kept` are the rows to be written, in order; `pairs` ties each copy's row to that of the first of its kind."""

    kept: NDArray[np.int64]
    left_out: list[QuarantineRow]
    pairs: list[tuple[int, int]]


def find_copies(table: Table, rows: NDArray[np.int64], identify: Callable[[int], bytes]) -> Copies:
    """Copies among `rows` of `table`, which are in the order of their ids.

    `identify(row)` is equal for equal pixels. It is asked only where `likeness` is equal and files differ.
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
