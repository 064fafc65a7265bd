"""The flags of training, and what their types don't say of them.

    define_flags()                       # in __main__
    config = config_from_flags(flags.FLAGS, organ="cervix")

Only `__main__` reads flags; everything else takes a `TrainConfig` or a part of it.
"""

import math
import re
from dataclasses import fields
from typing import Any

from absl import flags

from data_pipeline.cli import invalid_flag
from data_pipeline.storage import in_bucket, local_path
from trainer.augment_config import check_augment_flags, define_augment_flags
from trainer.config import (
    AUGMENT_ON,
    AUTO,
    CACHES,
    DISTRIBUTIONS,
    FOUND,
    MAX_SEED,
    MIRRORED,
    MODEL_NAMES,
    MONITORS,
    ON_NAN,
    PRECISIONS,
    XLA,
    TrainConfig,
    check_image_size,
)
from trainer.intervals import parse_interval, parse_seconds, parse_steps
from trainer.learning_config import check_learning_flags, define_learning_flags
from trainer.recipe_files import define_recipe_flag
from trainer.scratch import define_scratch_flags, of_flags
from trainer.sizes import parse_bytes

# Far beyond any use, and far below where numbers of steps or sizes of arrays overflow.
MAX_COUNT, MAX_BATCH, MAX_IMAGE_SIZE, MAX_LOGICAL_CPUS, MAX_WORKERS = 10**6, 2**20, 2**13, 256, 10**4
MAX_STEPS_PER_CALL, MAX_IMAGES = 10**4, 10**12
HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,200}[A-Za-z0-9])?")
RUN_NAME = re.compile(r"\w[\w .=+@,-]{0,79}")  # four bytes a letter still make a file name


def define_flags() -> None:
    """Declare the flags of training. Their defaults are those of `TrainConfig`."""
    default = {field.name: field.default for field in fields(TrainConfig)}
    string, integer, number, choice = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float, flags.DEFINE_enum
    boolean = flags.DEFINE_boolean
    flags.DEFINE_list("organ", None, "Organ to train for: a dataset of --tfrecords, a comma-separated list, or `all`.")
    string("tfrecords", None, "Folder of datasets, or its gs:// address, as written by python -m data_pipeline.")
    string(
        "runs",
        None,
        "Folder, or its gs:// address, that gets ORGAN/RUN with checkpoints, metrics.json, report.html and the model.",
    )
    define_recipe_flag()
    string("run", default["run"], "Name of the run. By default made from settings and data: the same command resumes.")
    choice("model", default["model"], list(MODEL_NAMES), "The network, see trainer/models.py.")
    integer("epochs", default["epochs"], "How often each training image is seen.", lower_bound=1, upper_bound=MAX_COUNT)
    budget = "Fewer epochs than --epochs on a large data set, so that no more images than this are seen; 0: no limit."
    integer("image_budget", default["image_budget"], budget, lower_bound=0, upper_bound=MAX_IMAGES)
    integer(
        "batch_size",
        default["batch_size"],
        "Images a step, over all replicas together.",
        lower_bound=1,
        upper_bound=MAX_BATCH,
    )
    define_learning_flags()
    number("clip_norm", default["clip_norm"], "Shorten gradients that are longer than this; 0: never.", lower_bound=0)
    parts = (
        "Take each batch in so many parts, one by one: less memory. Batch normalisation is by the part, the rest same."
    )
    integer("accumulate", default["accumulate"], parts, lower_bound=1, upper_bound=MAX_BATCH)
    integer(
        "image_size",
        default["image_size"],
        "Width and height in pixels, as many as the network needs; 0: as stored.",
        lower_bound=0,
        upper_bound=MAX_IMAGE_SIZE,
    )
    define_augment_flags()
    integer(
        "patience",
        default["patience"],
        "Stop after this many epochs without progress; 0: never.",
        lower_bound=0,
        upper_bound=MAX_COUNT,
    )
    choice("monitor", default["monitor"], list(MONITORS), "Validation metric that says which epoch is best.")
    integer("seed", default["seed"], "Of weights, order and augmentation.", lower_bound=0, upper_bound=MAX_SEED)
    boolean(
        "tta",
        default["tta"],
        "Test-time augmentation: the model answers with the mean over the 8 flips and quarter turns of an image, in "
        "report, export and prediction alike, at 8 times the work.",
    )
    number(
        "target_error",
        default["target_error"],
        "Share of wrong answers to be kept below by leaving the least sure ones to people: the report recommends from "
        "which confidence on.",
    )
    choice(
        "precision",
        default["precision"],
        list(PRECISIONS),
        "Of the layers; auto: bfloat16 where the device has it. With float16 the loss is scaled, as far as it goes.",
    )
    choice("xla", default["xla"], list(XLA), "Compile the passes of a step as a whole; auto: no, as CPUs gain little.")
    choice(
        "augment_on",
        default["augment_on"],
        list(AUGMENT_ON),
        "Where training images are augmented: by the CPU, ahead, or in the step; auto: in the step on GPUs.",
    )
    string(
        "profile_steps",
        default["profile_steps"],
        "First and last step to record for TensorBoard's Profile page, such as 100,110.",
    )
    integer(
        "steps_per_call",
        default["steps_per_call"],
        "Steps in one call from Python, of one machine: the same results, and a signal is heard after each call; "
        "0: several where steps are shorter than 20 ms.",
        lower_bound=0,
        upper_bound=MAX_STEPS_PER_CALL,
    )
    boolean("tflite", default["tflite"], "Write model.tflite too, for small devices; also for a run that is done.")
    choice(
        "distribution",
        default["distribution"],
        list(DISTRIBUTIONS),
        "One device, all devices of this machine, or the workers of TF_CONFIG; auto takes what is there.",
    )
    integer(
        "logical_cpus",
        default["logical_cpus"],
        "Cut the CPU into this many devices, to try mirroring.",
        lower_bound=0,
        upper_bound=MAX_LOGICAL_CPUS,
    )
    string(
        "checkpoint_every",
        default["checkpoint_every"],
        "Steps (200) or time (10m) between checkpoints within an epoch; 0: at its end alone.",
    )
    string(
        "checkpoint_deadline",
        default["checkpoint_deadline"],
        "While no checkpoint can be saved, for lack of space or whatever, go on for so long before giving up.",
    )
    choice(
        "on_nan",
        default["on_nan"],
        list(ON_NAN),
        "When the loss is no number any more: end, or go back to the last checkpoint at half the learning rate.",
    )
    string(
        "step_timeout",
        default["step_timeout"],
        "A step that takes longer is stuck: say where, and end to be started again; 0: never.",
    )
    integer(
        "num_workers",
        default["num_workers"],
        "Machines that train one model, without TF_CONFIG.",
        lower_bound=0,
        upper_bound=MAX_WORKERS,
    )
    integer(
        "worker",
        default["worker"],
        "Which of them this is, from 0; by default $JOB_COMPLETION_INDEX, which a Kubernetes Indexed Job sets.",
        lower_bound=-1,
        upper_bound=MAX_WORKERS,
    )
    string(
        "worker_service",
        default["worker_service"],
        "Headless Service of the workers' Job; JobSet's is known by itself.",
    )
    integer("worker_port", default["worker_port"], "Port on which workers talk.", lower_bound=1, upper_bound=65535)
    string("start_timeout", default["start_timeout"], "How long to wait for all workers to come.")
    string(
        "stop_timeout",
        default["stop_timeout"],
        "After SIGTERM, how long the upload of the last checkpoint to a bucket may take; less than what is granted.",
    )
    choice("cache", default["cache"], list(CACHES), "Keep training images decoded; auto: in memory, if they fit.")
    string("cache_budget", default["cache_budget"], "How much memory that may take, at most a quarter of what is free.")
    define_scratch_flags()
    flags.mark_flags_as_required(["organ", "tfrecords", "runs"])


def config_from_flags(values: flags.FlagValues, organ: str) -> TrainConfig:
    """The flags as a config for one organ. Raises `RequestError` for values that can't work."""
    _check(values)
    folders = ("organ", "tfrecords", "runs", *FOUND)
    names = [field.name for field in fields(TrainConfig) if field.name not in folders]
    places = {name: values[name].value for name in ("tfrecords", "runs")}
    addresses = {f"{name}_address": value for name, value in places.items() if in_bucket(value)}
    scratch = of_flags(values)  # what stands for them there depends on dataset and worker: `preflight.py` knows
    paths = {name: scratch.root if in_bucket(value) else local_path(name, value) for name, value in places.items()}
    given: dict[str, Any] = paths | addresses | {name: values[name].value for name in names}
    return TrainConfig(organ=organ, **given)


def _check(values: flags.FlagValues) -> None:
    """What the types of the flags don't say. Raises `RequestError`."""
    if not values.clip_norm < math.inf:
        fix = "leave it out, or try --clip_norm=1"
        raise invalid_flag("clip_norm", expected="a finite number", received=values.clip_norm, fix=fix)
    if not 0 < values.target_error < 1:  # NaN isn't either
        fix = "try --target_error=0.05"
        expected = "a share above 0 and below 1"
        raise invalid_flag("target_error", expected=expected, received=values.target_error, fix=fix)
    if values.run and not RUN_NAME.fullmatch(values.run):
        fix = "begin with a letter or digit, leave out slashes, and keep below 80 letters"
        raise invalid_flag("run", expected="a plain name", received=values.run, fix=fix)
    if values.image_size:
        check_image_size(values.image_size, values.model)
    if values.logical_cpus > 1 and values.distribution not in (AUTO, MIRRORED):
        expected = f"0 with --distribution={values.distribution}"
        fix = "leave it out, or give --distribution=mirrored"
        raise invalid_flag("logical_cpus", expected=expected, received=values.logical_cpus, fix=fix)
    if values.worker_service and not HOST_NAME.fullmatch(values.worker_service):
        fix = "use the name of the Service, letters, digits, - and . alone"
        raise invalid_flag("worker_service", expected="a host name", received=values.worker_service, fix=fix)
    check_augment_flags(values)
    check_learning_flags(values)
    parse_interval("checkpoint_every", values.checkpoint_every)
    parse_bytes("cache_budget", values.cache_budget)
    parse_steps("profile_steps", values.profile_steps)
    for name in ("checkpoint_deadline", "step_timeout", "start_timeout", "stop_timeout"):
        parse_seconds(name, values[name].value)
