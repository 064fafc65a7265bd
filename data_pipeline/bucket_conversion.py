"""A conversion whose dataset goes to a bucket: made in a scratch folder, then published.

    manifest = convert_to_bucket(conversion, BucketFolder.of("tfrecords", "gs://lab/tfrecords"))

The scratch folder may get lost at any time: what was inspected is in the bucket too (`mirror.py`), and what is there of
a dataset becomes one by its manifest alone (`publish.py`).
"""

import shutil
from dataclasses import replace
from pathlib import Path

from data_pipeline.bucket import BucketFolder
from data_pipeline.bucket_dataset import Seen, fetch, inputs_noted, look, manifest_of
from data_pipeline.cli import FaultError, RequestError
from data_pipeline.conversion import STAGES, Conversion
from data_pipeline.existing import damage, other_flags, other_images, settled
from data_pipeline.manifest import DatasetError, Manifest
from data_pipeline.mirror import mirrored
from data_pipeline.publish import publish
from data_pipeline.scratch import need_room
from data_pipeline.stages import convert
from data_pipeline.storage import exclusive
from data_pipeline.transfer import remove

# A scratch disk that has less than this for each pixel, once in the chunks and once in the shards, is too small.
LEAST_BYTES = {"jpeg": 0.1, "png": 0.5}
TIMES_ON_DISK = 2


def convert_to_bucket(conversion: Conversion, bucket: BucketFolder) -> Manifest:
    """Convert and publish, or find that all is done. Raises `RequestError` where a person has to decide."""
    _check_alone(conversion)
    lock = conversion.tfrecords / f".{conversion.organ}.publishing.lock"
    busy = f"{conversion.organ} is being converted by another process. To fix it: wait for its end."
    with exclusive(lock, otherwise=busy):
        seen = look(bucket, conversion.organ)
        done = _existing(conversion, bucket / conversion.organ, seen)
        partial = bucket / f".{conversion.organ}.partial"
        if done is None:
            _check_room(conversion)
            with mirrored(conversion, partial) as end_mirror:
                # What is in the scratch folder is ours, be it of other flags.
                done = convert(replace(conversion, overwrite=True), before_seal=end_mirror)
            if done is None:
                raise FaultError(f"{conversion.organ} wasn't sealed. To fix it: run the same command again.")
            publish(conversion, bucket, done, seen)
        remove(partial, [blob.name for blob in partial.files()])
        shutil.rmtree(conversion.target, ignore_errors=True)
        shutil.rmtree(conversion.work, ignore_errors=True)
        return done


def _check_alone(conversion: Conversion) -> None:
    """Raises `RequestError` for stages by themselves and for several machines: these share a folder."""
    if conversion.stages != STAGES or conversion.share.of > 1:
        fix = "name a --tfrecords that all machines share, such as a mounted disk, or convert each organ in one go"
        raise RequestError(f"--stage and --num_workers don't go with {conversion.bucket}. To fix it: {fix}.")


def _existing(conversion: Conversion, place: BucketFolder, seen: Seen) -> Manifest | None:
    """The dataset at `place` if it is what was asked for; None if it must be made."""
    try:
        manifest = manifest_of(seen, place)
    except DatasetError:
        if conversion.overwrite:
            return None
        raise
    if manifest is None:
        return None
    differences = other_flags(conversion, manifest)
    if not differences and not (seen.note and seen.note.inputs and seen.note.inputs == inputs_noted(conversion)):
        differences = other_images(conversion, manifest)
    if not differences:
        problems = seen.damage()
        differences = _damage_of_copy(conversion, place, manifest) if problems is None else problems
    return settled(conversion, manifest, differences, place)


def _damage_of_copy(conversion: Conversion, place: BucketFolder, manifest: Manifest) -> list[str]:
    """What is wrong with a dataset of which no note was kept: all of it is read."""
    copy = Path(f"{conversion.tfrecords}/.{conversion.organ}.fetched")
    fetch(place, copy)
    problems = damage(copy, manifest, conversion.workers)
    shutil.rmtree(copy)
    return problems


def _check_room(conversion: Conversion) -> None:
    least = LEAST_BYTES[conversion.settings.encoding] * conversion.settings.image_size**2 * len(conversion.files)
    need_room(conversion.tfrecords, int(TIMES_ON_DISK * least))
