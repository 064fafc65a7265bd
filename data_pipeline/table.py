"""All rows of the inspection, column by column: two million of them are a few hundred megabytes.

    table = load_table(work / "inspect", ["3f…", "a0…"])
    table.ids[7], table.width[7]

Rows are ordered by id, whatever order the files were read in.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.near_moments import FINGERPRINT_BYTES
from data_pipeline.spool import (
    COLUMNS,
    LEVELS_ACROSS,
    SUFFIX,
    Chunk,
    ChunkLostError,
    ImageRef,
    InspectionRow,
    read_chunk,
)

SHA256_BYTES, LIKENESS_BYTES, LEVELS_BYTES = 32, 16, LEVELS_ACROSS**2


@dataclass(frozen=True)
class Table:
    """`n` files. Arrays are `[n]` unless said otherwise; refused files have zeros where an image has something.

    `reasons` holds the refused alone: row → reason. `sha256` is `[n, 32]`, `likeness` and `levels` are `[n, 16]`, all
    uint8; `fingerprints` is `[n, FINGERPRINT_BYTES] int8`. `kind` numbers `kinds`, pairs of format and mode; `chunk`
    numbers `chunks`.
    """

    chunks: tuple[str, ...]
    ids: list[str]
    reasons: dict[int, str]
    sha256: NDArray[np.uint8]
    likeness: NDArray[np.uint8]
    levels: NDArray[np.uint8]
    kept: NDArray[np.bool_]
    fingerprints: NDArray[np.int8]
    width: NDArray[np.int32]
    height: NDArray[np.int32]
    kind: NDArray[np.int32]
    kinds: tuple[tuple[str, str], ...]
    contrast: NDArray[np.float32]
    chunk: NDArray[np.int32]
    start: NDArray[np.int64]
    bytes: NDArray[np.int32]
    crc32c: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.ids)

    def usable(self) -> NDArray[np.int64]:
        """The rows of images that aren't refused."""
        keep = np.ones(len(self), dtype=bool)
        keep[list(self.reasons)] = False
        return np.flatnonzero(keep)

    def image(self, row: int) -> ImageRef:
        """Where the image of a row lies."""
        place = (self.start, self.bytes, self.crc32c)
        return ImageRef(self.chunks[self.chunk[row]], *(int(column[row]) for column in place))

    def find(self, name: str) -> int:
        """The row of the file with that id, which must be there."""
        return bisect_left(self.ids, name)

    def of_format(self, name: str) -> NDArray[np.bool_]:
        """Which files are of a format, by its name in Pillow."""
        return np.asarray([kind[0] == name for kind in self.kinds], dtype=bool)[self.kind]

    def diagnosis(self, row: int) -> str:
        return self.ids[row].partition("/")[0]

    def named_digests(self) -> Iterator[tuple[str, str]]:
        """(id, SHA-256 in hexadecimal) of each file; the hash is empty for a file that couldn't be read."""
        nothing = bytes(SHA256_BYTES)
        for name, digest in zip(self.ids, map(bytes, self.sha256), strict=True):
            yield name, "" if digest == nothing else digest.hex()


def load_table(folder: Path, chunks: Sequence[str]) -> Table:
    """The rows of these chunks. Raises `ChunkLostError` if one of them is missing or damaged."""
    if not chunks:
        return table_of([])
    return _assemble(tuple(chunks), (_load(folder, name) for name in chunks))


def table_of(rows: Sequence[InspectionRow], fingerprints: NDArray[np.int8] | None = None) -> Table:
    """A table that was never on the disk."""
    columns: dict[str, list[object]] = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    if fingerprints is None:
        fingerprints = np.zeros((len(rows), FINGERPRINT_BYTES), dtype=np.int8)
    return _assemble(("",), iter([Chunk(columns, fingerprints)]))


def _load(folder: Path, name: str) -> Chunk:
    path = folder / (name + SUFFIX)
    chunk = read_chunk(path)
    if chunk is None:
        path.unlink(missing_ok=True)
        raise ChunkLostError(name, "are missing or damaged")
    return chunk


def _assemble(names: tuple[str, ...], chunks: Iterator[Chunk]) -> Table:
    ids: list[str] = []
    reasons: list[str] = []
    kinds: dict[tuple[str, str], int] = {}
    parts: dict[str, list[NDArray[np.generic]]] = {}

    def add(name: str, values: object, dtype: str) -> None:
        parts.setdefault(name, []).append(np.asarray(values, dtype=dtype))

    for number, chunk in enumerate(chunks):
        columns = chunk.columns
        ids += columns["id"]  # type: ignore[arg-type]
        reasons += columns["reason"]  # type: ignore[arg-type]
        pairs = zip(columns["format"], columns["mode"], strict=True)
        add("kind", [kinds.setdefault(pair, len(kinds)) for pair in pairs], "i4")  # type: ignore[arg-type]
        add("chunk", np.full(len(columns["id"]), number), "i4")
        add("sha256", _unhex(columns["sha256"], SHA256_BYTES), "u1")
        add("likeness", _unhex(columns["likeness"], LIKENESS_BYTES), "u1")
        add("levels", _unhex(columns["levels"], LEVELS_BYTES), "u1")
        add("fingerprints", chunk.fingerprints, "i1")
        for name, dtype in _NUMBERS.items():
            add(name, columns[name], dtype)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    arrays = {}
    for name in list(parts):  # one after another, so that no more than one exists twice
        arrays[name] = np.concatenate(parts.pop(name))[order]
    return Table(
        chunks=names,
        ids=[ids[row] for row in order],
        reasons={row: reasons[old] for row, old in enumerate(order) if reasons[old]},
        kinds=tuple(kinds),
        **arrays,
    )


_NUMBERS = {"kept": "?", "width": "i4", "height": "i4", "contrast": "f4", "start": "i8", "bytes": "i4", "crc32c": "u4"}


def _unhex(values: list[object], length: int) -> NDArray[np.uint8]:
    text = "".join(str(value) or "00" * length for value in values)
    return np.frombuffer(bytes.fromhex(text), dtype=np.uint8).reshape(-1, length)
