"""What lies in a zip or tar archive, and the bytes of its members. Nothing is ever unpacked to the disk.

    members = list_tar(Path("tiles.tgz"))
    for contents in read_stream(Path("tiles.tgz"), [members[0], members[7]]): ...

Whoever made the archive isn't trusted: sizes it claims are checked before and while memory is filled, names are only
compared, never used as paths, and an archive that can't be read to its end is refused as a whole.
"""

import bz2
import gzip
import io
import lzma
import os
import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Self

from data_pipeline.cli import RequestError
from data_pipeline.sources import MAX_FILE_BYTES, NOT_REGULAR, UNREADABLE, FileContents, too_large

MAX_RATIO = 1000  # Deflate reaches 1032 on zeros; images reach 100
MIN_BOMB_BYTES = 64 << 20  # below it any ratio is harmless
MAX_TOTAL_BYTES = 10 << 30  # an archive that holds more must not hold more than MAX_RATIO times its own size
MAX_MEMBERS = 5_000_000
MAX_NAME_BYTES = 1 << 20
MAX_READS_AT_END = 16  # `tarfile` would go on for hours, by small steps, to the end of a file that claims terabytes
# `zipfile` unpacks the other methods without a bound: 4 KiB of BZip2 become 4 GiB of memory.
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Headers that `tarfile` reads whole: long names, and extended headers of one file, of all, and of Solaris.
HELD_IN_MEMORY = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
LAST_RECORD_BYTES = 22 + 0xFFFF  # with the longest comment
ENCRYPTED = 0x1
WINDOWS = 0  # what a zip says of the system it was made on
DAMAGED = "damaged in the archive"


@dataclass(frozen=True, slots=True)
class Member:
    """A file or folder in an archive.

    `position` finds it again: its number in a zip, the offset of its data in a tar, its place in the stream of a
    compressed tar. A link has a `target`, a path from the archive's root. `reason` says why it can't be read, if so.
    """

    name: str
    position: int
    size_bytes: int
    stamp: str = ""
    folder: bool = False
    reason: str = ""
    target: str | None = None


def list_zip(path: Path) -> list[Member]:
    """Every member of a zip. Raises `RequestError`."""
    with _whole(path):
        archive = _opened_zip(path, _size_and_time(path), os.getpid())
        infos = archive.infolist()
        if _promised(path) not in (len(infos) & 0xFFFF, 0xFFFF):
            raise _DamagedError("its directory isn't whole")
        _check_total(path, sum(info.file_size for info in infos if not _zip_reason(info)), len(infos))
        slashes = any("/" in info.filename for info in infos)
        return [_zip_member(archive, number, info, slashes) for number, info in enumerate(infos)]


def read_zip(path: Path, members: Sequence[Member]) -> Iterator[FileContents]:
    """The contents of some members of a zip."""
    archive = _opened_zip(path, _size_and_time(path), os.getpid())
    infos = archive.infolist()
    return (_read_zip_member(archive, infos[member.position]) for member in members)


def list_tar(path: Path) -> list[Member]:
    """Every member of a tar, compressed or not. Raises `RequestError`, also if the archive is cut short."""
    opener = decompressor(path)
    members = []
    with _whole(path), _open_tar(path, opener) as tar:
        number = 0
        while (info := tar.next()) is not None:
            if info.size < 0 or number >= MAX_MEMBERS:  # a negative size leads back to where it stands
                raise _DamagedError("a header makes no sense")
            members.append(_tar_member(info, position=number if opener else info.offset_data))
            tar.members.clear()  # type: ignore[attr-defined]
            number += 1
    return members


def read_tar(path: Path, members: Sequence[Member]) -> Iterator[FileContents]:
    """The contents of some members of a tar that isn't compressed."""
    with path.open("rb") as file:
        for member in members:
            try:
                file.seek(member.position)
                data = file.read(member.size_bytes)
            except OSError as error:
                yield FileContents(None, f"{UNREADABLE}: {error.strerror}")
                continue
            whole = len(data) == member.size_bytes
            yield FileContents(data, "") if whole else FileContents(None, f"{DAMAGED}: it ends too early")


def read_stream(path: Path, members: Sequence[Member]) -> Iterator[FileContents]:
    """The contents of some members of a compressed tar, in the order of their positions. Equal ones may follow."""
    here, data = -1, b""
    if any(after.position < before.position for before, after in pairwise(members)):
        raise ValueError("a compressed archive is read from front to back")
    with _whole(path), _open_tar(path, decompressor(path)) as tar:
        for member in members:
            while here < member.position:
                info = tar.next()
                if info is None:
                    raise _DamagedError("it holds fewer files than before")
                tar.members.clear()  # type: ignore[attr-defined]
                here += 1
                if here == member.position:
                    file = tar.extractfile(info)
                    data = file.read(min(info.size, MAX_FILE_BYTES)) if file else b""
            yield FileContents(data, "")


def decompressor(path: Path) -> Callable[[Path], io.BufferedIOBase] | None:
    """What opens a compressed tar, told by its first bytes; None for a plain one."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return lambda path: gzip.open(path)
    if start.startswith(b"BZh"):
        return lambda path: bz2.open(path)
    return (lambda path: lzma.open(path)) if start == b"\xfd7zXZ\0" else None


class _DamagedError(Exception):
    """The archive as a whole can't be relied on."""


class _StrictTarInfo(tarfile.TarInfo):
    """`tarfile` takes a damaged header for the end of the archive. This takes it for damage."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        try:
            info = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise _DamagedError("it ends without its end mark" if not buf else str(error)) from error
        if info.size < 0 or (info.type in HELD_IN_MEMORY and info.size > MAX_NAME_BYTES):
            raise _DamagedError("a header makes no sense")
        return info


class _Counted(io.RawIOBase):
    """A decompressed stream that ends with an error before it fills a lifetime."""

    def __init__(self, stream: io.BufferedIOBase, archive: Path) -> None:
        super().__init__()
        self._stream, self._archive, self._total_bytes, self._reads_at_end = stream, archive, 0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._total_bytes += len(data)
        self._reads_at_end += not data
        if self._reads_at_end > MAX_READS_AT_END:
            raise _DamagedError("it ends too early")
        _check_total(self._archive, self._total_bytes, 0)
        return len(data)


@contextmanager
def _open_tar(path: Path, opener: Callable[[Path], io.BufferedIOBase] | None) -> Iterator[tarfile.TarFile]:
    if opener is None:
        with tarfile.open(path, "r:", tarinfo=_StrictTarInfo) as tar:
            yield tar
        return
    with opener(path) as plain:
        stream = io.BufferedReader(_Counted(plain, path), 1 << 16)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo, bufsize=1 << 16) as tar:
            yield tar
        while stream.read(1 << 20):  # to the end, where the checksum stands
            pass


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Whatever is wrong inside becomes the request's error: there is no list of all that damaged bytes can cause."""
    try:
        yield
    except (RequestError, MemoryError):
        raise
    except Exception as error:
        raise RequestError(
            f"Can't read {path} as an archive: {error or type(error).__name__}. To fix it: download it again and "
            "compare its checksum with the publisher's, or unpack it and name the folder."
        ) from error


def _check_total(path: Path, total_bytes: int, members: int) -> None:
    if total_bytes > MAX_TOTAL_BYTES and total_bytes > MAX_RATIO * path.stat().st_size:
        what = f"unpacks to more than {MAX_RATIO} times its size, as no images do"
        raise RequestError(f"{path} {what}. To fix it: name another archive, or unpack it and name the folder.")
    if members > MAX_MEMBERS:
        raise RequestError(f"{path} holds more than {MAX_MEMBERS} files. To fix it: unpack it and name the folder.")


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=2)
def _opened_zip(path: Path, version: tuple[int, int], process: int) -> zipfile.ZipFile:
    """One handle for a process: to open an archive is to read its whole directory."""
    return zipfile.ZipFile(path)


def _promised(path: Path) -> int:
    """How many members a zip's last record counts, modulo 2¹⁶: `zipfile` doesn't notice that some are missing."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_RECORD_BYTES))
        tail = file.read()
    return int.from_bytes(tail[tail.rfind(b"PK\5\6") + 10 :][:2], "little")


def _zip_member(archive: zipfile.ZipFile, number: int, info: zipfile.ZipInfo, slashes: bool) -> Member:
    # `filename` ends at a NUL, so that "a.png\0.exe" would pass for "a.png".
    name = info.orig_filename if "\0" in info.orig_filename else info.filename
    if info.create_system == WINDOWS or not slashes:
        name = name.replace("\\", "/")
    kind = stat.S_IFMT(info.external_attr >> 16)
    folder = (name.endswith("/") or kind == stat.S_IFDIR) and not info.file_size
    reason, target = _zip_reason(info), None
    if kind == stat.S_IFLNK and not reason:
        contents = _read_zip_member(archive, info) if info.file_size < MAX_NAME_BYTES else FileContents(None, DAMAGED)
        reason = contents.reason
        target = _link_target(name, os.fsdecode(contents.data or b""))
    elif kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        reason = NOT_REGULAR
    stamp = f"{info.CRC:08x} {info.header_offset} {info.compress_type} {info.flag_bits}"
    return Member(name, number, info.file_size, stamp, folder, reason, target)


def _zip_reason(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & ENCRYPTED:
        return "encrypted in the archive: unpack it with its password"
    if info.compress_type not in ZIP_METHODS:
        return f"packed by method {info.compress_type}, which can't be read here: unpack the archive, or pack it anew"
    if info.file_size > MAX_FILE_BYTES:
        return too_large(info.file_size)
    if info.file_size > MIN_BOMB_BYTES and info.file_size > MAX_RATIO * info.compress_size:
        return f"unpacks to more than {MAX_RATIO} times its size, as no image does"
    return ""


def _read_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> FileContents:
    try:
        with archive.open(info) as file:
            data = file.read(info.file_size)
    except OSError as error:
        if error.errno:
            return FileContents(None, f"{UNREADABLE}: {error.strerror}")
        return FileContents(None, f"{DAMAGED}: {error}")
    except Exception as error:  # there is no list of all that damaged bytes can cause
        return FileContents(None, f"{DAMAGED}: {error or type(error).__name__}")
    whole = len(data) == info.file_size
    return FileContents(data, "") if whole else FileContents(None, f"{DAMAGED}: it ends too early")


def _tar_member(info: tarfile.TarInfo, position: int) -> Member:
    reason, target = "", None
    if info.issym():
        target = _link_target(info.name, info.linkname)
    elif info.islnk():
        target = info.linkname
    elif not info.isreg() and not info.isdir():
        reason = NOT_REGULAR
    elif info.issparse():
        reason = "stored in the archive with holes: pack it anew without --sparse"
    elif info.size > MAX_FILE_BYTES:
        reason = too_large(info.size)
    stamp = f"{info.offset_data} {info.mtime}"
    return Member(info.name, position, info.size, stamp, info.isdir(), reason, target)


def _link_target(name: str, target: str) -> str:
    """A symbolic link's target, from the archive's root; it may lead out."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target)) if target else ""
