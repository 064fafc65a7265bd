"""Random access to the records of a split: any record, in any order, checked.

    reader = RecordReader(Path("tfrecords/cervix"), manifest, "train")
    examples = reader.read(np.array([411, 7, 93]))

Shards are memory-mapped, so that only what is read takes memory. Every frame's CRC32C is checked at every read, and
against the sealed index; a record that doesn't match stops the program, because a reader that skips it would train on
other data than was sealed.
"""

import errno
import mmap
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cli import RequestError
from data_pipeline.manifest import DatasetError, Manifest, load_index
from data_pipeline.schema import CorruptRecord, Record, decode_example, unframe_record

OTHER_FILES = 512  # that a process may have open beside its shards
_FIX = "To fix it: restore the shard from a copy, or convert again with --overwrite."


class RecordReader:
    """The records of one split, numbered from 0 through its shards in order."""

    def __init__(self, folder: Path, manifest: Manifest, split: str) -> None:
        """Map every shard. Raises `DatasetError` if a shard or its index isn't the sealed one by size."""
        self._shards = manifest.shards_of(split)
        self._folder = folder
        self.image_size = manifest.image_size
        self._indexes = [load_index(folder, shard) for shard in self._shards]
        _let_open(len(manifest.shards))
        self._maps = [_map(folder / shard.path, shard.bytes) for shard in self._shards]
        self._first = np.cumsum([0] + [shard.records for shard in self._shards])
        self.failure: DatasetError | None = None

    def __len__(self) -> int:
        return int(self._first[-1])

    def read(self, indices: NDArray[np.int64]) -> list[bytes]:
        """The serialised examples of these records. Raises `DatasetError` naming shard and record.

        The error is also kept in `failure`, since one raised inside a tf.data pipeline loses its type on the way out:
        see `naming_failures`.
        """
        shards = np.searchsorted(self._first, indices, side="right") - 1
        try:
            return [self._read_one(int(s), int(i - self._first[s])) for s, i in zip(shards, indices, strict=True)]
        except DatasetError as error:
            self.failure = error
            raise

    @contextmanager
    def naming_failures(self) -> Iterator[None]:
        """Within this block, an error that hides a `DatasetError` of this reader is raised as that."""
        try:
            yield
        except Exception:
            if self.failure is None:
                raise
            raise self.failure from None

    def records(self, indices: NDArray[np.int64]) -> list[Record]:
        """The same records, parsed."""
        return [decode_example(data) for data in self.read(indices)]

    def _read_one(self, shard: int, record: int) -> bytes:
        index, buffer = self._indexes[shard], self._maps[shard]
        start, end = index.offsets[record : record + 2].tolist()
        try:
            if int.from_bytes(buffer[end - 4 : end], "little") != index.checksums[record]:
                raise CorruptRecord("its checksum isn't the one that was sealed")
            return unframe_record(buffer, start, end)
        except CorruptRecord as error:
            raise DatasetError(
                f"{self._folder / self._shards[shard].path}, record {record}: {error}. {_FIX}"
            ) from error


def _let_open(count: int) -> None:
    """Mapped files stay open: raise the soft limit, which containers often set to 1,024, as far as it may be."""
    needed = count + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and needed > soft:
        highest = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))


def _map(path: Path, expected_bytes: int) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size != expected_bytes:
                raise DatasetError(f"{path} has {size:,} bytes, {expected_bytes:,} were sealed. {_FIX}")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            fix = "allow as many open files as there are shards (`ulimit -n`), or convert with larger ones"
            raise RequestError(f"Can't keep all shards open: {error.strerror}. To fix it: {fix}.") from error
        raise DatasetError(f"Can't read {path}: {error.strerror}. {_FIX}") from error
