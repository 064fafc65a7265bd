"""Checksums as a storage service writes them: Base64 of CRC32C.

crc32c_of(data), crc32c_of_file(path)       # text, to be compared with a blob's
"""

import base64
from pathlib import Path

import google_crc32c


def crc32c_of(data: bytes) -> str:
    """The checksum of `data`, as the service writes it."""
    return crc32c_text(google_crc32c.value(data))


def crc32c_text(value: int) -> str:
    """Base64 of the big-endian bytes."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def crc32c_of_file(path: Path) -> str:
    """The checksum of a file's contents."""
    return size_and_crc32c(path)[1]


def size_and_crc32c(path: Path) -> tuple[int, str]:
    """The size in bytes and the checksum of a file's contents."""
    size = checksum = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            size, checksum = size + len(piece), google_crc32c.extend(checksum, piece)
    return size, crc32c_text(checksum)
