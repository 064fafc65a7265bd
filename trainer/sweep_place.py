"""A folder on a disk or in a bucket, for the small files of a sweep.

place = Place.of("output", "gs://lab/runs/cervix/sweep-1f3a9c02")     # or a path; raises RequestError
place.write("sweep.csv", data)
place.read("sweep.csv")         # None if it isn't there
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from data_pipeline.storage import in_bucket, local_path, write_atomic

if TYPE_CHECKING:
    from data_pipeline.bucket import BucketFolder


@dataclass(frozen=True)
class Place:
    """Where it is; what is written is there whole or not at all."""

    where: "Path | BucketFolder"

    @classmethod
    def of(cls, flag: str, address: str) -> Self:
        """The folder that a flag names. Raises `RequestError`."""
        if not in_bucket(address):
            return cls(local_path(flag, address))
        from data_pipeline.bucket import BucketFolder  # only now: the client of Cloud Storage takes half a second

        return cls(BucketFolder.of(flag, address))

    def __str__(self) -> str:
        return str(self.where)

    def read(self, name: str) -> bytes | None:
        """All of a file; None if there is none."""
        with suppress(FileNotFoundError):
            return (self.where / name).read_bytes() if isinstance(self.where, Path) else self.where.read(name)
        return None

    def write(self, name: str, data: bytes) -> None:
        """Write a file in place of the one that is there."""
        if isinstance(self.where, Path):
            write_atomic(self.where / name, data)
        else:
            self.where.write(name, data)
