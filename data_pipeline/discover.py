"""Which files there are, and which diagnosis each belongs to.

    files = discover(Path("images/cervix"))

Every file below the organ's folder is an input, whatever its name: a later stage says what became of it. The order
is that of the ids, never that of the file system.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.cli import RequestError, invalid_flag

SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "icon\r", "@eadir", "lost+found"})


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An input: `id` is its path below the organ's folder with `/` between parts, `diagnosis` the first of them."""

    id: str
    diagnosis: str


def find_organs(images: Path, wanted: list[str]) -> list[str]:
    """The organs to convert: those named, or every sub-folder of `images` for `all`. Raises `RequestError`."""
    if not images.is_dir():
        raise invalid_flag(
            "images", expected="a folder that holds one folder per organ", received=str(images), fix="check the path"
        )
    there = sub_folders(images)
    if wanted == ["all"]:
        if not there:
            raise RequestError(f"{images} holds no folders. To fix it: put images at {images}/ORGAN/DIAGNOSIS/.")
        return there
    if not any(wanted):
        raise invalid_flag("organ", expected="the name of an organ", received="", fix="name one, or `all`")
    for organ in wanted:
        if organ not in there:
            fix = f"name a folder of {images}, or move the images to {images}/{organ}/DIAGNOSIS/"
            raise invalid_flag("organ", expected=f"one of {', '.join(there) or '(none)'}", received=organ, fix=fix)
    return wanted


def discover(folder: Path) -> list[SourceFile]:
    """Every file below `folder`, ordered by id. Symbolic links are followed. Raises `RequestError`.

    A link back to a folder it lies in is not followed; any other is, so that what it leads to is seen under both names.
    """
    return sorted(_walk(folder, "", frozenset()), key=lambda file: file.id)


def sub_folders(folder: Path) -> list[str]:
    """The organs of a folder of images, or the diagnoses of an organ, empty ones included."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_system_name(entry.name))


def is_system_name(name: str) -> bool:
    """Files and folders that operating systems and archivers leave behind."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _walk(folder: Path, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[SourceFile]:
    """The files of `folder`, whose id is `prefix` and which lies in the folders `above`, given as (device, inode)."""
    try:
        status = folder.stat()
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    yield from _walk(folder / entry.name, f"{prefix}{entry.name}/", above | {here})
                else:
                    yield SourceFile(id=prefix + entry.name, diagnosis=prefix.partition("/")[0])
    except OSError as error:
        raise RequestError(
            f"Can't list the images in {error.filename}: {error.strerror}. To fix it: let this user read the folder."
        ) from error
