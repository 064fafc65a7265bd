"""Train an image classifier on a sealed dataset, test it once on held-out images, and write report and model.

Usage: python -m trainer --organ=ORGAN --tfrecords=DIR --runs=DIR

  DIR of --tfrecords   holds  ORGAN/manifest.json and shards, as written by python -m data_pipeline
  DIR of --runs        gets   ORGAN/RUN/ with report.html, metrics.json, model/ (SavedModel), model.keras, checkpoints/
                              and TensorBoard events

Examples:
  python -m trainer --organ=cervix --tfrecords=tfrecords --runs=runs
  python -m trainer --organ=cervix --tfrecords=tfrecords --runs=runs --epochs=60 --patience=10 --precision=auto
  python -m trainer --organ=all --tfrecords=tfrecords --runs=runs --distribution=mirrored

All GPUs of the machine are used by default. Give the same command again to go on with a run that was interrupted, or to
be shown the report of one that is done. SIGTERM saves and ends the run with exit code 75.

Exit codes: 0 done, 2 the request is wrong, 75 stopped by SIGTERM (run it again), anything else a fault.
"""

from trainer.preemption import StopSignal, exit_when_stopped

exit_when_stopped()  # before the imports below, which take seconds

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from absl import flags

from data_pipeline import cli
from data_pipeline.manifest import FILE_NAME, Manifest
from data_pipeline.storage import exclusive
from trainer import cluster, report
from trainer import config as config_module
from trainer.augment import Augmentation
from trainer.checkpoints import Checkpoints, Progress
from trainer.config import TrainConfig, config_from_flags, define_flags
from trainer.evaluate import make_evaluation_step, predict_split
from trainer.input_pipeline import TrainInput
from trainer.intervals import parse_interval
from trainer.loop import TrainJob, train
from trainer.metrics import compute_metrics
from trainer.models import MIN_IMAGE_SIZE, MODELS, build_model
from trainer.order import TrainOrder
from trainer.outcome import test_and_report
from trainer.precision import resolve_precision
from trainer.records import RecordReader
from trainer.run_folder import CHECKPOINTS, EpochLog, is_finished, open_run, say_nothing


def train_organ(config: TrainConfig, strategy: tf.distribute.Strategy, stop: StopSignal) -> Path:
    """Train, test, report and export one organ; the path of the report. Resumes what is there already."""
    # ── The dataset and the run ──────────────────────────────────────────────────────────────────────────────────
    manifest = Manifest.load(config.dataset_folder)
    folder = _run_folder(config, manifest)
    chief = cluster.is_chief(strategy)
    open_run(folder, config, dataset=manifest.fingerprint, chief=chief)
    busy = f"The run in {folder} is under way. To fix it: wait for its end, or give another --run."
    with exclusive(folder / ".lock", otherwise=busy) if chief else nullcontext():
        return _train_and_test(config, manifest, folder, strategy, stop, chief=chief)


def _train_and_test(
    config: TrainConfig,
    manifest: Manifest,
    folder: Path,
    strategy: tf.distribute.Strategy,
    stop: StopSignal,
    *,
    chief: bool,
) -> Path:
    cli.say(f"{config.organ}: {_sizes(manifest)}; {cluster.describe(strategy)}, {config.precision}")

    # ── Model, optimizer, and where the run stood ────────────────────────────────────────────────────────────────
    keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = build_model(
            config.model, image_size=config.image_size, classes=len(manifest.classes), precision=config.precision
        )
        optimizer = keras.optimizers.Adamax(config.learning_rate)
        optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(folder / CHECKPOINTS, model, optimizer)
    if chief:
        checkpoints.clean()
    progress = checkpoints.restore_last() or Progress()
    if progress.step:
        cli.say(f"{config.organ}: goes on after step {progress.step}")

    # ── Train ────────────────────────────────────────────────────────────────────────────────────────────────────
    job = _job(config, manifest, strategy, model, optimizer, checkpoints, folder, stop)
    progress = train(job, progress)
    if not chief:
        return folder / report.FILE_NAME

    # ── Export the best epoch, then test what was exported: the numbers are those of the file that is served ─────
    with stop.at_once():
        checkpoints.restore_best(progress)
        return test_and_report(config, manifest, folder, strategy, model, progress)


def _job(
    config: TrainConfig,
    manifest: Manifest,
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    checkpoints: Checkpoints,
    folder: Path,
    stop: StopSignal,
) -> TrainJob:
    """Bind the pieces of training together."""
    reader = RecordReader(config.dataset_folder, manifest, "train")
    held_out = RecordReader(config.dataset_folder, manifest, "validation")
    layout = cluster.layout_of(strategy)
    evaluation_step = make_evaluation_step(strategy, model)
    chief = cluster.is_chief(strategy)

    def validate() -> dict[str, Any]:
        predictions = predict_split(
            strategy,
            evaluation_step,
            held_out,
            batch_size=config.batch_size,
            image_size=config.image_size,
            layout=layout,
        )
        return compute_metrics(predictions, manifest.classes)

    return TrainJob(
        strategy=strategy,
        layout=layout,
        model=model,
        optimizer=optimizer,
        reader=reader,
        order=TrainOrder(len(reader), config.batch_size, config.seed),
        how=TrainInput(config.image_size, Augmentation() if config.augment else Augmentation.none(), config.seed),
        epochs=config.epochs,
        patience=config.patience,
        monitor=config.monitor,
        checkpoint_every=parse_interval("checkpoint_every", config.checkpoint_every),
        checkpoints=checkpoints,
        validate=validate,
        on_epoch=EpochLog(folder, epochs=config.epochs) if chief else say_nothing,
        stop=stop,
        chief=chief,
    )


def _resolve(config: TrainConfig, manifest: Manifest) -> TrainConfig:
    """`config` with what depends on dataset and device filled in. Raises `RequestError` for what can't work."""
    size = config.image_size or manifest.image_size
    if size < MIN_IMAGE_SIZE:
        fix = f"use at least {MIN_IMAGE_SIZE} pixels"
        raise cli.invalid_flag("image_size", expected=f"{MIN_IMAGE_SIZE} or more", received=size, fix=fix)
    for split in ("train", "validation", "test"):
        if manifest.splits[split].records == 0:
            raise cli.RequestError(
                f"The dataset at {config.dataset_folder} has no {split} records. To fix it: convert more groups of "
                "images, or with larger --test_fraction and --validation_fraction."
            )
    return replace(config, image_size=size, precision=resolve_precision(config.precision))


def _is_finished(config: TrainConfig) -> bool:
    """Whether there is nothing left to do for this run; if so, say where its report is. Raises `RequestError`."""
    manifest = Manifest.load(config.dataset_folder)
    folder = _run_folder(config, manifest)
    open_run(folder, config, dataset=manifest.fingerprint, chief=False)
    finished = is_finished(folder)
    if finished:
        cli.say(f"{config.organ}: this run is finished already")
        print(f"Report: {folder / report.FILE_NAME}", flush=True)
    return finished


def _run_folder(config: TrainConfig, manifest: Manifest) -> Path:
    return config.runs / config.organ / config.run_name(manifest.fingerprint)


def _sizes(manifest: Manifest) -> str:
    counts = ", ".join(f"{split.records} {name}" for name, split in manifest.splits.items())
    return f"{counts} images of {len(manifest.classes)} classes"


def _organs(names: list[str], tfrecords: Path) -> list[str]:
    """The datasets to train on. Raises `RequestError` if there is none."""
    there = sorted(path.parent.name for path in tfrecords.glob(f"*/{FILE_NAME}"))
    if not any(names):
        raise cli.invalid_flag("organ", expected="the name of an organ", received="", fix="name one, or `all`")
    if names != ["all"]:
        return names
    if not there:
        raise cli.RequestError(f"{tfrecords} holds no dataset. To fix it: run python -m data_pipeline first.")
    return there


def main(argv: Sequence[str]) -> None:
    """Train on the organs of the command line, one after another."""
    if len(argv) > 1:
        raise cli.RequestError(f"Unexpected argument {argv[1]!r}. To fix it: flags begin with --, see --help.")
    values = flags.FLAGS
    configs = [config_from_flags(values, organ) for organ in _organs(values.organ, Path(values.tfrecords))]
    # Wrong requests end before TensorFlow computes anything, whichever organ they are about.
    configs = [_resolve(config, Manifest.load(config.dataset_folder)) for config in configs]
    # Before there is a strategy, which would wait for workers that have ended long ago.
    configs = [config for config in configs if not _is_finished(config)]
    if not configs:
        return
    stop = StopSignal()
    tf.config.experimental.enable_op_determinism()
    strategy = cluster.make_strategy(values.distribution, logical_cpus=values.logical_cpus)
    stop.listen()  # only now: the servers of several workers take the signal for themselves
    for config in configs:
        path = train_organ(config, strategy, stop)
        print(f"Report: {path}", flush=True)


if __name__ == "__main__":
    define_flags(sorted(MODELS))
    flags.adopt_module_key_flags(config_module)  # for --help
    cli.run(main)
