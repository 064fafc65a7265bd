"""Which files the arguments of a program name: images, and those in folders, on a disk or at gs://.

find_images(["new/", "cell.png", "gs://lab/new"])   # in the order named, each once
is_image_name(PurePosixPath("slide/cell.png"))      # True; hidden files and folders hold none
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

from data_pipeline.cli import RequestError
from data_pipeline.storage import in_bucket

IMAGE_SUFFIXES = frozenset(
    {
        ".bmp",
        ".gif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    }
)
USAGE = "python -m trainer.predict --model=DIR PATH [PATH ...]"


class Image(Protocol):
    """A file to predict: a `Path`, or an object in a bucket. Its text is its name."""

    def read_bytes(self) -> bytes: ...


@dataclass(frozen=True)
class Named:
    """The `images`, and of each its `id`: FOLDER/…/FILE, as conversion calls an image of the diagnosis FOLDER.

    FOLDER is the one that was named, or that a file which was named is in. `again` counts files named twice.
    """

    images: tuple[Image, ...]
    ids: tuple[str, ...]
    again: int = 0


def is_image_name(path: PurePath) -> bool:
    """Whether a path, relative to the folder that was named, is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)


def find_images(arguments: Sequence[str]) -> Named:
    """The files named, and the image files below the folders named. Raises `RequestError`."""
    found: dict[str, tuple[Image, str]] = {}
    count = 0
    for argument in arguments:
        for key, image, identity in _in_bucket(argument) if in_bucket(argument) else _on_disk(Path(argument)):
            found.setdefault(key, (image, identity))
            count += 1
    if not found:
        raise RequestError(f"No image to predict. To fix it: {USAGE}")
    images, ids = zip(*found.values(), strict=True)
    return Named(images, ids, count - len(found))


def _on_disk(path: Path) -> list[tuple[str, Image, str]]:
    """(what is the same for the same file, the file, its id) of each."""
    try:
        path.stat()
    except OSError as error:
        raise RequestError(f"{path} can't be read: {error.strerror}. To fix it: check the path.") from error
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  # without following links: a name is a name
    if not path.is_dir():
        return [(str(absolute), path, f"{absolute.parent.name}/{absolute.name}")]
    below = sorted(file for file in path.rglob("*") if is_image_name(file.relative_to(path)) and file.is_file())
    inner = ((file, file.relative_to(path).as_posix()) for file in below)
    return [(f"{absolute}/{name}", file, f"{absolute.name}/{name}") for file, name in inner]


def _in_bucket(address: str) -> list[tuple[str, Image, str]]:
    from trainer.remote_files import bucket_images  # only now: the client of Cloud Storage takes half a second

    images, named = bucket_images(address), address.rstrip("/")
    is_file = [str(image) for image in images] == [named]
    folder = named.rpartition("/")[0] if is_file else named
    above = len(folder.rpartition("/")[0]) + 1
    return [(str(image), image, str(image)[above:]) for image in images]
