"""A plan on the disk: what the write and seal stages go by, in this process or on another machine.

    summary = write_plan(work, plan, table, key="…", inputs_sha256="…")
    summary = load_plan(work, key="…")            # None if there is none for these files and flags
    records = read_shard_plan(work, summary.shards[0])

`plan.json` is written last. It holds what the manifest and the card will say; one file a shard holds its records, so
that a writer reads no more than what it is to write.
"""

import csv
import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from data_pipeline.cli import FaultError
from data_pipeline.manifest import (
    NEAR_NAME,
    QUARANTINE_NAME,
    Counts,
    Grouping,
    NearDuplicates,
    OriginalSizes,
    SplitCounts,
    quarantine_csv,
)
from data_pipeline.plan import Plan, PlannedShard
from data_pipeline.spool import ImageRef
from data_pipeline.storage import write_atomic
from data_pipeline.table import Table

PLAN_FOLDER = "plan"
FILE_NAME, REFUSAL_NAME = "plan.json", "refused.json"
# How many images the card shows: of near duplicates, and of images that were left out.
PAIRS_SHOWN, LEFT_OUT_SHOWN = 15, 48


@dataclass(frozen=True, slots=True)
class ShownPair:
    """Two images that look alike, for the card."""

    left: str
    right: str
    similarity: float
    images: tuple[ImageRef, ImageRef]


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """A shard to be written: its file name, split, number of records, and the hash of the list of them."""

    path: str
    split: str
    records: int
    plan_sha256: str


@dataclass(frozen=True)
class PlanSummary:
    """All of a plan but the records themselves. `key` stands for the files and flags it was made of.

    `tables` holds the SHA-256 of the CSV files beside it.
    """

    key: str
    organ: str
    classes: tuple[str, ...]
    counts: Counts
    splits: dict[str, SplitCounts]
    grouping: Grouping
    near_duplicates: NearDuplicates
    sizes: OriginalSizes
    warnings: tuple[str, ...]
    inputs_sha256: str
    tables: dict[str, str]
    shards: tuple[ShardEntry, ...]
    near_shown: tuple[ShownPair, ...]
    left_out_shown: dict[str, ImageRef]


@dataclass(frozen=True, slots=True)
class RecordPlan:
    """A record to be written: everything about it but its image, and where that lies."""

    id: str
    label: int
    group: str
    width: int
    height: int
    image: ImageRef


def write_plan(work: Path, plan: Plan, table: Table, *, key: str, inputs_sha256: str) -> PlanSummary:
    """Replace the plan in `work`."""
    folder = work / PLAN_FOLDER
    (folder / FILE_NAME).unlink(missing_ok=True)  # first, so that nobody takes the new shards for the old plan's
    shutil.rmtree(folder, ignore_errors=True)
    shards = []
    for shard in plan.shards:
        data = _shard_plan(plan, shard, table)
        # The summary tells a damaged one, and each run makes the plan anew: after a power cut too.
        write_atomic(shard_plan_path(work, shard.path), data, flush=False)
        shards.append(ShardEntry(shard.path, shard.split, len(shard.rows), hashlib.sha256(data).hexdigest()))
    tables = {
        QUARANTINE_NAME: quarantine_csv(plan.left_out).encode(errors="backslashreplace"),
        NEAR_NAME: _near_csv(plan, table).encode(),
    }
    for name, data in tables.items():
        write_atomic(folder / name, data, sync=False)
    summary = PlanSummary(
        key=key,
        organ=plan.organ,
        classes=plan.classes,
        counts=plan.counts,
        splits=plan.splits,
        grouping=plan.grouping,
        near_duplicates=plan.near_duplicates,
        sizes=plan.sizes,
        warnings=plan.warnings,
        inputs_sha256=inputs_sha256,
        tables={name: hashlib.sha256(data).hexdigest() for name, data in tables.items()},
        shards=tuple(shards),
        near_shown=_near_shown(plan, table),
        left_out_shown=_left_out_shown(plan, table),
    )
    values = asdict(summary)
    write_atomic(folder / FILE_NAME, json.dumps(values | {"sha256": _digest(values)}).encode())
    return summary


def write_refusal(work: Path, message: str, *, key: str) -> None:
    """Note why these files and flags give no plan."""
    (work / PLAN_FOLDER / FILE_NAME).unlink(missing_ok=True)
    write_atomic(work / PLAN_FOLDER / REFUSAL_NAME, json.dumps({"key": key, "message": message}).encode())


def load_refusal(work: Path, *, key: str) -> str:
    """Why there is no plan for the files and flags that `key` stands for; empty if there is or may be one."""
    try:
        values = json.loads((work / PLAN_FOLDER / REFUSAL_NAME).read_bytes())
        return str(values["message"]) if values["key"] == key else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def load_plan(work: Path, *, key: str) -> PlanSummary | None:
    """The plan in `work`, if it is there, whole and made of the files and flags that `key` stands for."""
    folder = work / PLAN_FOLDER
    try:
        values: dict[str, Any] = json.loads((folder / FILE_NAME).read_bytes())
        if values.pop("sha256") != _digest(values):
            return None
        tables = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in values["tables"]}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    if values["key"] != key or values["tables"] != tables:
        return None
    pairs = (pair | {"images": tuple(ImageRef(**image) for image in pair["images"])} for pair in values["near_shown"])
    return PlanSummary(
        **values
        | {
            "classes": tuple(values["classes"]),
            "counts": Counts(**values["counts"]),
            "splits": {name: SplitCounts(**split) for name, split in values["splits"].items()},
            "grouping": Grouping(**values["grouping"]),
            "near_duplicates": NearDuplicates(**values["near_duplicates"]),
            "sizes": _sizes(values["sizes"]),
            "warnings": tuple(values["warnings"]),
            "shards": tuple(ShardEntry(**shard) for shard in values["shards"]),
            "near_shown": tuple(ShownPair(**pair) for pair in pairs),
            "left_out_shown": {name: ImageRef(**image) for name, image in values["left_out_shown"].items()},
        }
    )


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def _sizes(values: dict[str, Any]) -> OriginalSizes:
    commonest = tuple((size, number) for size, number in values["commonest"])
    return OriginalSizes(commonest, values["distinct"], tuple(values["width"]), tuple(values["height"]))


def shard_plan_path(work: Path, shard: str) -> Path:
    """Where the records of a shard are listed."""
    return work / PLAN_FOLDER / f"{shard}.json"


def read_shard_plan(work: Path, shard: ShardEntry) -> list[RecordPlan]:
    """The records of a shard, in order. Raises `FaultError` if the list isn't the one that was planned."""
    try:
        data = shard_plan_path(work, shard.path).read_bytes()
    except FileNotFoundError as error:
        raise FaultError(f"The plan of {shard.path} is lost. To fix it: run --stage=plan again.") from error
    if hashlib.sha256(data).hexdigest() != shard.plan_sha256:
        raise FaultError(f"The plan of {shard.path} was changed. To fix it: run the same command again.")
    columns = json.loads(data)
    images = map(ImageRef, columns["chunk"], columns["start"], columns["bytes"], columns["crc32c"])
    return list(map(RecordPlan, *(columns[name] for name in ("id", "label", "group", "width", "height")), images))


def _shard_plan(plan: Plan, shard: PlannedShard, table: Table) -> bytes:
    rows, records = shard.rows, plan.records
    at = records.at(rows)
    columns = {
        "id": [table.ids[row] for row in rows.tolist()],
        "label": records.labels[at].tolist(),
        "group": [records.names[number] for number in records.groups[at].tolist()],
        "width": table.width[rows].tolist(),
        "height": table.height[rows].tolist(),
        "chunk": [table.chunks[number] for number in table.chunk[rows].tolist()],
        "start": table.start[rows].tolist(),
        "bytes": table.bytes[rows].tolist(),
        "crc32c": table.crc32c[rows].tolist(),
    }
    return json.dumps(columns, separators=(",", ":")).encode()


def near_csv(rows: Iterable[Sequence[str]]) -> str:
    """Pairs that look alike, two ids and their similarity each, as the text of `near_duplicates.csv`."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "near_duplicate_of", "similarity"))
    writer.writerows(rows)
    return text.getvalue()


def _near_csv(plan: Plan, table: Table) -> str:
    pairs = ((table.ids[pair.left], table.ids[pair.right], f"{pair.similarity:.4f}") for pair in plan.near)
    return near_csv(sorted(pairs))


def _near_shown(plan: Plan, table: Table) -> tuple[ShownPair, ...]:
    """Pairs of two diagnoses first: one of their labels is probably wrong. Then the least sure ones."""
    differing = [pair for pair in plan.near if table.diagnosis(pair.left) != table.diagnosis(pair.right)]
    taken = set(differing)
    pairs = [*differing, *(pair for pair in reversed(plan.near) if pair not in taken)][:PAIRS_SHOWN]
    return tuple(
        ShownPair(
            left=table.ids[pair.left],
            right=table.ids[pair.right],
            similarity=round(pair.similarity, 4),
            images=(table.image(pair.left), table.image(pair.right)),
        )
        for pair in pairs
    )


def _left_out_shown(plan: Plan, table: Table) -> dict[str, ImageRef]:
    """Images that could be decoded and were left out all the same, such as those with two diagnoses."""
    wanted = [row.path for row in plan.left_out if row.outcome == "quarantined"]
    found: dict[str, ImageRef] = {}
    for name in wanted:
        row = table.find(name)
        if row not in table.reasons:
            found[name] = table.image(row)
        if len(found) == LEFT_OUT_SHOWN:
            break
    return found
