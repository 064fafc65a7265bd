"""One organ from its sealed dataset to its report: train, test, report, export.

    report = train_organ(config, strategy, StopSignal())

What can't work was refused before, by `preflight`: TensorFlow is imported here, not there.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf

from data_pipeline import cli
from data_pipeline.manifest import Manifest
from data_pipeline.storage import exclusive
from trainer import cluster
from trainer.agreement import make_sum
from trainer.augment_config import augmentation_of, mixing_of
from trainer.batch_statistics import statistics_of
from trainer.checkpoints import Checkpoints, Identity, Progress
from trainer.config import ON, TrainConfig
from trainer.decoded_cache import DecodedCache, choose_cache
from trainer.devices import augments_in_step
from trainer.evaluate import make_evaluation_step, predict_split
from trainer.input_pipeline import TrainInput
from trainer.intervals import parse_interval, parse_seconds, parse_steps
from trainer.learning_config import LAST
from trainer.loop import TrainJob, train
from trainer.losses import Loss, class_weights
from trainer.metrics import compute_metrics
from trainer.order import TrainOrder
from trainer.outcome import test_and_report
from trainer.preemption import StopSignal
from trainer.preview import choose, preview
from trainer.records import RecordReader
from trainer.run_folder import CHECKPOINTS, LOCK, REPORT, TENSORBOARD, EpochLog, busy, open_run, say_nothing
from trainer.scratch import Scratch
from trainer.sizes import parse_bytes
from trainer.step import Update
from trainer.step_profile import StepProfile
from trainer.tensorboard import IMAGES_SHOWN, write_augmented
from trainer.trainable import Learner, trainable
from trainer.uploads import NoUploads, Uploads
from trainer.watchdog import Watchdog


def train_organ(config: TrainConfig, strategy: tf.distribute.Strategy, stop: StopSignal) -> str:
    """Train, test, report and export one organ; where the report is. Resumes what is there already."""
    # ── The dataset and the run ──────────────────────────────────────────────────────────────────────────────────
    manifest = Manifest.load(config.dataset_folder)
    folder = config.run_folder(manifest.fingerprint)
    chief = cluster.is_chief(strategy)
    open_run(folder, config, dataset=manifest.fingerprint, chief=chief)
    place = config.run_place(manifest.fingerprint)
    with (
        exclusive(folder / LOCK, otherwise=busy(place)) if chief else nullcontext(),
        _reading(config),
        _uploads(config, manifest, folder, stop, chief=chief) as uploads,
    ):
        _train_and_test(config, manifest, folder, strategy, stop, uploads, chief=chief)
    return f"{place}/{REPORT}"


def _uploads(
    config: TrainConfig, manifest: Manifest, folder: Path, stop: StopSignal, *, chief: bool
) -> AbstractContextManager[Uploads]:
    """What brings the run to its bucket, if it has one."""
    if not config.runs_address:
        return nullcontext(NoUploads())
    from trainer.uploader import uploading  # only now: the client of Cloud Storage takes half a second

    return uploading(config, manifest.fingerprint, folder, stop, chief=chief)


def _reading(config: TrainConfig) -> AbstractContextManager[None]:
    """What is to be done about a record that is damaged."""
    if not config.tfrecords_address:
        return nullcontext()
    from trainer.staging import fetched_again

    return fetched_again(config.tfrecords, config.tfrecords_address)


def _train_and_test(
    config: TrainConfig,
    manifest: Manifest,
    folder: Path,
    strategy: tf.distribute.Strategy,
    stop: StopSignal,
    uploads: Uploads,
    *,
    chief: bool,
) -> None:
    cli.say(f"{config.organ}: {_sizes(manifest)}; {cluster.describe(strategy)}, {config.precision}")

    asked, config = config, _within_budget(config, manifest)

    # ── Model, optimizer, and where the run stood ────────────────────────────────────────────────────────────────
    with stop.at_once() if cluster.layout_of(strategy).alone else nullcontext():  # nothing is new yet
        with strategy.scope():
            steps = TrainOrder(manifest.splits["train"].records, config.batch_size, config.seed).steps_per_epoch
            learner = trainable(config, classes=len(manifest.classes), steps_per_epoch=steps)
        _check_statistics(config, learner, replicas=strategy.num_replicas_in_sync)
        identity = Identity(manifest.fingerprint, asked.settings())
        checkpoints = Checkpoints(
            folder / CHECKPOINTS, learner.model, learner.optimizer, identity, uploads, average=learner.average
        )
        if chief:
            checkpoints.clean()
        progress = checkpoints.restore_last() or Progress()
        _agree(strategy, progress)
    if progress.step:
        cli.say(f"{config.organ}: goes on after step {progress.step}")

    # ── Train ────────────────────────────────────────────────────────────────────────────────────────────────────
    job = _job(config, manifest, strategy, learner, checkpoints, folder, stop)
    if not progress.finished:
        with stop.at_once() if job.layout.alone else nullcontext(), job.reader.naming_failures():
            job = replace(job, decoded=_cache(config, job.reader))
            if chief and not progress.step:
                _show_augmented(config, job.reader, folder)
    progress = train(job, progress)
    if not chief:
        return

    # ── Export the best epoch, then test what was exported: the numbers are those of the file that is served ─────
    with stop.at_once():
        checkpoints.restore_best(progress)
        test_and_report(asked, manifest, folder, strategy, learner.served, progress)


def _within_budget(config: TrainConfig, manifest: Manifest) -> TrainConfig:
    """With the epochs that the training split gets. Raises `RequestError` if none is left after the frozen ones."""
    records = manifest.splits["train"].records
    epochs = config.epochs_on(records)
    if epochs < config.epochs:
        cli.say(f"{config.organ}: {epochs} of {config.epochs} epochs, for --image_budget={config.image_budget}")
    if config.freeze_epochs and config.freeze_epochs >= epochs:
        expected, fix = f"less than the {epochs} epochs that {records} images get", "give a larger --image_budget"
        raise cli.invalid_flag("freeze_epochs", expected=expected, received=config.freeze_epochs, fix=fix)
    return replace(config, epochs=epochs)


def _check_statistics(config: TrainConfig, learner: Learner, *, replicas: int) -> None:
    """Batch normalisation by the whole batch is not everywhere to be had. Raises `RequestError` if by devices."""
    if not statistics_of(learner.model):
        return
    if config.xla == ON and replicas > 1:
        expected = (
            f"auto with {replicas} devices and the batch normalisation of {config.model}, which XLA can't compute"
        )
        raise cli.invalid_flag("xla", expected=expected, received=ON, fix="leave it out, or give --model=residual")
    if config.accumulate > 1:
        size = -(-config.batch_size // (replicas * config.accumulate))
        cli.say(f"{config.organ}: {config.model} normalises by {size} images, not by the batch, for --accumulate")


def _job(
    config: TrainConfig,
    manifest: Manifest,
    strategy: tf.distribute.Strategy,
    learner: Learner,
    checkpoints: Checkpoints,
    folder: Path,
    stop: StopSignal,
) -> TrainJob:
    """Bind the pieces of training together."""
    reader = RecordReader(config.dataset_folder, manifest, "train")
    held_out = RecordReader(config.dataset_folder, manifest, "validation")
    layout = cluster.layout_of(strategy)
    evaluation_step = make_evaluation_step(strategy, learner.served)
    chief = cluster.is_chief(strategy)

    watchdog = Watchdog(parse_seconds("step_timeout", config.step_timeout))
    told_to_stop = make_sum(strategy, layout)

    def before_batch() -> None:
        watchdog.beat("validation batch", compiles=True)
        if told_to_stop(stop.is_set()):
            raise cli.Preempted(cli.STOPPED)

    def validate() -> dict[str, Any]:
        predictions = predict_split(
            strategy,
            evaluation_step,
            held_out,
            batch_size=config.batch_size,
            image_size=config.image_size,
            layout=layout,
            before_batch=before_batch,
        )
        return compute_metrics(predictions, manifest.classes)

    how = TrainInput(
        config.image_size,
        augmentation_of(config),
        config.seed,
        mixing_of(config),
        on_device=augments_in_step(config.augment_on),
    )
    return TrainJob(
        strategy=strategy,
        layout=layout,
        model=learner.model,
        optimizer=learner.optimizer,
        reader=reader,
        order=TrainOrder(len(reader), config.batch_size, config.seed),
        how=how,
        epochs=config.epochs,
        patience=config.patience,
        monitor=config.monitor,
        checkpoint_every=parse_interval("checkpoint_every", config.checkpoint_every),
        checkpoints=checkpoints,
        validate=validate,
        on_epoch=EpochLog(folder, epochs=config.epochs) if chief else say_nothing,
        stop=stop,
        chief=chief,
        checkpoint_deadline_s=parse_seconds("checkpoint_deadline", config.checkpoint_deadline),
        on_nan=config.on_nan,
        update=_update(config, manifest),
        scale=learner.scale,
        average=learner.average,
        freeze_epochs=config.freeze_epochs,
        keeps_last=config.keep == LAST,
        steps_per_call=config.steps_per_call,
        profile=_profile(config, folder) if chief else StepProfile(),
        watchdog=watchdog,
    )


def _update(config: TrainConfig, manifest: Manifest) -> Update:
    counts = manifest.splits["train"].per_class
    weights = class_weights(config.class_weights, [counts.get(name, 0) for name in manifest.classes])
    return Update(
        clip_norm=config.clip_norm,
        accumulate=config.accumulate,
        xla=config.xla == ON,
        loss=Loss(config.label_smoothing, weights),
        dropout=config.dropout,
        seed=config.seed,
        ema=config.ema,
    )


def _profile(config: TrainConfig, folder: Path) -> StepProfile:
    first, last = parse_steps("profile_steps", config.profile_steps)
    return StepProfile(folder / TENSORBOARD, first, last)


def _show_augmented(config: TrainConfig, reader: RecordReader, folder: Path) -> None:
    """Some images for TensorBoard as the first epoch sees them."""
    records = choose(reader, IMAGES_SHOWN, seed=config.seed)
    _, images = preview(
        reader,
        records,
        how=augmentation_of(config),
        mixing=mixing_of(config),
        seed=config.seed,
        image_size=config.image_size,
        epochs=1,
    )
    write_augmented(folder / TENSORBOARD, images)


def _cache(config: TrainConfig, reader: RecordReader) -> DecodedCache | None:
    """The training images, decoded, if there is to be a cache."""
    scratch = Scratch.of(config.scratch, config.scratch_budget)
    budget = parse_bytes("cache_budget", config.cache_budget)
    return choose_cache(reader, mode=config.cache, budget_bytes=budget, scratch=scratch, name=config.organ)


def _agree(strategy: tf.distribute.Strategy, progress: Progress) -> None:
    """All workers go on from the same step, or none does: a network disk may show one of them what is gone."""
    layout = cluster.layout_of(strategy)
    if make_sum(strategy, layout)(progress.step) != progress.step * layout.replicas:
        raise cli.WorkerLost(
            f"Workers see different checkpoints, this one that of step {progress.step}. This process ends with exit "
            "code 75. To fix it: start all of them again; if it lasts, look at the disk they share."
        )


def _sizes(manifest: Manifest) -> str:
    counts = ", ".join(f"{split.records} {name}" for name, split in manifest.splits.items())
    return f"{counts} images of {len(manifest.classes)} classes"
