"""Stage 2: from what the files are to what is written where. Pure, and cheap enough to repeat on every run.

    plan = make_plan(rows, organ="cervix", settings=settings)

Decides label conflicts and duplicates, groups, splits, and the shard and place of every record. Records of a split lie
in the order of a hash of their id, so that the order on any machine is the same and neighbours aren't of one class.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import grouping
from data_pipeline.cli import RequestError
from data_pipeline.images import Encoding
from data_pipeline.inspect_stage import InspectionRow
from data_pipeline.manifest import SPLITS, Counts, Grouping, QuarantineRow, SplitCounts
from data_pipeline.splits import Fold, Fractions, split_groups

RECORDS_PER_SHARD = 4096
# Small datasets are cut finer, so that several processes can write and read them.
SMALL_SHARDS, SMALL_SHARD_RECORDS = 8, 64
LARGE_GROUP = 0.15


@dataclass(frozen=True)
class Settings:
    """Everything that decides a dataset's bytes besides the images. The number of workers doesn't."""

    image_size: int = 256
    test_fraction: float = 0.15
    validation_fraction: float = 0.30
    folds: int = 0
    fold: int = 0
    group_by: str = "auto"
    group_table_sha256: str = ""
    seed: int = 0
    encoding: Encoding = "jpeg"
    jpeg_quality: int = 95

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class PlannedRecord:
    """An image to be written."""

    row: InspectionRow
    label: int
    group: str


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard to be written: its file name, split and records in order."""

    path: str
    split: str
    records: tuple[PlannedRecord, ...]


@dataclass(frozen=True)
class Plan:
    """All that conversion will do."""

    organ: str
    classes: tuple[str, ...]
    shards: tuple[PlannedShard, ...]
    left_out: tuple[QuarantineRow, ...]
    counts: Counts
    splits: dict[str, SplitCounts]
    grouping: Grouping
    warnings: tuple[str, ...]


def make_plan(
    rows: Sequence[InspectionRow],
    *,
    organ: str,
    settings: Settings,
    rule: grouping.Rule,
    diagnoses: Sequence[str] = (),
) -> Plan:
    """The plan for `rows`. Raises `RequestError` if there is nothing to learn from or the rule fits nothing.

    `diagnoses` names the folders that were looked into: one without a usable image is worth a warning.
    """
    kept, left_out, copies = _without_copies(rows)
    classes = tuple(sorted({row.diagnosis for row in kept}))
    if len(classes) < 2:
        reasons = Counter(row.reason for row in left_out).most_common(3)
        raise RequestError(
            f"{organ} has usable images of {len(classes)} diagnoses ({', '.join(classes) or 'none'}), at least 2 are "
            f"needed. Left out: {'; '.join(f'{n} × {reason}' for reason, n in reasons) or 'nothing'}. "
            f"To fix it: put images at {organ}/DIAGNOSIS/FILE."
        )
    named = grouping.group_images(((row.id, row.diagnosis) for row in rows if row.reason == ""), rule)
    groups = grouping.link(named.groups, copies)
    records = [PlannedRecord(row, classes.index(row.diagnosis), groups[row.id]) for row in kept]
    by_split = _split(records, len(classes), settings)
    shards = tuple(shard for split in SPLITS for shard in _shards(organ, split, by_split[split]))
    splits = {split: _split_counts(by_split[split], classes) for split in SPLITS}
    duplicates = sum(row.outcome == "duplicate" for row in left_out)
    return Plan(
        organ=organ,
        classes=classes,
        shards=shards,
        left_out=tuple(left_out),
        counts=Counts(len(rows), len(kept), duplicates, len(left_out) - duplicates),
        splits=splits,
        grouping=Grouping(
            rule=named.rule,
            description=named.description,
            groups=len({record.group for record in records}),
            examples=grouping.examples({record.row.id: record.group for record in records}),
        ),
        warnings=tuple(_warnings(set(diagnoses) - set(classes), splits, named, records)),
    )


def _without_copies(
    rows: Sequence[InspectionRow],
) -> tuple[list[InspectionRow], list[QuarantineRow], list[tuple[str, str]]]:
    """(rows to write, what is left out, pairs of ids with the same pixels)."""
    same_pixels: dict[str, list[InspectionRow]] = defaultdict(list)
    left_out = [QuarantineRow(row.id, "quarantined", row.reason, "") for row in rows if row.reason]
    for row in rows:
        if not row.reason:
            same_pixels[row.pixel_hash].append(row)
    kept, copies = [], []
    for same in same_pixels.values():
        first = min(same, key=lambda row: row.id)
        copies += [(first.id, row.id) for row in same if row is not first]
        diagnoses = sorted({row.diagnosis for row in same})
        if len(diagnoses) > 1:
            reason = f"label conflict: the same image stands under {' and '.join(diagnoses)}"
            left_out += [QuarantineRow(row.id, "quarantined", reason, "") for row in same]
            continue
        kept.append(first)
        left_out += [
            QuarantineRow(row.id, "duplicate", _duplicate_reason(row, first), first.id)
            for row in same
            if row is not first
        ]
    return kept, sorted(left_out, key=lambda row: row.path), copies


def _duplicate_reason(row: InspectionRow, first: InspectionRow) -> str:
    return "same file" if row.sha256 == first.sha256 else "same pixels in another file"


def _split(records: Sequence[PlannedRecord], classes: int, settings: Settings) -> dict[str, list[PlannedRecord]]:
    names = sorted({record.group for record in records})
    position = {name: index for index, name in enumerate(names)}
    counts: NDArray[np.int64] = np.zeros((len(names), classes), dtype=np.int64)
    np.add.at(counts, ([position[r.group] for r in records], [r.label for r in records]), 1)
    fractions = Fractions(test=settings.test_fraction, validation=settings.validation_fraction)
    fold = Fold(of=settings.folds, number=settings.fold) if settings.folds else None
    assignment = split_groups(counts, names, fractions=fractions, seed=settings.seed, fold=fold)
    by_split: dict[str, list[PlannedRecord]] = {split: [] for split in SPLITS}
    for record in sorted(records, key=lambda record: _place(record.row.id)):
        by_split[SPLITS[assignment[position[record.group]]]].append(record)
    return by_split


def _place(record_id: str) -> bytes:
    return hashlib.sha256(record_id.encode()).digest()


def shard_count(records: int) -> int:
    """Into how many shards a split of this many records is cut: none if it is empty."""
    few = min(SMALL_SHARDS, -(-records // SMALL_SHARD_RECORDS))  # rounded up
    return max(few, -(-records // RECORDS_PER_SHARD))


def _shards(organ: str, split: str, records: Sequence[PlannedRecord]) -> list[PlannedShard]:
    total = shard_count(len(records))
    if total == 0:
        return []
    edges = [len(records) * index // total for index in range(total + 1)]
    return [
        PlannedShard(
            path=f"{organ}-{split}.tfrecord-{index:05d}-of-{total:05d}",
            split=split,
            records=tuple(records[edges[index] : edges[index + 1]]),
        )
        for index in range(total)
    ]


def _split_counts(records: Sequence[PlannedRecord], classes: tuple[str, ...]) -> SplitCounts:
    per_class = Counter(record.label for record in records)
    return SplitCounts(
        records=len(records),
        groups=len({record.group for record in records}),
        shards=shard_count(len(records)),
        per_class={name: per_class[label] for label, name in enumerate(classes)},
    )


def _warnings(
    unused: set[str],
    splits: dict[str, SplitCounts],
    named: grouping.GroupedImages,
    records: Sequence[PlannedRecord],
) -> list[str]:
    warnings = []
    if named.rule == grouping.NO_RULE:
        warnings.append(
            "No slide or patient is known for these images: tiles of one slide may lie in several splits, and test "
            "results may be too good. Name them with --group_by."
        )
    elif named.unmatched:
        warnings.append(f"The rule {named.rule} does not fit {named.unmatched} images: each of them stands alone.")
    warnings += [f"No usable image of {_shown(name)}: it is no class of this dataset." for name in sorted(unused)]
    for split, counts in splits.items():
        missing = [name for name, number in counts.per_class.items() if number == 0]
        if missing:
            warnings.append(f"No image of {', '.join(missing)} in {split}: too few groups, or a fraction of 0.")
    return warnings + _doubts_about_groups(records)


def _doubts_about_groups(records: Sequence[PlannedRecord]) -> list[str]:
    """Signs that a rule took something else for a slide: huge groups, or the same names in every diagnosis."""
    sizes = Counter(record.group for record in records)
    labels = defaultdict(set)
    for record in records:
        labels[record.group].add(record.label)
    doubts = []
    largest, size = max(sizes.items(), key=lambda item: (item[1], item[0]))
    if size > LARGE_GROUP * len(records) and len(sizes) > 1:
        share = f"{size / len(records):.0%}"
        doubts.append(f"Group {largest} holds {share} of all images: is it really one slide? See --group_by.")
    shared = sum(len(found) > 1 for found in labels.values())
    if shared > len(sizes) / 2:
        doubts.append(
            f"{shared} of {len(sizes)} groups have images of several diagnoses. If numbers start again in each folder, "
            "these are different slides: give their true names with --group_by=csv:FILE."
        )
    return doubts


def _shown(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()
