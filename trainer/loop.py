"""The training loop and the two steps it is made of, under any `tf.distribute` strategy.

    progress = train(job, progress)

Keras's `fit` can't do what is needed here (resume within an epoch, exact tail batches, several workers), so the loop is
our own. Everything it does is a function of (settings, data, step): what was saved plus the step number is all that is
needed to go on.
"""

import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from data_pipeline.cli import Preempted, RequestError
from trainer.checkpoints import Checkpoints, Progress
from trainer.input_pipeline import Layout, TrainInput, train_batches
from trainer.intervals import Interval
from trainer.models import logits_of
from trainer.order import TrainOrder
from trainer.preemption import StopSignal
from trainer.records import RecordReader

Metrics = dict[str, Any]


@dataclass(frozen=True)
class TrainJob:
    """All that training needs, put together by `__main__`."""

    strategy: tf.distribute.Strategy
    layout: Layout
    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    reader: RecordReader
    order: TrainOrder
    how: TrainInput
    epochs: int
    patience: int
    monitor: str
    checkpoint_every: Interval
    checkpoints: Checkpoints
    validate: Callable[[], Metrics]
    on_epoch: Callable[[dict[str, float]], None]
    stop: StopSignal
    chief: bool

    @property
    def alone(self) -> bool:
        """Whether this process holds all replicas, and so may stop without asking others."""
        return self.layout.local == self.layout.replicas


def train(job: TrainJob, progress: Progress) -> Progress:
    """Train from `progress` to the end, saving on the way. Raises `Preempted` after saving when asked to stop."""
    if progress.finished:
        return progress
    steps = job.order.steps_per_epoch
    batches = iter(_distributed(job, start_step=progress.step))
    step = make_train_step(job.strategy, job.model, job.optimizer)
    while not progress.finished:
        progress = _train_epoch(job, batches, step, progress)
        history = (*progress.history, _validated_row(job, progress))
        progress = replace(progress, history=history, sums=(0.0, 0.0, 0.0), epoch_seconds=0.0)
        merit = _merit(history[-1], job.monitor)
        is_best = not progress.best or merit > progress.best
        if is_best:
            progress = replace(progress, best=merit, best_epoch=len(history), best_step=progress.step)
        waited = len(history) - progress.best_epoch
        over = progress.step >= job.epochs * steps or (0 < job.patience <= waited)
        progress = replace(progress, finished=over)
        job.on_epoch(history[-1])
        if job.chief:
            job.checkpoints.save(progress)
        if job.alone and job.stop.is_set() and not over:
            raise _preempted(progress)
    return progress


def make_train_step(
    strategy: tf.distribute.Strategy, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> Callable[[Any, Any], Any]:
    """A compiled step: (batch, stop) → `[4]`: summed loss, hits and records of the global batch, and the sum of stops.

    `stop` is 1.0 on a worker that was told to stop: its sum lets all workers stop after the same step.
    """
    network = logits_of(model)

    def on_replica(batch: dict[str, Any], stop: Any) -> Any:
        with tf.GradientTape() as tape:
            logits = network(batch["image"], training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)
            # Weights sum to one over all replicas, so the summed gradients are those of the global batch's mean.
            loss = tf.reduce_sum(losses * batch["weight"])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        present = tf.cast(batch["weight"] > 0, tf.float32)
        hits = tf.cast(tf.argmax(logits, axis=1) == batch["label"], tf.float32)
        return tf.stack([tf.reduce_sum(losses * present), tf.reduce_sum(hits * present), tf.reduce_sum(present), stop])

    @tf.function  # type: ignore[untyped-decorator]
    def step(batch: Any, stop: Any) -> Any:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(on_replica, args=(batch, stop)), axis=None)

    return step  # type: ignore[no-any-return]


def _train_epoch(job: TrainJob, batches: Any, step: Callable[[Any, Any], Any], progress: Progress) -> Progress:
    """Run the steps that are left of the epoch under way."""
    steps = job.order.steps_per_epoch
    epoch = len(progress.history)
    done = progress.step - epoch * steps  # all of them, if the run was stopped during validation
    title = f"epoch {epoch + 1}/{job.epochs}"
    quiet = 0.1 if sys.stderr.isatty() else 10.0
    started, seconds_before, seen_before = time.monotonic(), progress.epoch_seconds, progress.sums[2]
    with tqdm(
        total=steps, initial=done, desc=title, unit="step", leave=False, disable=not job.chief, mininterval=quiet
    ) as bar:
        for _ in range(done, steps):
            with job.reader.naming_failures():
                result = step(next(batches), tf.constant(float(job.stop.is_set())))
            loss, hits, records, stops = np.asarray(result, dtype=np.float64).tolist()
            if not math.isfinite(loss):
                raise RequestError(
                    f"The loss of step {progress.step + 1} is {loss}: training has diverged, and what it would save is "
                    "worthless. To fix it: a smaller --learning_rate. The last good checkpoint is kept."
                )
            sums = (progress.sums[0] + loss, progress.sums[1] + hits, progress.sums[2] + records)
            seconds = time.monotonic() - started
            progress = replace(progress, step=progress.step + 1, sums=sums, epoch_seconds=seconds_before + seconds)
            speed = (sums[2] - seen_before) / seconds
            bar.set_postfix_str(
                f"loss {sums[0] / sums[2]:.3f}, accuracy {sums[1] / sums[2]:.3f}, {speed:.0f} images/s", False
            )
            bar.update()
            due = job.checkpoint_every.steps and progress.step % job.checkpoint_every.steps == 0
            if progress.step % steps == 0:
                break  # the end of the epoch saves by itself, after validation
            if job.chief and (stops or due):
                job.checkpoints.save(progress)
            if stops:
                raise _preempted(progress)
    return progress


def _preempted(progress: Progress) -> Preempted:
    return Preempted(f"Stopped after step {progress.step}; it is saved. Run the same command again to go on from here.")


def _validated_row(job: TrainJob, progress: Progress) -> dict[str, float]:
    """The epoch's row of the history. Validation may be long: a signal ends it, and it begins anew after resuming."""
    try:
        with job.stop.at_once() if job.alone else nullcontext():
            validation = job.validate()
    except Preempted:
        job.checkpoints.save(progress)
        raise _preempted(progress) from None
    return _epoch_row(job, progress, validation)


def _epoch_row(job: TrainJob, progress: Progress, validation: Metrics) -> dict[str, float]:
    loss, hits, records = progress.sums
    return {
        "epoch": len(progress.history) + 1,
        "train_loss": loss / records,
        "train_accuracy": hits / records,
        "validation_loss": validation["log_loss"],
        "validation_accuracy": validation["accuracy"],
        "validation_balanced_accuracy": validation["balanced_accuracy"],
        "validation_macro_f1": validation["macro_f1"],
        "images_per_s": records / progress.epoch_seconds,
        "seconds": progress.epoch_seconds,
        "learning_rate": float(keras.ops.convert_to_numpy(job.optimizer.learning_rate)),
    }


def _merit(row: dict[str, float], monitor: str) -> tuple[float, ...]:
    """What makes an epoch better: the monitored metric, and the lower loss between equals."""
    value = row[f"validation_{monitor}"]
    return (-value if monitor == "loss" else value, -row["validation_loss"])


def _distributed(job: TrainJob, *, start_step: int) -> Any:
    stop_step = job.epochs * job.order.steps_per_epoch

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        return train_batches(job.reader, job.order, job.how, job.layout, start_step=start_step, stop_step=stop_step)

    return job.strategy.distribute_datasets_from_function(batches)
