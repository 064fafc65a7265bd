"""Does a shard on the disk hold what its seal says? Shared by sealing, by re-running and by `verify`.

    problems, facts = audit_shard(folder, shard, decode=True)

Pure reading: nothing is repaired, and every problem names the shard and, where there is one, the record.
"""

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

from data_pipeline.images import ImageRefusedError, decode, pixel_hash
from data_pipeline.manifest import DatasetError, FileSeal, Manifest, ShardSeal, load_offsets
from data_pipeline.parallel import in_processes
from data_pipeline.schema import CorruptRecord, decode_example, unframe_record


@dataclass(frozen=True, slots=True)
class RecordFacts:
    """What a record says of itself. `picture` is equal for equal pixels of originals of equal size."""

    id: str
    group: str
    label: int
    picture: str


@dataclass(frozen=True, slots=True)
class ShardAudit:
    """The outcome for one shard."""

    shard: ShardSeal
    problems: tuple[str, ...]
    records: tuple[RecordFacts, ...]


def audit_shards(folder: Path, manifest: Manifest, *, decode: bool, workers: int, title: str) -> Iterator[ShardAudit]:
    """`audit_shard` for every shard, spread over processes."""
    look = partial(audit_shard, folder, decode_images=decode, image_size=manifest.image_size)
    size = lambda shard: shard.records  # noqa: E731
    return in_processes(look, manifest.shards, workers=workers, title=title, unit="record", size=size)


def audit_shard(folder: Path, shard: ShardSeal, *, decode_images: bool, image_size: int) -> ShardAudit:
    """Hash the shard; then, if `decode_images`, read every record and decode its image."""
    path = folder / shard.path
    problems, records = [], []
    try:
        offsets = load_offsets(folder, shard)
    except DatasetError as error:
        return ShardAudit(shard, (str(error),), ())
    problem = audit_file(folder, FileSeal(shard.path, shard.sha256, shard.bytes))
    if problem:
        problems.append(problem)
    if len(offsets) != shard.records + 1 or (path.is_file() and offsets[-1] != path.stat().st_size):
        problems.append(f"{shard.path}: holds other records than the {shard.records} of its index")
    elif decode_images and path.is_file():
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            for number, (start, end) in enumerate(pairwise(offsets.tolist())):
                try:
                    records.append(_record_facts(buffer, start, end, image_size))
                except (CorruptRecord, ImageRefusedError) as error:
                    problems.append(f"{shard.path}: record {number}: {error}")
    return ShardAudit(shard, tuple(problems), tuple(records))


def audit_file(folder: Path, seal: FileSeal) -> str:
    """What is wrong with a sealed file; empty if nothing is."""
    try:
        with (folder / seal.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except OSError as error:
        return f"{seal.path}: can't be read: {error.strerror}"
    if size != seal.bytes:
        return f"{seal.path}: has {size:,} bytes, {seal.bytes:,} were sealed"
    return "" if digest == seal.sha256 else f"{seal.path}: its contents were changed"


def _record_facts(buffer: mmap.mmap, start: int, end: int, image_size: int) -> RecordFacts:
    record = decode_example(unframe_record(buffer, start, end))
    pixels = decode(record.image).pixels
    if pixels.shape != (image_size, image_size, 3):
        raise CorruptRecord(f"{record.id} is {pixels.shape[1]} × {pixels.shape[0]} pixels, not {image_size} squared")
    picture = f"{record.width}x{record.height} {pixel_hash(pixels)}"
    return RecordFacts(record.id, record.group, record.label, picture)
