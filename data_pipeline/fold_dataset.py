"""One fold as a dataset of its own: a sealed folder that every other program takes for what it is.

    manifest = write_fold(request, 0, pool, splits[0])      # fold 1 of 5

Records are copied byte for byte, in the order of a hash of their id as conversion writes them: the fold's bytes depend
on the records alone, not on how the source cut them into shards. The manifest is written last, and the folder then
renamed into its place.
"""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipeline import doubts, grouping
from data_pipeline.card import CardImages
from data_pipeline.card_images import training_samples
from data_pipeline.manifest import (
    NEAR_NAME,
    QUARANTINE_NAME,
    SPLITS,
    Counts,
    Grouping,
    Manifest,
    NearDuplicates,
    ShardSeal,
    SplitCounts,
    quarantine_csv,
)
from data_pipeline.parallel import in_processes
from data_pipeline.plan import cut_shards, order_by_hash, original_sizes, split_counts
from data_pipeline.plan_folder import near_csv
from data_pipeline.pool import Place, Pool, copied_frames
from data_pipeline.seal import complete
from data_pipeline.storage import write_atomic
from data_pipeline.write import write_frames

# What the source was told about splits, which a fold is told anew or doesn't have.
OF_SPLITS = ("test_fraction", "validation_fraction", "folds", "fold", "seed", "split_csv", "split_table_sha256")

INHERITED = "Of the dataset it was cut from: "  # how a warning begins that was given when that was converted


@dataclass(frozen=True)
class FoldRequest:
    """Into what to cut the dataset in `source`, whose seal is `manifest`; `output` gets a folder a fold."""

    source: Path
    manifest: Manifest
    output: Path
    folds: int
    validation_fraction: float
    seed: int
    workers: int = 1
    overwrite: bool = False

    @property
    def organ(self) -> str:
        return self.source.name

    def target(self, number: int) -> Path:
        """Where fold `number`, from 0, is in the end."""
        return self.output / fold_name(number, self.folds) / self.organ

    def settings(self, number: int) -> dict[str, Any]:
        """What the manifest of a fold says of how it was made."""
        kept = {name: value for name, value in self.manifest.settings.items() if name not in OF_SPLITS}
        return kept | {
            "folds": self.folds,
            "fold": number + 1,
            "validation_fraction": self.validation_fraction,
            "seed": self.seed,
            "source_fingerprint": self.manifest.fingerprint,
        }


def fold_name(number: int, folds: int) -> str:
    """The folder of fold `number`, from 0. People count folds from 1."""
    return f"fold-{number + 1}-of-{folds}"


@dataclass(frozen=True)
class CopiedShard:
    """A shard to be written, and where its records lie in the source, in order."""

    path: str
    split: str
    places: tuple[Place, ...]


def write_fold(request: FoldRequest, number: int, pool: Pool, assignment: NDArray[np.int64]) -> Manifest:
    """Make fold `number`, from 0, in which the groups of `pool` have the splits of `assignment`, and put it in place.

    However this ends, nothing unfinished is left. Raises `DatasetError` if the source changes meanwhile.
    """
    target = request.target(number)
    work = target.with_name(f".{target.name}.partial")
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    work.mkdir(parents=True)
    try:
        return _write_fold(request, number, pool, assignment, work=work)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        with suppress(OSError):
            target.parent.rmdir()  # if nothing is in it


def _write_fold(
    request: FoldRequest, number: int, pool: Pool, assignment: NDArray[np.int64], *, work: Path
) -> Manifest:
    source = request.manifest
    members = _members(pool, assignment)
    splits = {split: split_counts(pool.records, rows, source.classes) for split, rows in members.items()}
    shards = _copy_shards(request, pool, members, work=work, title=f"fold {number + 1}")
    described = Manifest(
        organ=source.organ,
        classes=source.classes,
        image_size=source.image_size,
        # Its inputs are the records it was cut from, of which none is left out: what conversion left out, it tells.
        counts=Counts(inputs=len(pool.found), written=len(pool.found), duplicates=0, quarantined=0),
        splits=splits,
        grouping=_grouping(source, pool),
        near_duplicates=_near_duplicates(source, pool),
        shards=shards,
        files=(),
        settings=request.settings(number),
        warnings=_warnings(source, splits),
        inputs_sha256=pool.sha256,
    )
    write_atomic(work / QUARANTINE_NAME, quarantine_csv(()).encode())
    write_atomic(work / NEAR_NAME, near_csv(pool.near).encode())
    width, height = (np.asarray([getattr(one, side) for one in pool.found]) for side in ("width", "height"))
    images = CardImages(samples=training_samples(work, described), sizes=original_sizes(width, height))
    return complete(described, images, folder=work, target=request.target(number))


def _members(pool: Pool, assignment: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The rows of the pool in each split, in the order they are written in."""
    order = order_by_hash(pool.ids)
    of_rows = assignment[pool.records.groups][order]
    return {split: order[of_rows == number] for number, split in enumerate(SPLITS)}


def _copy_shards(
    request: FoldRequest, pool: Pool, members: dict[str, NDArray[np.int64]], *, work: Path, title: str
) -> tuple[ShardSeal, ...]:
    planned = [shard for split, rows in members.items() for shard in cut_shards(request.manifest.organ, split, rows)]
    tasks = (
        CopiedShard(shard.path, shard.split, tuple(pool.found[row].place for row in shard.rows.tolist()))
        for shard in planned
    )
    copied = in_processes(
        partial(_copy_shard, source=request.source, work=work),
        tasks,
        count=len(planned),
        workers=request.workers,
        title=title,
        unit="record",
        size=lambda shard: len(shard.places),
        total=len(pool.found),
    )
    return tuple(copied)


def _copy_shard(shard: CopiedShard, *, source: Path, work: Path) -> ShardSeal:
    return write_frames(copied_frames(source, shard.places), shard.path, split=shard.split, folder=work)


def _grouping(source: Manifest, pool: Pool) -> Grouping:
    return Grouping(
        rule=source.grouping.rule,
        description=source.grouping.description,
        groups=len(pool.records.names),
        examples=grouping.examples([(record.id, record.group) for record in pool.found]),
    )


def _near_duplicates(source: Manifest, pool: Pool) -> NearDuplicates:
    images = {name for pair in pool.near for name in pair[:2]}
    return NearDuplicates(source.near_duplicates.threshold, len(pool.near), len(images))


def _warnings(source: Manifest, splits: dict[str, SplitCounts]) -> tuple[str, ...]:
    """What to hear before trusting the fold: of its own splits, and what was said of the images of the source."""
    of_its_splits = doubts.about_splits(source.splits, ())
    inherited = [warning for warning in source.warnings if warning not in of_its_splits]
    return (*doubts.about_splits(splits, ()), *(f"{INHERITED}{warning}" for warning in inherited))
