"""Which files of a folder are images, by their names. Pure.

is_image_name(PurePosixPath("slide/cell.png"))      # True; hidden files and folders hold none
"""

from pathlib import PurePath

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


def is_image_name(path: PurePath) -> bool:
    """Whether a path, relative to the folder that was named, is that of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)
