"""Stage 4: check what was written, describe it, and make it the dataset.

    manifest = seal(summary, written, work=work, target=target, settings=settings, workers=2)

Everything is prepared beside the target. The manifest is the last file written, the rename into place the last step, so
an old dataset stays whole until the new one is.
"""

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from data_pipeline.audit import audit_shards
from data_pipeline.card import FILE_NAME as CARD_NAME
from data_pipeline.card import CardImages, render_card
from data_pipeline.card_images import card_images
from data_pipeline.cli import FaultError
from data_pipeline.manifest import (
    FILE_NAME,
    NEAR_NAME,
    QUARANTINE_NAME,
    FileSeal,
    Manifest,
    ShardSeal,
    read_quarantine,
)
from data_pipeline.plan_folder import PLAN_FOLDER, PlanSummary
from data_pipeline.settings import Settings
from data_pipeline.storage import errors_naming, flush, sync_folder, write_atomic
from data_pipeline.write import DATASET_FOLDER, WrittenShard, receipt_path, write_shard

SEALING_FOLDER = "sealing"


def seal(
    summary: PlanSummary,
    written: Sequence[WrittenShard],
    *,
    work: Path,
    target: Path,
    settings: Settings,
    workers: int,
) -> Manifest:
    """Turn `work/dataset` into the dataset at `target`. Raises `FaultError` if a shard isn't what was written.

    Of `written`, the fresh ones aren't read back: nobody else may have written since.
    """
    put_back(work)
    folder = work / SEALING_FOLDER
    (work / DATASET_FOLDER).rename(folder)  # where no worker that comes late writes to
    shards = _checked(summary, written, work=work, workers=workers)
    _remove_strangers(folder, shards)
    described = Manifest(
        organ=summary.organ,
        classes=summary.classes,
        image_size=settings.image_size,
        counts=summary.counts,
        splits=summary.splits,
        grouping=summary.grouping,
        near_duplicates=summary.near_duplicates,
        shards=shards,
        files=(),
        settings=settings.to_json(),
        warnings=summary.warnings,
        inputs_sha256=summary.inputs_sha256,
    )
    for name in (QUARANTINE_NAME, NEAR_NAME):
        write_atomic(folder / name, (work / PLAN_FOLDER / name).read_bytes())
    images = card_images(summary, described, work, folder)
    return complete(described, images, folder=folder, target=target)


def complete(described: Manifest, images: CardImages, *, folder: Path, target: Path) -> Manifest:
    """Add what a dataset has besides its shards and tables, which are in `folder`, and make it the one at `target`.

    `described` lacks the seals of the other files; what comes back has them, as the manifest has that is written last.
    """
    with errors_naming(folder):
        write_tfds_metadata(folder, described)
    card = render_card(described, read_quarantine(folder), images)
    write_atomic(folder / CARD_NAME, card.encode(errors="backslashreplace"))
    manifest = _with_files(described, folder)
    write_atomic(folder / FILE_NAME, manifest.to_json().encode())
    _publish(folder, target)
    return manifest


def _checked(
    summary: PlanSummary, written: Sequence[WrittenShard], *, work: Path, workers: int
) -> tuple[ShardSeal, ...]:
    """Read back what an earlier run or another worker wrote; what is damaged by now is written once more."""
    entries = {entry.path: entry for entry in summary.shards}
    folder = work / SEALING_FOLDER
    check = partial(audit_shards, folder, image_size=0, decode=False, workers=workers, title="seal")
    seals = {one.seal.path: one.seal for one in written}
    damaged = [audit.shard for audit in check([one.seal for one in written if not one.fresh]) if audit.problems]
    for shard in damaged:
        receipt_path(work, shard.path).unlink(missing_ok=True)
        again = write_shard(entries[shard.path], work=work)
        for name in (shard.path, shard.offsets.path):
            (work / DATASET_FOLDER / name).replace(folder / name)
        seals[shard.path] = again.seal
    problems = [problem for audit in check([seals[shard.path] for shard in damaged]) for problem in audit.problems]
    if problems:
        raise FaultError(
            f"The disk does not hold what was written to it: {'; '.join(problems)}. "
            "To fix it: look at the disk, then run the same command again."
        )
    return tuple(seals.values())


def write_tfds_metadata(folder: Path, manifest: Manifest) -> None:
    """The files by which `tfds.builder_from_directory(folder)` reads the dataset without this project."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(
                shape=(manifest.image_size, manifest.image_size, 3), encoding_format=manifest.settings["encoding"]
            ),
            "label": tfds.features.ClassLabel(names=list(manifest.classes)),
            "id": tfds.features.Text(),
            "group": tfds.features.Text(),
            "width": tfds.features.Scalar(np.int64),
            "height": tfds.features.Scalar(np.int64),
        }
    )
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(folder),
        template=manifest.organ + "-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        dataset_name=re.sub(r"\W", "_", manifest.organ),  # TFDS takes identifiers only; files keep the organ's name
        filetype_suffix="tfrecord",
    )
    splits = [
        tfds.core.SplitInfo(
            name=name,
            shard_lengths=[shard.records for shard in manifest.shards_of(name)],
            num_bytes=sum(shard.bytes for shard in manifest.shards_of(name)),
            filename_template=template.replace(split=name),
        )
        for name in manifest.splits
        if manifest.shards_of(name)
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=features,
        split_infos=splits,
        filename_template=template,
        supervised_keys=("image", "label"),
        check_data=False,
    )


def put_back(work: Path) -> None:
    """Undo the setting aside of shards by a seal that was cut off."""
    aside, folder = work / SEALING_FOLDER, work / DATASET_FOLDER
    if aside.is_dir():
        folder.mkdir(exist_ok=True)
        for path in list(aside.iterdir()):
            path.replace(folder / path.name)
        aside.rmdir()


def restore_after_crash(target: Path) -> None:
    """Undo a swap that was cut off between its two renames."""
    if not target.exists() and _replaced(target).exists():
        _replaced(target).rename(target)
    shutil.rmtree(_replaced(target), ignore_errors=True)


def _publish(folder: Path, target: Path) -> None:
    if target.exists():
        target.rename(_replaced(target))
    folder.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(_replaced(target), ignore_errors=True)


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.replaced")


def _remove_strangers(folder: Path, shards: Sequence[ShardSeal]) -> None:
    """Files an interrupted run with other inputs or flags left behind."""
    ours = {name for shard in shards for name in (shard.path, shard.offsets.path)}
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in ours:
            path.unlink()


def _with_files(manifest: Manifest, folder: Path) -> Manifest:
    shards = {name for shard in manifest.shards for name in (shard.path, shard.offsets.path)}
    others = sorted(path for path in folder.iterdir() if path.name not in shards | {FILE_NAME})
    files = []
    for path in others:
        flush(path)  # those of tensorflow-datasets aren't yet
        data = path.read_bytes()
        files.append(FileSeal(path.name, hashlib.sha256(data).hexdigest(), len(data)))
    return replace(manifest, files=tuple(files))
