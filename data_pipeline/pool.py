"""The records of a dataset that its models may be made of: those of the train and validation splits, never of the test.

    pool = read_pool(Path("tfrecords/cervix"), manifest, workers=2)
    frames = copied_frames(pool.folder, pool.places_of(rows))

Every byte is checked on the way: each shard against its seal, each record against its checksum. No image is decoded.
"""

import csv
import hashlib
import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.audit import audit_file
from data_pipeline.inspect_stage import combine_sha256
from data_pipeline.manifest import NEAR_NAME, DatasetError, FileSeal, Manifest, ShardIndex, ShardSeal, load_index
from data_pipeline.parallel import in_processes
from data_pipeline.plan import Records, number_groups
from data_pipeline.schema import CorruptRecord, decode_example, unframe_record

POOLED = ("train", "validation")
SHOWN_PROBLEMS = 20
OPEN_SHARDS = 64  # at once in a process that copies: records of a shard to be written come from anywhere


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies: a shard's file name, and bytes `start` to `end` of it; `checksum` is that of its data."""

    shard: str
    start: int
    end: int
    checksum: int


@dataclass(frozen=True, slots=True)
class PooledRecord:
    """What a record says of itself, but for the image, and where it lies. `sha256` is of the serialised example."""

    id: str
    group: str
    label: int
    width: int
    height: int
    sha256: str
    place: Place


@dataclass(frozen=True)
class Pool:
    """All records to be cut into folds, in the order of their ids; the rows of `records` number them.

    `near` are the rows of the table of pairs that look alike: two ids of the pool each, and their similarity.
    """

    found: tuple[PooledRecord, ...]
    records: Records
    near: tuple[tuple[str, ...], ...]

    @property
    def ids(self) -> list[str]:
        return [record.id for record in self.found]

    @property
    def sha256(self) -> str:
        """Stands for what is in the pool, however it lies in shards."""
        return combine_sha256((record.id, record.sha256) for record in self.found)

    def per_group(self, classes: int) -> NDArray[np.int64]:
        """How many records of each class a group has: `[groups, classes]`."""
        counts: NDArray[np.int64] = np.zeros((len(self.records.names), classes), dtype=np.int64)
        np.add.at(counts, (self.records.groups, self.records.labels), 1)
        return counts


def read_pool(folder: Path, manifest: Manifest, *, workers: int) -> Pool:
    """Read what may be cut into folds. Raises `DatasetError` naming each shard and record that isn't as sealed."""
    shards = [shard for split in POOLED for shard in manifest.shards_of(split)]
    scans = in_processes(
        partial(scan_shard, folder),
        shards,
        count=len(shards),
        workers=workers,
        title="read",
        unit="record",
        size=lambda shard: shard.records,
        total=sum(shard.records for shard in shards),
    )
    found: list[PooledRecord] = []
    near, problems = _near_pairs(folder, manifest)
    for records, wrong in scans:
        found += records
        problems += wrong
    if problems:
        more = [f"… and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
        fix = "To fix it: restore the dataset from a copy, or convert again with --overwrite."
        raise DatasetError("\n".join([f"{folder} is damaged:", *problems[:SHOWN_PROBLEMS], *more, fix]))
    found.sort(key=lambda record: record.id)
    names, numbers = number_groups([record.group for record in found])
    labels = np.fromiter((record.label for record in found), dtype=np.int64, count=len(found))
    ids = {record.id for record in found}
    pairs = tuple(pair for pair in near if pair[0] in ids)  # one group lies in one split: the other is there too
    return Pool(tuple(found), Records(np.arange(len(found)), labels, numbers, names), pairs)


def scan_shard(folder: Path, shard: ShardSeal) -> tuple[list[PooledRecord], list[str]]:
    """(the records of a shard, what is wrong with it)."""
    try:
        index = load_index(folder, shard)
    except DatasetError as error:
        return [], [str(error)]
    problem = audit_file(folder, FileSeal(shard.path, shard.sha256, shard.bytes))
    problems = [problem] if problem else []
    path = folder / shard.path
    if not path.is_file() or path.stat().st_size != shard.bytes:
        return [], problems
    records = []
    buffer = _mapped(path)
    for number, place in enumerate(_places(shard, index)):
        try:
            records.append(_pooled(unframe_record(buffer, place.start, place.end), place))
        except CorruptRecord as error:
            problems.append(f"{shard.path}: record {number}: {error}")
    return records, problems


def copied_frames(folder: Path, places: Sequence[Place]) -> Iterator[bytes]:
    """The records at `places` as they lie there, frame and all. Raises `DatasetError` if one isn't any more."""
    opened = lru_cache(maxsize=OPEN_SHARDS)(_mapped)
    for place in places:
        buffer = opened(folder / place.shard)
        try:
            unframe_record(buffer, place.start, place.end)
            frame = buffer[place.start : place.end]
            if int.from_bytes(frame[-4:], "little") != place.checksum:
                raise CorruptRecord(f"another record now lies at byte {place.start}")
        except CorruptRecord as error:
            fix = "leave the dataset alone while it is cut into folds, and run the same command again"
            raise DatasetError(f"{folder / place.shard} has changed: {error}. To fix it: {fix}.") from error
        yield frame


def _near_pairs(folder: Path, manifest: Manifest) -> tuple[list[tuple[str, ...]], list[str]]:
    """(the rows of the table of pairs that look alike, what is wrong with it)."""
    seals = [seal for seal in manifest.files if seal.path == NEAR_NAME]
    problems = [problem for seal in seals if (problem := audit_file(folder, seal))]
    if not seals or problems:
        return [], problems
    with (folder / NEAR_NAME).open(encoding="utf-8", newline="") as file:
        return [tuple(row) for row in csv.reader(file)][1:], []


def _places(shard: ShardSeal, index: ShardIndex) -> Iterator[Place]:
    edges = pairwise(index.offsets.tolist())
    for (start, end), checksum in zip(edges, index.checksums.tolist(), strict=True):
        yield Place(shard.path, start, end, checksum)


def _pooled(data: bytes, place: Place) -> PooledRecord:
    record = decode_example(data)
    digest = hashlib.sha256(data).hexdigest()
    return PooledRecord(record.id, record.group, record.label, record.width, record.height, digest, place)


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
