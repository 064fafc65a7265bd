"""The files of an organ in a folder on a local or mounted disk.

    sources = open_folder(Path("images"), ["cervix"])

Symbolic links are followed. The order is that of the ids, never that of the file system.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_pipeline.cli import RequestError
from data_pipeline.sources import (
    MAX_FILE_BYTES,
    NOT_REGULAR,
    UNREADABLE,
    FileContents,
    SourceFile,
    Tree,
    input_changed,
    is_system_name,
    locate,
    too_large,
    whole_slide_reason,
)

OUTLINE_LEVELS = 3  # ORGAN/DIAGNOSIS/file


@dataclass(frozen=True)
class FolderSource:
    """Every file below `folder`."""

    folder: Path

    @property
    def description(self) -> str:
        return str(self.folder)

    @property
    def sequential(self) -> bool:
        return False

    def files(self) -> list[SourceFile]:
        """Every file, ordered by id. Raises `RequestError` for a folder that can't be read.

        A link back to a folder it lies in is not followed; any other is, so that what it leads to is seen under both
        names.
        """
        return sorted(_walk(self.folder), key=lambda file: file.id)

    def diagnoses(self) -> list[str]:
        return _sub_folders(self.folder)

    def stamp(self, file: SourceFile) -> str:
        try:
            status = os.stat(f"{self.folder}/{file.id}")  # noqa: PTH116
        except OSError as error:
            return f"error {error.errno}"
        # The time of change can't be set by a copy that keeps the time of modification.
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"

    def read(self, files: Sequence[SourceFile]) -> Iterator[FileContents]:
        return (_read(self.folder, file.id) for file in files)


def open_folder(images: Path, organs: Sequence[str]) -> dict[str, FolderSource]:
    """The source of each organ below, or at, the folder `images`. Raises `RequestError`."""
    folders = _sub_folders(images)
    tree = Tree(
        shown=str(images),
        name=images.resolve().name,
        root="",
        folders=folders,
        named={},
        paths=lambda: list(_outline(images, "", OUTLINE_LEVELS)),
    )
    return {organ: FolderSource(images / path) for organ, path in locate(tree, organs).items()}


def _sub_folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _is_folder(entry) and not is_system_name(entry.name))
    except OSError as error:
        raise _unreadable(error) from error


def _walk(top: Path) -> Iterator[SourceFile]:
    """The files below `top`, in no order."""
    # Folders to look into: path, prefix of the ids in it, and the folders it lies in as (device, inode).
    waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [(str(top), "", frozenset())]
    try:
        while waiting:
            folder, prefix, above = waiting.pop()
            status = Path(folder).stat()
            here = (status.st_dev, status.st_ino)
            if here in above:
                continue
            diagnosis = prefix.partition("/")[0]
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        waiting.append((entry.path, f"{prefix}{entry.name}/", above | {here}))
                    else:
                        yield SourceFile(prefix + entry.name, diagnosis)
    except OSError as error:
        raise _unreadable(error) from error


def _outline(folder: Path, prefix: str, levels: int) -> Iterator[str]:
    """The paths of the first `levels` levels, each with `prefix`; a folder at the last one ends with `/`."""
    with suppress(OSError), os.scandir(folder) as entries:  # what can't be read is reported when its files are wanted
        for entry in entries:
            if not _is_folder(entry):
                yield prefix + entry.name
            elif levels == 1:
                yield f"{prefix}{entry.name}/"
            elif not is_system_name(entry.name):
                yield from _outline(folder / entry.name, f"{prefix}{entry.name}/", levels - 1)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a locked folder: an input like any other that can't be read
        return False


def _read(folder: Path, id: str) -> FileContents:
    path = f"{folder}/{id}"  # for each file: to make and unmake a `Path` takes longer than to read it
    try:
        status = os.stat(path)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):
            return FileContents(None, NOT_REGULAR)
        reason = whole_slide_reason(id, partial(_exists, folder))
        return FileContents(None, reason) if reason else _read_regular(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not os.path.lexists(path):
            raise input_changed(path, "has vanished") from error
        return FileContents(None, f"{UNREADABLE}: broken link")
    except OSError as error:
        return FileContents(None, f"{UNREADABLE}: {error.strerror}")


def _read_regular(path: str) -> FileContents:
    # Not blocking, and looked at again once open: another file may have taken the name, and a pipe would never answer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return FileContents(None, NOT_REGULAR)
        if status.st_size > MAX_FILE_BYTES:
            return FileContents(None, too_large(status.st_size))
        return FileContents(file.read(), "")


def _exists(folder: Path, id: str) -> bool:
    return os.path.lexists(folder / id)


def _unreadable(error: OSError) -> RequestError:
    return RequestError(
        f"Can't list the images in {error.filename}: {error.strerror}. To fix it: let this user read the folder."
    )
