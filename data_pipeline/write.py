"""Stage 3: write the planned shards, several at once, each whole or not at all.

    written = write_shards(summary.shards, work=Path("cervix.partial"), workers=2)

A finished shard leaves a receipt. A later run with the same plan takes the shard from its receipt, so that only
unfinished shards cost time after an interruption.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_pipeline.manifest import FileSeal, ShardIndex, ShardSeal
from data_pipeline.parallel import in_processes
from data_pipeline.plan_folder import RecordPlan, ShardEntry, read_shard_plan
from data_pipeline.schema import Record, encode_example, frame_record
from data_pipeline.spool import read_image
from data_pipeline.storage import atomic_file, write_atomic

DATASET_FOLDER = "dataset"
INSPECT_FOLDER = "inspect"
RECEIPTS_FOLDER = "receipts"
OFFSETS_SUFFIX = ".offsets"
WRITE_VERSION = 1  # raise it when the same plan gives other bytes: older shards are then written anew


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was written by which plan."""

    key: str
    seal: ShardSeal


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A shard that is there; `fresh` if it was written just now and not by an earlier run."""

    seal: ShardSeal
    fresh: bool


def write_shards(shards: Sequence[ShardEntry], *, work: Path, workers: int) -> list[WrittenShard]:
    """Write those of `shards` that aren't written yet into `work/dataset`."""
    return list(
        in_processes(
            partial(write_shard, work=work),
            shards,
            count=len(shards),
            workers=workers,
            title="write",
            unit="record",
            size=lambda shard: shard.records,
            total=sum(shard.records for shard in shards),
        )
    )


def write_shard(shard: ShardEntry, *, work: Path) -> WrittenShard:
    """Write one shard and the index of its record offsets, unless a receipt says that it is done.

    Raises `ChunkLostError` if an image isn't any more what was inspected.
    """
    there = find_written(shard, work=work)
    if there:
        return there
    frames = _frames(read_shard_plan(work, shard), str(work / INSPECT_FOLDER))
    seal = write_frames(frames, shard.path, split=shard.split, folder=work / DATASET_FOLDER)
    # What a receipt says is checked before it is sealed, so it needn't outlive a power cut.
    receipt = json.dumps(asdict(Receipt(_key(shard), seal))).encode()
    write_atomic(receipt_path(work, shard.path), receipt, flush=False)
    return WrittenShard(seal, fresh=True)


def write_frames(frames: Iterable[bytes], path: str, *, split: str, folder: Path) -> ShardSeal:
    """Write `frames`, a record each, as the shard `path` of `folder`, and the index of their offsets beside it."""
    offsets, checksums = [0], []
    digest = hashlib.sha256()
    with atomic_file(folder / path, sync=False) as file:
        for frame in frames:
            file.write(frame)
            digest.update(frame)
            offsets.append(offsets[-1] + len(frame))
            checksums.append(int.from_bytes(frame[-4:], "little"))
    index = ShardIndex(np.asarray(offsets, dtype="<i8"), np.asarray(checksums, dtype="<u4")).to_bytes()
    index_path = path + OFFSETS_SUFFIX
    write_atomic(folder / index_path, index, sync=False)
    index_seal = FileSeal(index_path, hashlib.sha256(index).hexdigest(), len(index))
    return ShardSeal(path, split, digest.hexdigest(), offsets[-1], len(checksums), index_seal)


def _frames(records: Iterable[RecordPlan], chunks: str) -> Iterator[bytes]:
    for planned in records:
        image = read_image(chunks, planned.image)
        record = Record(image, planned.label, planned.id, planned.group, planned.width, planned.height)
        yield frame_record(encode_example(record))


def receipt_path(work: Path, shard: str) -> Path:
    """Where it is noted that a shard is written. Without the note it is written again."""
    return work / RECEIPTS_FOLDER / f"{shard}.json"


def find_written(shard: ShardEntry, *, work: Path) -> WrittenShard | None:
    """A shard that was written by this plan, by whomever; None if it isn't yet."""
    try:
        values = json.loads(receipt_path(work, shard.path).read_text())
        sealed = values["seal"]
        seal = ShardSeal(**sealed | {"offsets": FileSeal(**sealed["offsets"])})
        ours = values["key"] == _key(shard)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    ours &= (seal.path, seal.split, seal.records) == (shard.path, shard.split, shard.records)
    whole = all(_size(work / DATASET_FOLDER / file.path) == file.bytes for file in (seal, seal.offsets))
    return WrittenShard(seal, fresh=False) if ours and whole else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _key(shard: ShardEntry) -> str:
    return f"{WRITE_VERSION} {shard.plan_sha256}"
