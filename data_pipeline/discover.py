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
    there = sorted(entry.name for entry in images.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if wanted == ["all"]:
        if not there:
            raise RequestError(f"{images} holds no folders. To fix it: put images at {images}/ORGAN/DIAGNOSIS/.")
        return there
    for organ in wanted:
        if organ not in there:
            fix = f"name a folder of {images}, or move the images to {images}/{organ}/DIAGNOSIS/"
            raise invalid_flag("organ", expected=f"one of {', '.join(there) or '(none)'}", received=organ, fix=fix)
    return wanted


def discover(folder: Path) -> list[SourceFile]:
    """Every file below `folder`, ordered by id. Symbolic links are followed, each folder once."""
    return sorted(_walk(folder), key=lambda file: file.id)


def _walk(folder: Path) -> Iterator[SourceFile]:
    seen: set[tuple[int, int]] = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        status = Path(path).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()  # a link back to a folder already read
            continue
        seen.add((status.st_dev, status.st_ino))
        # Which of two links to one folder is followed must not depend on the file system's order.
        folders.sort()
        for name in names:
            parts = (Path(path) / name).relative_to(folder).parts
            yield SourceFile(id="/".join(parts), diagnosis=parts[0] if len(parts) > 1 else "")
