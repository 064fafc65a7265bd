"""Stage 2: from what the files are to what is written where. Pure, and cheap enough to repeat on every run.

    plan = make_plan(table, organ="cervix", settings=settings, rule=parse_rule("auto"), identify=identify)

Decides label conflicts and duplicates, links near duplicates, groups, splits, and the shard and place of every record.
Records of a split lie in the order of a hash of their id, so that the order on any machine is the same and neighbours
aren't of one class.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from data_pipeline import doubts, grouping
from data_pipeline.cli import RequestError
from data_pipeline.copies import find_copies
from data_pipeline.given_splits import NOT_NAMED, nothing_given, splits_of_groups
from data_pipeline.manifest import (
    SPLITS,
    Counts,
    Grouping,
    NearDuplicates,
    OriginalSizes,
    QuarantineRow,
    SplitCounts,
)
from data_pipeline.near import THRESHOLD, near_duplicates
from data_pipeline.settings import Settings
from data_pipeline.splits import Fold, Fractions, split_groups
from data_pipeline.table import Table

RECORDS_PER_SHARD = 4096
# Small datasets are cut finer, so that several processes can write and read them.
SMALL_SHARDS, SMALL_SHARD_RECORDS = 8, 64
SIZES_NAMED = 8


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard to be written: its file name, its split, and the rows of the table that become its records, in order."""

    path: str
    split: str
    rows: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two rows of the table whose images look alike. `similarity` is at most 1."""

    left: int
    right: int
    similarity: float


@dataclass(frozen=True)
class Records:
    """What is to be written: rows of the table, in the order of their ids, each with its label and group.

    `rows`, `labels` and `groups` are `[records]`; `groups` numbers `names`, which are sorted.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    names: list[str]

    def at(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where some rows of the table stand among the records."""
        return np.searchsorted(self.rows, rows)


@dataclass(frozen=True)
class Plan:
    """All that conversion will do. `near` are the pairs that were linked because they look alike, the surest first."""

    organ: str
    classes: tuple[str, ...]
    records: Records
    shards: tuple[PlannedShard, ...]
    near: tuple[NearPair, ...]
    left_out: tuple[QuarantineRow, ...]
    counts: Counts
    splits: dict[str, SplitCounts]
    grouping: Grouping
    near_duplicates: NearDuplicates
    sizes: OriginalSizes
    warnings: tuple[str, ...]


def make_plan(
    table: Table,
    *,
    organ: str,
    settings: Settings,
    rule: grouping.Rule,
    identify: Callable[[int], bytes],
    given: Mapping[str, str] | None = None,
    diagnoses: Sequence[str] = (),
) -> Plan:
    """The plan for the files of `table`. Raises `RequestError` if there is nothing to learn from.

    `identify` gives for a row what is equal for equal pixels. `given` maps ids to splits, as a table of the user's
    says. `diagnoses` names the folders that were looked into: one without a usable image is worth a warning.
    """
    usable, left_out = _usable(table, given)
    copies = find_copies(table, usable, identify)
    left_out = sorted(left_out + copies.left_out, key=lambda row: row.path)
    classes, labels = _labels(table, copies.kept)
    if len(classes) < 2:
        raise _too_few(organ, classes, left_out)
    near = _near_pairs(table, copies.kept) if settings.near_duplicates == "link" else ()
    ids = [table.ids[row] for row in usable.tolist()]
    named = grouping.group_images(ids, [name.partition("/")[0] for name in ids], rule)
    groups = _linked(named.groups, usable, [*copies.pairs, *((pair.left, pair.right) for pair in near)])
    of_groups = None if given is None else splits_of_groups(ids, groups, given)
    kept = np.searchsorted(usable, copies.kept).tolist()
    names, numbers = number_groups([groups[position] for position in kept])
    records = Records(copies.kept, labels, numbers, names)
    by_split = _split(records, table, len(classes), settings, of_groups)
    splits = {split: split_counts(records, members, classes) for split, members in by_split.items()}
    if given is not None and not (splits["train"].records and splits["test"].records):
        raise nothing_given(given, ids)
    return Plan(
        organ=organ,
        classes=classes,
        records=records,
        shards=tuple(shard for split in SPLITS for shard in cut_shards(organ, split, records.rows[by_split[split]])),
        near=near,
        left_out=tuple(left_out),
        counts=_counts(table, records, left_out),
        splits=splits,
        grouping=Grouping(
            rule=named.rule,
            description=named.description,
            groups=len(names),
            examples=grouping.examples([(ids[position], groups[position]) for position in kept]),
        ),
        near_duplicates=_summed_up(near, looked=settings.near_duplicates == "link"),
        sizes=original_sizes(table.width[copies.kept], table.height[copies.kept]),
        warnings=(
            *doubts.about_given_splits(given, set(ids)),
            *doubts.about_groups(named, names, numbers, labels),
            *doubts.about_splits(splits, set(diagnoses) - set(classes)),
            *doubts.about_near_duplicates(table, [(pair.left, pair.right) for pair in near]),
            *doubts.about_images(table, copies.kept, labels, classes, image_size=settings.image_size),
        ),
    )


def _usable(table: Table, given: Mapping[str, str] | None) -> tuple[NDArray[np.int64], list[QuarantineRow]]:
    """(rows that may be written, what was refused on sight)."""
    left_out = [QuarantineRow(table.ids[row], "quarantined", reason, "") for row, reason in table.reasons.items()]
    usable = table.usable()
    if given is None:
        return usable, left_out
    named = np.fromiter((table.ids[row] in given for row in usable.tolist()), dtype=bool, count=len(usable))
    left_out += [QuarantineRow(table.ids[row], "quarantined", NOT_NAMED, "") for row in usable[~named].tolist()]
    return usable[named], left_out


def _labels(table: Table, rows: NDArray[np.int64]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """(the classes, the label of each of `rows`)."""
    number_of: dict[str, int] = {}
    numbers = [number_of.setdefault(table.diagnosis(row), len(number_of)) for row in rows.tolist()]
    classes = tuple(sorted(number_of))
    label_of = np.asarray([classes.index(name) for name in number_of], dtype=np.int64)
    return classes, label_of[numbers] if numbers else np.empty(0, dtype=np.int64)


def _too_few(organ: str, classes: tuple[str, ...], left_out: Sequence[QuarantineRow]) -> RequestError:
    reasons = Counter(row.reason for row in left_out).most_common(3)
    return RequestError(
        f"{organ} has usable images of {len(classes)} diagnoses ({', '.join(classes) or 'none'}), at least 2 are "
        f"needed. Left out: {'; '.join(f'{n} × {reason}' for reason, n in reasons) or 'nothing'}. "
        f"To fix it: put images at {organ}/DIAGNOSIS/FILE."
    )


def _near_pairs(table: Table, rows: NDArray[np.int64]) -> tuple[NearPair, ...]:
    found = near_duplicates(table.fingerprints, rows)
    columns = found.left.tolist(), found.right.tolist(), found.similarity.tolist()
    pairs = [NearPair(*values) for values in zip(*columns, strict=True)]
    return tuple(sorted(pairs, key=lambda pair: (-pair.similarity, pair.left, pair.right)))


def _linked(groups: Sequence[str], rows: NDArray[np.int64], pairs: Sequence[tuple[int, int]]) -> list[str]:
    """The groups of `rows`, with those of each pair of rows of the table joined."""
    positions = np.searchsorted(rows, np.asarray(pairs, dtype=np.int64).reshape(-1, 2)).tolist()
    return grouping.link(groups, ((left, right) for left, right in positions))


def _summed_up(near: Sequence[NearPair], *, looked: bool) -> NearDuplicates:
    images = {row for pair in near for row in (pair.left, pair.right)}
    return NearDuplicates(threshold=THRESHOLD if looked else 0.0, pairs=len(near), images=len(images))


def number_groups(groups: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """(the names of the groups, sorted; the number of each of `groups` among them)."""
    names = sorted(set(groups))
    number_of = {name: number for number, name in enumerate(names)}
    return names, np.fromiter((number_of[group] for group in groups), dtype=np.int64, count=len(groups))


def _counts(table: Table, records: Records, left_out: Sequence[QuarantineRow]) -> Counts:
    duplicates = sum(row.outcome == "duplicate" for row in left_out)
    return Counts(len(table), len(records.rows), duplicates, len(left_out) - duplicates)


def original_sizes(width: NDArray[np.int32], height: NDArray[np.int32]) -> OriginalSizes:
    """What is to be said of originals of these sizes, each `[images]`, in pixels."""
    sizes, counts = np.unique(np.stack([width, height]), axis=1, return_counts=True)
    commonest = np.argsort(-counts, kind="stable")[:SIZES_NAMED].tolist()
    return OriginalSizes(
        commonest=tuple((f"{sizes[0, i]} × {sizes[1, i]}", int(counts[i])) for i in commonest),
        distinct=len(counts),
        width=(int(width.min()), int(width.max())),
        height=(int(height.min()), int(height.max())),
    )


def _split(
    records: Records, table: Table, classes: int, settings: Settings, of_groups: Mapping[str, str] | None
) -> dict[str, NDArray[np.int64]]:
    """The records of each split, in the order they are written in."""
    assignment = _assigned(records, classes, settings, of_groups)[records.groups]
    order = order_by_hash([table.ids[row] for row in records.rows.tolist()])
    return {split: order[assignment[order] == number] for number, split in enumerate(SPLITS)}


def _assigned(
    records: Records, classes: int, settings: Settings, of_groups: Mapping[str, str] | None
) -> NDArray[np.int64]:
    """The split of each group, as an index into `SPLITS`."""
    test = None
    if of_groups is not None:
        given = np.asarray([SPLITS.index(of_groups[name]) for name in records.names], dtype=np.int64)
        if SPLITS.index("validation") in given:
            return given
        test = given == SPLITS.index("test")
    counts: NDArray[np.int64] = np.zeros((len(records.names), classes), dtype=np.int64)
    np.add.at(counts, (records.groups, records.labels), 1)
    fractions = Fractions(test=settings.test_fraction, validation=settings.validation_fraction)
    fold = Fold(of=settings.folds, number=settings.fold) if settings.folds else None
    return split_groups(counts, records.names, fractions=fractions, seed=settings.seed, fold=fold, test=test)


def order_by_hash(ids: Sequence[str]) -> NDArray[np.int64]:
    """`ids`, ordered by the SHA-256 of each."""
    digests = b"".join(hashlib.sha256(name.encode()).digest() for name in ids)
    parts = np.frombuffer(digests, dtype=">u8").reshape(-1, 4)
    return np.lexsort(parts.T[::-1])


def shard_count(records: int) -> int:
    """Into how many shards a split of this many records is cut: none if it is empty."""
    few = min(SMALL_SHARDS, -(-records // SMALL_SHARD_RECORDS))  # rounded up
    return max(few, -(-records // RECORDS_PER_SHARD))


def cut_shards(organ: str, split: str, rows: NDArray[np.int64]) -> list[PlannedShard]:
    """The shards of a split that has these `rows`, in order."""
    total = shard_count(len(rows))
    edges = [len(rows) * index // total for index in range(total + 1)] if total else []
    return [
        PlannedShard(f"{organ}-{split}.tfrecord-{index:05d}-of-{total:05d}", split, rows[start:end])
        for index, (start, end) in enumerate(pairwise(edges))
    ]


def split_counts(records: Records, members: NDArray[np.int64], classes: tuple[str, ...]) -> SplitCounts:
    """How much a split holds that has these `members` of `records`."""
    per_class = np.bincount(records.labels[members], minlength=len(classes)).tolist()
    return SplitCounts(
        records=len(members),
        groups=len(np.unique(records.groups[members])),
        shards=shard_count(len(members)),
        per_class=dict(zip(classes, per_class, strict=True)),
    )
