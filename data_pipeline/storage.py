"""Files that are either whole or not there.

    write_atomic(Path("manifest.json"), text.encode())

A writer fills a temporary file beside the target, flushes it to the disk and renames it, so that neither a crash nor
a power cut leaves half a file under the final name.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_pipeline.cli import RequestError, invalid_flag


def local_path(flag: str, value: str) -> Path:
    """The folder a flag names. Raises `RequestError` for an empty value and for schemes that aren't file paths."""
    if not value or "://" in value:
        raise invalid_flag(
            flag,
            expected="a folder on a local or mounted disk",
            received=value,
            fix="name a folder, such as --" + flag + "=/data/" + flag + "; mount a bucket or copy it first",
        )
    return Path(value).expanduser()


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that appears under `path` only when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def exclusive(path: Path, *, otherwise: str) -> Iterator[None]:
    """Hold the lock file `path`. Raises `RequestError(otherwise)` if another process holds it.

    The lock goes with the process, however it ends; the empty file stays.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(otherwise) from None
        yield


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
