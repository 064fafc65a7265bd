"""Files that are either whole or not there.

    write_atomic(Path("manifest.json"), text.encode())

A writer fills a temporary file beside the target, flushes it to the disk and renames it, so that neither a crash nor
a power cut leaves half a file under the final name.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from data_pipeline.cli import RequestError, invalid_flag

TEMPORARY = ".tmp"
BUCKET_SCHEME = "gs://"
SCRATCH_NAME = "cytotrain"
# What a file system says that has no second names for a file, or no more, or not here.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV)


def in_bucket(value: str) -> bool:
    """Whether a flag names a place in Cloud Storage; `bucket.py` and `transfer.py` work with those."""
    return value.startswith(BUCKET_SCHEME)


def local_path(flag: str, value: str) -> Path:
    """The folder a flag names. Raises `RequestError` for an empty value and for schemes that aren't file paths."""
    if not value or "://" in value:
        raise invalid_flag(
            flag,
            expected="a folder on a local or mounted disk",
            received=value,
            fix="name a folder, such as --" + flag + "=/data/" + flag + "; mount a bucket or copy it first",
        )
    try:
        return Path(value).expanduser()
    except RuntimeError as error:
        raise invalid_flag(flag, expected="a folder", received=value, fix=f"write it out ({error})") from error


def make_folder(flag: str, folder: Path) -> None:
    """Make the folder that a flag names, unless it is there. Raises `RequestError` if files can't be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE):
            raise  # the folder is right, the disk isn't
        fix = f"name a folder that this user may write to ({error})"
        raise invalid_flag(flag, expected="a writable folder", received=str(folder), fix=fix) from error


def scratch_root(value: str) -> Path:
    """The folder that `--scratch` names; by default `SCRATCH_NAME` in $TMPDIR or /tmp. Raises `RequestError`."""
    return local_path("scratch", value) if value else Path(tempfile.gettempdir()) / SCRATCH_NAME


@contextmanager
def atomic_file(path: Path, *, flush: bool = True, sync: bool = True) -> Iterator[BinaryIO]:
    """A binary file to write that appears under `path` only when the block ends without an error.

    Without `flush` that holds for a process that is killed, but not for a power cut. Without `sync` a power cut may
    take the whole file, but never leave half of it: enough if another file vouches for it, written later to the same
    folder.
    """
    # Workers on several machines may share the folder, and in containers all be process 1.
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}{TEMPORARY}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("wb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, str(temporary)):
            error.filename = str(path)  # a full disk doesn't say by itself what was being written
        with suppress(OSError):  # the disk may be read-only by now
            temporary.unlink(missing_ok=True)
        raise
    if flush and sync:
        sync_folder(path.parent)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Within this block, an `OSError` that names no file names `path`: a full disk doesn't say which one it is."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write_atomic(path: Path, data: bytes, *, flush: bool = True, sync: bool = True) -> None:
    """Write `data` to `path`, whole or not at all; `flush` and `sync` as for `atomic_file`."""
    with atomic_file(path, flush=flush, sync=sync) as file:
        file.write(data)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed writers left below `folder`: each run that fails on a full disk would fill it further.

    Only for a process that is alone there: another's unfinished file looks the same.
    """
    for path in folder.glob(f"*/.*{TEMPORARY}"):
        path.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path, *, otherwise: str) -> Iterator[None]:
    """Hold the lock file `path`. Raises `RequestError(otherwise)` if another process holds it.

    The lock goes with the process, however it ends; the empty file stays.
    """
    with _locked(path, fcntl.LOCK_EX, otherwise):
        yield


@contextmanager
def shared(path: Path, *, otherwise: str) -> Iterator[None]:
    """Hold the lock file `path` with others that share it. Raises `RequestError(otherwise)` if one doesn't."""
    with _locked(path, fcntl.LOCK_SH, otherwise):
        yield


@contextmanager
def _locked(path: Path, kind: int, otherwise: str) -> Iterator[None]:
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(otherwise) from None
        yield


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's contents, in hexadecimal. An `OSError` names the file."""
    with errors_naming(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path | str, target: Path | str) -> str:
    """A second name for a file, or a copy of it where there are no links; `target`, as `shutil.copytree` wants it."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)
    return str(target)


def flush(path: Path) -> None:
    """Make the contents of a file survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    flush(folder)
