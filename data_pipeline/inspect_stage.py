"""Stage 1: look at every file once and write down what it is.

    rows = inspect(folder, files, work=Path("cervix.partial/inspect"), workers=2)

Files are taken in chunks; a finished chunk is kept under a name derived from the files' names, sizes and times, so
that an interrupted run goes on after the last whole chunk.
"""

import hashlib
import json
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from data_pipeline.discover import SourceFile, is_system_name
from data_pipeline.images import ImageRefusedError, decode, pixel_hash
from data_pipeline.parallel import in_processes
from data_pipeline.storage import write_atomic

CHUNK_FILES = 64
ROW_VERSION = 1  # raise it when a row's meaning changes: older chunks are then read no more
MAX_FILE_BYTES = 1 << 30
UNREADABLE = "can't be read"
UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})  # Unicode categories: control, surrogate, line and paragraph ends


@dataclass(frozen=True, slots=True)
class InspectionRow:
    """What a file is. `reason` is empty for a usable image and says otherwise why it is refused.

    `plain` says that any decoder turns the file itself into the pixels that were hashed.
    """

    id: str
    diagnosis: str
    sha256: str
    reason: str = ""
    pixel_hash: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    plain: bool = False


def inspect(folder: Path, files: Sequence[SourceFile], *, work: Path, workers: int) -> list[InspectionRow]:
    """A row for each of `files`, in their order. Never fails because of one file."""
    chunks = [files[start : start + CHUNK_FILES] for start in range(0, len(files), CHUNK_FILES)]
    look = partial(_inspect_chunk, folder, work)
    found = in_processes(look, chunks, workers=workers, title="inspect", size=len)
    return [row for rows in found for row in rows]


def inspect_file(folder: Path, file: SourceFile) -> InspectionRow:
    """Read, hash and fully decode one file."""
    data, reason = _read(folder / file.id)
    if data is None:
        return InspectionRow(file.id, file.diagnosis, "", reason=reason)
    digest = hashlib.sha256(data).hexdigest()
    reason = _refused_by_name(file)
    if reason:
        return InspectionRow(file.id, file.diagnosis, digest, reason=reason)
    try:
        image = decode(data)
    except ImageRefusedError as error:
        return InspectionRow(file.id, file.diagnosis, digest, reason=str(error))
    height, width, _ = image.pixels.shape
    identity = pixel_hash(image.pixels)
    return InspectionRow(
        file.id, file.diagnosis, digest, "", identity, width, height, image.format, image.mode, image.plain
    )


def inputs_sha256(folder: Path, files: Sequence[SourceFile], *, workers: int) -> str:
    """One hash over every input's name and contents: equal if and only if nothing changed."""
    chunks = [files[start : start + 1024] for start in range(0, len(files), 1024)]
    hashes = in_processes(partial(_hash_chunk, folder), chunks, workers=workers, title="compare", size=len)
    return combine_sha256((file.id for file in files), (digest for chunk in hashes for digest in chunk))


def combine_sha256(ids: Iterable[str], digests: Iterable[str]) -> str:
    """The hash `inputs_sha256` gives for these files with contents of these SHA-256."""
    total = hashlib.sha256()
    for name, digest in zip(ids, digests, strict=True):
        total.update(f"{digest}\0{name}\n".encode(errors="surrogateescape"))
    return total.hexdigest()


def _read(path: Path) -> tuple[bytes | None, str]:
    """A file's bytes, or None and the reason why it isn't read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return None, "not a regular file"
        if status.st_size > MAX_FILE_BYTES:
            return None, f"{status.st_size / 2**30:.1f} GiB: too large for one image, cut it into tiles"
        return path.read_bytes(), ""
    except OSError as error:
        return None, f"{UNREADABLE}: {error.strerror}"


def _refused_by_name(file: SourceFile) -> str:
    if any(is_system_name(part) for part in file.id.split("/")):
        return "hidden or system file"
    if not file.diagnosis:
        return "not inside a diagnosis folder"
    if any(unicodedata.category(character) in UNPRINTABLE for character in file.id):
        return "the name holds characters that can't be printed: rename the file"
    return ""


def _hash_chunk(folder: Path, files: Sequence[SourceFile]) -> list[str]:
    contents = (_read(folder / file.id)[0] for file in files)
    return ["" if data is None else hashlib.sha256(data).hexdigest() for data in contents]


def _inspect_chunk(folder: Path, work: Path, files: Sequence[SourceFile]) -> list[InspectionRow]:
    finished = work / f"{_chunk_name(folder, files)}.jsonl"
    if finished.exists():
        return [InspectionRow(**json.loads(line)) for line in finished.read_text().splitlines()]
    rows = [inspect_file(folder, file) for file in files]
    if any(row.reason.startswith(UNREADABLE) for row in rows):
        return rows  # it may be readable the next time
    write_atomic(finished, "".join(json.dumps(asdict(row)) + "\n" for row in rows).encode())
    return rows


def _chunk_name(folder: Path, files: Sequence[SourceFile]) -> str:
    """Changes with any file's name, size or time of change, so that a stale chunk is never taken for this one."""
    key = hashlib.sha256(f"rows {ROW_VERSION}\n".encode())
    for file in files:
        try:
            status = (folder / file.id).stat()
            # The time of change can't be set by a copy that keeps the time of modification.
            seen = f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        except OSError as error:
            seen = f"error {error.errno}"
        key.update(f"{seen} {file.diagnosis}\0{file.id}\n".encode(errors="surrogateescape"))
    return key.hexdigest()[:32]
