"""Stage 1: read and decode every file once, and write down what it is, beside the bytes that will be stored.

    chunks = plan_chunks(source, settings)
    inspect(source, chunks, work=Path("cervix.partial/inspect"), settings=settings, workers=2)

Files are taken in chunks (`spool.py`), each kept under a name derived from its files' names, sizes and times and from
how images are stored. So a chunk that exists is a chunk that is done, whoever made it, and a run that was interrupted
goes on after its last whole chunk.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.images import THUMBNAIL_PX, ImageRefusedError, PreparedImage, prepare
from data_pipeline.near_moments import fingerprints
from data_pipeline.parallel import in_processes
from data_pipeline.settings import Settings
from data_pipeline.sources import UNREADABLE, FileContents, Source, SourceFile, is_system_name
from data_pipeline.spool import LEVELS_ACROSS, SUFFIX, InspectionRow, checksum, read_chunk, write_chunk

CHUNK_FILES = 64
# Of a source that this process reads for all, whole chunks of files wait in memory.
SEQUENTIAL_CHUNK_FILES = 16
CHUNK_VERSION = 6  # raise it when a chunk's meaning changes: older ones are then read no more
# These turn the direction of text, so that a name reads as another.
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode categories: control, surrogate, line and paragraph ends


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """Files to be inspected together, and the name of the chunk they make."""

    name: str
    files: tuple[SourceFile, ...]

    @property
    def file_name(self) -> str:
        return self.name + SUFFIX


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file that was looked at: `image` is None and `reason` says why, or the other way round."""

    id: str
    sha256: str
    reason: str
    image: PreparedImage | None


def plan_chunks(source: Source, files: Sequence[SourceFile], settings: Settings) -> list[ChunkTask]:
    """`files` of `source`, cut into chunks in their order."""
    size = SEQUENTIAL_CHUNK_FILES if source.sequential else CHUNK_FILES
    parts = (tuple(files[start : start + size]) for start in range(0, len(files), size))
    return [ChunkTask(_chunk_name(source, part, settings), part) for part in parts]


def inspect(source: Source, chunks: Sequence[ChunkTask], *, work: Path, settings: Settings, workers: int) -> None:
    """Make those of `chunks` that aren't there yet. Never fails because of one file."""
    todo = [chunk for chunk in chunks if not _is_done(work / chunk.file_name)]
    look = partial(_inspect_chunk, source=source, work=work, settings=settings)
    # A sequential source is read here, by the one process that may, while others decode.
    tasks = _read_on(source, todo) if source.sequential else ((chunk, None) for chunk in todo)
    done = in_processes(
        look,
        tasks,
        count=len(todo),
        workers=workers,
        title="inspect",
        total=sum(len(chunk.files) for chunk in todo),
        size=lambda task: len(task[0].files),
    )
    for _ in done:
        pass


def inputs_sha256(source: Source, files: Sequence[SourceFile], *, workers: int) -> str:
    """One hash over every input's name and contents: equal if and only if nothing changed."""
    parts = [tuple(files[start : start + 1024]) for start in range(0, len(files), 1024)]
    if source.sequential:
        workers, parts = 1, [tuple(files)]
    found = in_processes(
        partial(_hash_files, source),
        parts,
        count=len(parts),
        workers=workers,
        title="compare",
        total=len(files),
        size=len,
    )
    digests = [digest for part in found for digest in part]
    by_id = sorted(zip((file.id for file in files), digests, strict=True))
    return combine_sha256(by_id)


def combine_sha256(named: Iterable[tuple[str, str]]) -> str:
    """The hash `inputs_sha256` gives for these (id, SHA-256 of the contents), in the order of their ids."""
    total = hashlib.sha256()
    for name, digest in named:
        total.update(f"{digest}\0{name}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def inspect_file(file: SourceFile, contents: FileContents, settings: Settings) -> Inspected:
    """Hash and fully decode one file."""
    if contents.data is None:
        return Inspected(file.id, "", contents.reason, None)
    digest = hashlib.sha256(contents.data).hexdigest()
    reason = refused_by_name(file)
    if reason:
        return Inspected(file.id, digest, reason, None)
    size_px, encoding, quality = settings.stored_as
    try:
        image = prepare(contents.data, size_px=size_px, encoding=encoding, quality=quality)
    except ImageRefusedError as error:
        return Inspected(file.id, digest, str(error), None)
    return Inspected(file.id, digest, "", image)


def refused_by_name(file: SourceFile) -> str:
    """Why a file of that name is no image of ours; empty if it may be one."""
    if any(is_system_name(part) for part in file.id.split("/")):
        return "hidden or system file"
    if not file.diagnosis:
        return "not inside a diagnosis folder"
    if not file.id.isprintable() and any(
        character in TURNING or unicodedata.category(character) in UNPRINTABLE for character in file.id
    ):
        return "the name holds characters that can't be printed: rename the file"
    return ""


def _read_on(source: Source, todo: Sequence[ChunkTask]) -> Iterator[tuple[ChunkTask, list[FileContents] | None]]:
    contents = source.read([file for chunk in todo for file in chunk.files])
    for chunk in todo:
        yield chunk, [next(contents) for _ in chunk.files]


def _inspect_chunk(
    task: tuple[ChunkTask, list[FileContents] | None], *, source: Source, work: Path, settings: Settings
) -> None:
    chunk, contents = task
    pairs = zip(chunk.files, contents or source.read(chunk.files), strict=True)
    found = [inspect_file(file, content, settings) for file, content in pairs]
    blank = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX), dtype=np.uint8)
    thumbnails = np.stack([one.image.thumbnail if one.image else blank for one in found])
    contrast = _contrast(thumbnails).round(1).tolist()
    levels = _levels(thumbnails)
    images = [one.image.stored if one.image else b"" for one in found]
    starts = accumulate(map(len, images), initial=0)
    rows = [_row(*values) for values in zip(found, starts, contrast, levels, strict=False)]
    write_chunk(work / chunk.file_name, rows, images, fingerprints(thumbnails))


def _contrast(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """`[n, h, w]` → `[n]`: standard deviations, from sums of whole numbers, which are the same on any machine."""
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(np.int32)
    mean = pixels.sum(axis=1) / pixels.shape[1]
    mean_square = np.einsum("np,np->n", pixels, pixels) / pixels.shape[1]
    return np.asarray(np.sqrt(np.maximum(mean_square - mean**2, 0)))


def _levels(thumbnails: NDArray[np.uint8]) -> list[str]:
    """`[n, h, w]` → the mean of each part of each, as hexadecimal numbers."""
    px = THUMBNAIL_PX // LEVELS_ACROSS
    band = np.kron(np.eye(LEVELS_ACROSS, dtype=np.float32), np.ones(px, dtype=np.float32))
    sums = band @ (thumbnails.astype(np.float32) @ band.T)  # of whole numbers below 2²⁴, which float32 adds up exactly
    return [one.tobytes().hex() for one in (sums // px**2).astype(np.uint8)]


def _row(found: Inspected, start: int, contrast: float, levels: str) -> InspectionRow:
    image = found.image
    if image is None:
        return InspectionRow(found.id, found.sha256, found.reason)
    return InspectionRow(
        id=found.id,
        sha256=found.sha256,
        likeness=image.likeness.hex(),
        levels=levels,
        kept=image.kept,
        width=image.width,
        height=image.height,
        format=image.format,
        mode=image.mode,
        contrast=contrast,
        start=start,
        bytes=len(image.stored),
        crc32c=checksum(image.stored),
    )


def _is_done(path: Path) -> bool:
    """Whether a chunk is there. One with a file that couldn't be read is made again: it may be readable by now."""
    if not path.exists():
        return False
    chunk = read_chunk(path)
    return chunk is not None and not any(str(reason).startswith(UNREADABLE) for reason in chunk.columns["reason"])


def _hash_files(source: Source, files: Sequence[SourceFile]) -> list[str]:
    contents = (found.data for found in source.read(files))
    return ["" if data is None else hashlib.sha256(data).hexdigest() for data in contents]


def _chunk_name(source: Source, files: Sequence[SourceFile], settings: Settings) -> str:
    """Changes with any file's name, size or time of change, so that a stale chunk is never taken for this one."""
    key = hashlib.sha256(f"chunk {CHUNK_VERSION} {settings.stored_as}\n".encode())
    for file in files:
        key.update(f"{source.stamp(file)} {file.diagnosis}\0{file.id}\n".encode(errors="surrogateescape"))
    return key.hexdigest()[:32]
