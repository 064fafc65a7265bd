"""A chunk of the inspection on the disk: what some files are, and the bytes that will be stored of them.

    write_chunk(path, rows, images, fingerprints)
    chunk = read_chunk(path)                      # None if it isn't there, or isn't whole
    data = read_image(folder, ImageRef("3f…", start=0, bytes=20311, crc32c=123))

Every input is read and decoded once, here; all later stages live on the chunks. One file holds, in this order: the
images; their fingerprints, `[rows, FINGERPRINT_BYTES]`; the rows, column by column, as JSON; a footer with the lengths
of these two and a checksum. Chunks aren't flushed to the disk one by one, which would cost more than making them:
after a power cut the checksums tell which to make again.
"""

import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import google_crc32c
import numpy as np
import xxhash
from numpy.typing import NDArray

from data_pipeline.cli import FaultError
from data_pipeline.near_moments import FINGERPRINT_BYTES
from data_pipeline.storage import atomic_file

SUFFIX = ".chunk"
LEVELS_ACROSS = 4


class ChunkLostError(FaultError):
    """A chunk isn't there or isn't whole. `name` is that of the chunk, without its suffix."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name = name

    def __str__(self) -> str:
        name, why = self.args
        return f"The images in {name}{SUFFIX} {why}. To fix it: run the same command again, which reads them anew."


_FOOTER = struct.Struct("<QQQ")


@dataclass(frozen=True, slots=True)
class InspectionRow:
    """What a file is. `reason` is empty for a usable image and says otherwise why it is refused.

    `sha256` is that of the file, `likeness` is equal for equal pixels (see `PreparedImage`), `levels` are the mean grey
    levels of the image in each of `LEVELS_ACROSS`² parts, all in hexadecimal. `kept` says that the file is
    stored as it is; `width` and `height` are those of the upright original; `contrast` is the standard deviation of the
    stored image in small, in grey levels of 255. `start`, `bytes` and `crc32c` say where in the chunk the image
    lies and how to know it again.
    """

    id: str
    sha256: str = ""
    reason: str = ""
    likeness: str = ""
    levels: str = ""
    kept: bool = False
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    contrast: float = 0.0
    start: int = 0
    bytes: int = 0
    crc32c: int = 0


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where an image lies: the chunk's name, and the row's `start`, `bytes` and `crc32c`."""

    chunk: str
    start: int
    bytes: int
    crc32c: int


COLUMNS = tuple(field.name for field in fields(InspectionRow))


@dataclass(frozen=True)
class Chunk:
    """`columns` maps each field of `InspectionRow` to its values; `fingerprints` is `[rows, FINGERPRINT_BYTES]`."""

    columns: dict[str, list[object]]
    fingerprints: NDArray[np.int8]


def write_chunk(
    path: Path, rows: Sequence[InspectionRow], images: Sequence[bytes], fingerprints: NDArray[np.int8]
) -> None:
    """Write a chunk, whole or not at all. `images` are those of the rows, empty for a refused one."""
    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    prints = fingerprints.tobytes()
    tail = prints + json.dumps(columns, separators=(",", ":")).encode()
    with atomic_file(path, flush=False) as file:
        for image in images:
            file.write(image)
        file.write(tail)
        file.write(_FOOTER.pack(len(prints), len(tail) - len(prints), _digest(path, tail)))


def _digest(path: Path, tail: bytes) -> int:
    """Of the rows and of the chunk's name, so that no chunk is taken for another."""
    return xxhash.xxh3_64_intdigest(path.name.encode() + tail)


def checksum(image: bytes) -> int:
    """The value of `InspectionRow.crc32c` for these bytes."""
    crc: int = google_crc32c.value(image)
    return crc


def read_chunk(path: Path) -> Chunk | None:
    """The rows of the chunk at `path`; None if it isn't there or isn't whole."""
    try:
        with path.open("rb") as file:
            file.seek(-_FOOTER.size, 2)
            prints, rows, expected = _FOOTER.unpack(file.read())
            file.seek(-_FOOTER.size - prints - rows, 2)
            tail = file.read(prints + rows)
    except (OSError, OverflowError, struct.error):  # overflow: a footer that is damaged
        return None
    if len(tail) != prints + rows or _digest(path, tail) != expected:
        return None
    fingerprints = np.frombuffer(tail, dtype=np.int8, count=prints).reshape(-1, FINGERPRINT_BYTES)
    return Chunk(json.loads(tail[prints:]), fingerprints)


def read_image(folder: Path | str, image: ImageRef) -> bytes:
    """The bytes of an image in a chunk of `folder`. Raises `ChunkLostError` if they aren't what was written.

    Such a chunk is removed, so that whoever needs it makes it again.
    """
    path = f"{folder}/{image.chunk}{SUFFIX}"  # for each record: a `Path` takes as long as all of the rest
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(descriptor, image.bytes, image.start)
        finally:
            os.close(descriptor)
    except OSError as error:
        Path(path).unlink(missing_ok=True)
        raise ChunkLostError(image.chunk, f"can't be read ({error.strerror})") from error
    if len(data) != image.bytes or checksum(data) != image.crc32c:
        Path(path).unlink(missing_ok=True)
        raise ChunkLostError(image.chunk, "aren't what was written")
    return data
