"""Stage 3: write the planned shards, several at once, each whole or not at all.

    seals = write_shards(plan, folder, work=Path("cervix.partial"), settings=settings, workers=2)

A finished shard leaves a receipt beside the work. A later run with the same plan takes the shard from its receipt, so
that only unfinished shards cost time after an interruption.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_pipeline.cli import FaultError
from data_pipeline.images import encode_for_training, fits
from data_pipeline.manifest import FileSeal, ShardSeal
from data_pipeline.parallel import in_processes
from data_pipeline.plan import Plan, PlannedRecord, PlannedShard, Settings
from data_pipeline.schema import Record, encode_example, frame_record
from data_pipeline.storage import atomic_file, write_atomic

DATASET_FOLDER = "dataset"
RECEIPTS_FOLDER = "receipts"
OFFSETS_SUFFIX = ".offsets"


class InputChangedError(FaultError):
    """An image isn't the file any more that was inspected."""


@dataclass(frozen=True, slots=True)
class _Receipt:
    """What was written for which records."""

    key: str
    seal: ShardSeal


def write_shards(plan: Plan, folder: Path, *, work: Path, settings: Settings, workers: int) -> list[ShardSeal]:
    """Write what isn't written yet into `work/dataset`; the seals of all shards, in the plan's order.

    Raises `InputChangedError` if an image has changed since it was inspected.
    """
    write = partial(write_shard, folder=folder, work=work, settings=settings)
    size = lambda shard: len(shard.records)  # noqa: E731
    return list(in_processes(write, plan.shards, workers=workers, title="write", unit="record", size=size))


def write_shard(shard: PlannedShard, *, folder: Path, work: Path, settings: Settings) -> ShardSeal:
    """Write one shard and the index of its record offsets, unless a receipt says that it is done."""
    target = work / DATASET_FOLDER / shard.path
    key = _key(shard, settings)
    receipt = _read_receipt(receipt_path(work, shard.path))
    if receipt and receipt.key == key and target.is_file() and target.stat().st_size == receipt.seal.bytes:
        return receipt.seal
    offsets = [0]
    digest = hashlib.sha256()
    with atomic_file(target) as file:
        for record in shard.records:
            frame = frame_record(encode_example(_stored(record, folder, settings)))
            file.write(frame)
            digest.update(frame)
            offsets.append(offsets[-1] + len(frame))
    index = np.asarray(offsets, dtype="<i8").tobytes()
    index_path = shard.path + OFFSETS_SUFFIX
    write_atomic(work / DATASET_FOLDER / index_path, index)
    index_seal = FileSeal(index_path, hashlib.sha256(index).hexdigest(), len(index))
    seal = ShardSeal(shard.path, shard.split, digest.hexdigest(), offsets[-1], len(shard.records), index_seal)
    write_atomic(receipt_path(work, shard.path), json.dumps(asdict(_Receipt(key, seal))).encode())
    return seal


def receipt_path(work: Path, shard: str) -> Path:
    """Where it is noted that a shard is written. Without the note it is written again."""
    return work / RECEIPTS_FOLDER / f"{shard}.json"


def _stored(record: PlannedRecord, folder: Path, settings: Settings) -> Record:
    row = record.row
    try:
        data = (folder / row.id).read_bytes()
    except OSError as error:
        raise _changed(row.id, f"can't be read any more ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise _changed(row.id, "was changed")
    size_px, encoding = settings.image_size, settings.encoding
    if not (row.plain and fits(row.width, row.height, row.format, size_px=size_px, encoding=encoding)):
        data = encode_for_training(data, size_px=size_px, encoding=encoding, quality=settings.jpeg_quality)
    return Record(data, record.label, row.id, record.group, row.width, row.height)


def _changed(name: str, what: str) -> InputChangedError:
    return InputChangedError(
        f"{name} {what} while it was being converted. To fix it: let the images rest, then run the same command again."
    )


def _key(shard: PlannedShard, settings: Settings) -> str:
    """Changes with anything that decides the shard's bytes."""
    stored = [settings.image_size, settings.encoding, settings.jpeg_quality]
    records: Sequence[object] = [(r.row.id, r.row.sha256, r.label, r.group) for r in shard.records]
    return hashlib.sha256(json.dumps([stored, records]).encode()).hexdigest()


def _read_receipt(path: Path) -> _Receipt | None:
    try:
        values = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    seal = values["seal"]
    return _Receipt(values["key"], ShardSeal(**seal | {"offsets": FileSeal(**seal["offsets"])}))
