"""Does a shard on the disk hold what its seal says? Shared by sealing, by re-running and by `verify`.

    problems, facts = audit_shard(folder, shard, decode=True)

Pure reading: nothing is repaired, and every problem names the shard and, where there is one, the record.
"""

import mmap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.images import ImageRefusedError, decode, pixel_hash, thumbnail
from data_pipeline.manifest import DatasetError, FileSeal, ShardSeal, load_offsets
from data_pipeline.near_moments import FINGERPRINT_BYTES, fingerprints
from data_pipeline.parallel import in_processes
from data_pipeline.schema import CorruptRecord, decode_example, unframe_record
from data_pipeline.storage import file_sha256


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
    fingerprints: NDArray[np.int8]  # [records, FINGERPRINT_BYTES]


def audit_shards(
    folder: Path, shards: Sequence[ShardSeal], *, image_size: int, decode: bool, workers: int, title: str
) -> Iterator[ShardAudit]:
    """`audit_shard` for each of `shards`, spread over processes."""
    return in_processes(
        partial(audit_shard, folder, decode_images=decode, image_size=image_size),
        shards,
        count=len(shards),
        workers=workers,
        title=title,
        unit="record",
        size=lambda shard: shard.records,
        total=sum(shard.records for shard in shards),
    )


def audit_shard(folder: Path, shard: ShardSeal, *, decode_images: bool, image_size: int) -> ShardAudit:
    """Hash the shard; then, if `decode_images`, read every record and decode its image."""
    path = folder / shard.path
    problems: list[str] = []
    records: list[RecordFacts] = []
    thumbnails: list[NDArray[np.uint8]] = []
    try:
        offsets = load_offsets(folder, shard)
    except DatasetError as error:
        return ShardAudit(shard, (str(error),), (), _fingerprints([]))
    problem = audit_file(folder, FileSeal(shard.path, shard.sha256, shard.bytes))
    if problem:
        problems.append(problem)
    if len(offsets) != shard.records + 1 or (path.is_file() and offsets[-1] != path.stat().st_size):
        problems.append(f"{shard.path}: holds other records than the {shard.records} of its index")
    elif decode_images and path.is_file():
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            for number, (start, end) in enumerate(pairwise(offsets.tolist())):
                try:
                    facts, small = _record_facts(buffer, start, end, image_size)
                    records.append(facts)
                    thumbnails.append(small)
                except (CorruptRecord, ImageRefusedError) as error:
                    problems.append(f"{shard.path}: record {number}: {error}")
    return ShardAudit(shard, tuple(problems), tuple(records), _fingerprints(thumbnails))


def _fingerprints(thumbnails: Sequence[NDArray[np.uint8]]) -> NDArray[np.int8]:
    if not thumbnails:
        return np.empty((0, FINGERPRINT_BYTES), dtype=np.int8)
    return fingerprints(np.stack(thumbnails))


def audit_file(folder: Path, seal: FileSeal) -> str:
    """What is wrong with a sealed file; empty if nothing is."""
    try:
        size, digest = (folder / seal.path).stat().st_size, file_sha256(folder / seal.path)
    except OSError as error:
        return f"{seal.path}: can't be read: {error.strerror}"
    if size != seal.bytes:
        return f"{seal.path}: has {size:,} bytes, {seal.bytes:,} were sealed"
    return "" if digest == seal.sha256 else f"{seal.path}: its contents were changed"


def _record_facts(buffer: mmap.mmap, start: int, end: int, image_size: int) -> tuple[RecordFacts, NDArray[np.uint8]]:
    """(what the record says, its image in small)."""
    record = decode_example(unframe_record(buffer, start, end))
    pixels = decode(record.image).pixels
    if pixels.shape != (image_size, image_size, 3):
        raise CorruptRecord(f"{record.id} is {pixels.shape[1]} × {pixels.shape[0]} pixels, not {image_size} squared")
    picture = f"{record.width}x{record.height} {pixel_hash(pixels).hex()}"
    facts = RecordFacts(record.id, record.group, record.label, picture)
    return facts, thumbnail(Image.fromarray(pixels))
