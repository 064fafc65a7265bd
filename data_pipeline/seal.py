"""Stage 4: check what was written, describe it, and make it the dataset.

    manifest = seal(plan, shards, work=work, target=target, settings=settings, inputs_sha256=hash, workers=2)

Everything is prepared beside the target. The manifest is the last file written, the rename into place the last step, so
an old dataset stays whole until the new one is.
"""

import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from data_pipeline.audit import audit_shards
from data_pipeline.card import render_card
from data_pipeline.cli import FaultError
from data_pipeline.manifest import (
    FILE_NAME,
    QUARANTINE_NAME,
    FileSeal,
    Manifest,
    ShardSeal,
    load_offsets,
    quarantine_csv,
)
from data_pipeline.plan import Plan, Settings
from data_pipeline.schema import decode_example, unframe_record
from data_pipeline.storage import sync_folder, write_atomic
from data_pipeline.write import DATASET_FOLDER, receipt_path

CARD_NAME = "card.html"
SAMPLES_PER_CLASS = 8


def seal(
    plan: Plan,
    shards: Sequence[ShardSeal],
    *,
    work: Path,
    target: Path,
    settings: Settings,
    inputs_sha256: str,
    workers: int,
) -> Manifest:
    """Turn `work/dataset` into the dataset at `target`. Raises `FaultError` if a shard isn't what was written."""
    folder = work / DATASET_FOLDER
    _remove_strangers(folder, shards)
    described = Manifest(
        organ=plan.organ,
        classes=plan.classes,
        image_size=settings.image_size,
        counts=plan.counts,
        splits=plan.splits,
        grouping=plan.grouping,
        shards=tuple(shards),
        files=(),
        settings=settings.to_json(),
        warnings=plan.warnings,
        inputs_sha256=inputs_sha256,
    )
    _check_written(folder, described, work=work, workers=workers)
    write_atomic(folder / QUARANTINE_NAME, quarantine_csv(plan.left_out).encode(errors="backslashreplace"))
    write_tfds_metadata(folder, described)
    card = render_card(described, plan.left_out, _samples(folder, described))
    write_atomic(folder / CARD_NAME, card.encode(errors="backslashreplace"))
    manifest = _with_files(described, folder)
    write_atomic(folder / FILE_NAME, manifest.to_json().encode())
    _publish(folder, target)
    return manifest


def _check_written(folder: Path, described: Manifest, *, work: Path, workers: int) -> None:
    """Read everything back. A shard that is damaged already is forgotten, so that the next run writes it again."""
    problems: list[str] = []
    for audit in audit_shards(folder, described, decode=False, workers=workers, title="seal"):
        if audit.problems:
            receipt_path(work, audit.shard.path).unlink(missing_ok=True)
            problems += audit.problems
    if problems:
        raise FaultError(
            f"The disk does not hold what was written to it: {'; '.join(problems)}. "
            "To fix it: run the same command again, which writes these shards anew; then look at the disk."
        )


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
        if path.name not in ours:
            path.unlink()


def _with_files(manifest: Manifest, folder: Path) -> Manifest:
    shards = {name for shard in manifest.shards for name in (shard.path, shard.offsets.path)}
    others = sorted(path for path in folder.iterdir() if path.name not in shards | {FILE_NAME})
    files = []
    for path in others:
        data = path.read_bytes()
        files.append(FileSeal(path.name, hashlib.sha256(data).hexdigest(), len(data)))
    return replace(manifest, files=tuple(files))


def _samples(folder: Path, manifest: Manifest) -> dict[str, list[bytes]]:
    """The first few training images of each class, as stored."""
    samples: dict[str, list[bytes]] = {name: [] for name in manifest.classes}
    wanted = {name: min(SAMPLES_PER_CLASS, manifest.splits["train"].per_class[name]) for name in manifest.classes}
    for shard in manifest.shards_of("train"):
        offsets = load_offsets(folder, shard)
        with (folder / shard.path).open("rb") as file:
            for start, end in pairwise(offsets.tolist()):
                if all(len(samples[name]) == wanted[name] for name in samples):
                    return samples
                file.seek(start)
                record = decode_example(unframe_record(file.read(end - start), 0, end - start))
                name = manifest.classes[record.label]
                if len(samples[name]) < wanted[name]:
                    samples[name].append(record.image)
    return samples
