"""What `bench_input.py` is asked to measure: its flags, what their types don't say of them, and the dataset.

define_flags()                                      # in __main__
with request_of(flags.FLAGS) as request: ...        # raises RequestError before TensorFlow is imported
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from absl import flags

from data_pipeline import cli
from data_pipeline.manifest import Manifest
from data_pipeline.storage import in_bucket, local_path
from trainer import scratch
from trainer.augment_config import AugmentFlags, check_augment_flags, define_augment_flags
from trainer.config import (
    AUGMENT_ON,
    CACHES,
    MAX_SEED,
    MODEL_NAMES,
    PRECISIONS,
    XLA,
    TrainConfig,
    check_image_size,
)
from trainer.preflight import chosen_organs
from trainer.recipe_files import define_recipe_flag
from trainer.sizes import parse_bytes
from trainer.train_flags import MAX_BATCH, MAX_IMAGE_SIZE

SPLIT = "train"
OF_TRAINING = (  # its flags, which a recipe sets
    "batch_size",
    "image_size",
    "model",
    "precision",
    *(field.name for field in fields(AugmentFlags)),
)
MIN_S, MAX_S = 0.1, 600.0


@dataclass(frozen=True)
class Request:
    """A dataset of this machine, and what was found out before anything is measured.

    `free_disk_bytes` is what images kept decoded may take of the disk of --scratch, `load_before` the load average.
    """

    folder: Path
    manifest: Manifest
    image_size: int
    load_before: float
    free_disk_bytes: int
    cache_budget_bytes: int
    fetched: bool


@contextmanager
def request_of(values: Any) -> Iterator[Request]:
    """The request of the command line; while it is open, damage to a dataset that was fetched is told as such.

    Raises `RequestError`.
    """
    load_before = os.getloadavg()[0]
    _check(values)
    budget = parse_bytes("cache_budget", values.cache_budget)
    fetched = in_bucket(values.tfrecords)
    with _fetched(values) if fetched else _there(values) as (folder, manifest):
        size = values.image_size or manifest.image_size
        check_image_size(size, values.model)
        yield Request(folder, manifest, size, load_before, _free_disk(values), budget, fetched)


def define_flags() -> None:
    """Declare the flags; those of training have the defaults of `TrainConfig`."""
    default = {field.name: field.default for field in fields(TrainConfig)}
    flags.DEFINE_string("tfrecords", None, "Folder of datasets, or its gs:// address.")
    flags.DEFINE_string("organ", None, "The dataset to measure, one of --tfrecords.")
    flags.DEFINE_float("seconds", 3.0, "How long to measure each stage.", lower_bound=MIN_S, upper_bound=MAX_S)
    flags.DEFINE_string("output", "", "JSON file to write all figures to, on a disk or at gs://.")
    integer, choice = flags.DEFINE_integer, flags.DEFINE_enum
    integer("batch_size", default["batch_size"], "Images a step.", lower_bound=1, upper_bound=MAX_BATCH)
    text = "Width and height in pixels; 0: as stored."
    integer("image_size", default["image_size"], text, lower_bound=0, upper_bound=MAX_IMAGE_SIZE)
    integer("seed", default["seed"], "Of order and augmentation.", lower_bound=0, upper_bound=MAX_SEED)
    choice("model", default["model"], list(MODEL_NAMES), "The network to train.")
    choice("precision", default["precision"], list(PRECISIONS), "Of its layers.")
    choice("xla", default["xla"], list(XLA), "Whether each step is compiled as a whole.")
    choice("augment_on", default["augment_on"], list(AUGMENT_ON), "Where training images are augmented.")
    choice("cache", default["cache"], list(CACHES), "Whether training keeps images decoded.")
    flags.DEFINE_string("cache_budget", default["cache_budget"], "How much memory that may take.")
    define_recipe_flag()
    define_augment_flags()
    scratch.define_scratch_flags()
    flags.mark_flags_as_required(["tfrecords", "organ"])


def _check(values: Any) -> None:
    """What the types of the flags don't say. Raises `RequestError`."""
    check_augment_flags(values)
    if values.seconds != values.seconds:
        raise cli.invalid_flag("seconds", expected="a number", received=values.seconds, fix="leave it out")
    if values.image_size:
        check_image_size(values.image_size, values.model)


@contextmanager
def _there(values: Any) -> Iterator[tuple[Path, Manifest]]:
    """A dataset on a disk."""
    tfrecords = local_path("tfrecords", values.tfrecords)
    organ = _one(chosen_organs([values.organ], tfrecords))
    yield tfrecords / organ, _with_images(Manifest.load(tfrecords / organ), values)


@contextmanager
def _fetched(values: Any) -> Iterator[tuple[Path, Manifest]]:
    """A dataset of a bucket, fetched."""
    from trainer.staging import (  # only now: the client of Cloud Storage takes half a second
        BucketDatasets,
        fetched_again,
    )

    datasets = BucketDatasets(values.tfrecords, scratch.of_flags(values))
    manifest = _with_images(datasets.manifest(_one(chosen_organs([values.organ], datasets))), values)
    datasets.reserve([manifest], SPLIT)
    staged = datasets.stage(manifest, SPLIT)
    with fetched_again(staged, values.tfrecords):
        yield staged / manifest.organ, manifest


def _one(organs: Sequence[str]) -> str:
    if len(organs) > 1:
        fix = "measure one of them after another"
        raise cli.invalid_flag("organ", expected="one organ", received=",".join(organs), fix=fix)
    return organs[0]


def _with_images(manifest: Manifest, values: Any) -> Manifest:
    if manifest.splits[SPLIT].records == 0:
        raise cli.RequestError(
            f"The dataset at {values.tfrecords}/{manifest.organ} has no {SPLIT} records. "
            "To fix it: convert more groups of images."
        )
    return manifest


def _free_disk(values: Any) -> int:
    """What images kept decoded may take of the disk of --scratch."""
    where = scratch.of_flags(values)
    there = next(path for path in (where.root, *where.root.absolute().parents) if path.exists())
    return min(shutil.disk_usage(there).free, where.budget_bytes)
