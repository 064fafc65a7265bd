"""The training loop, under any `tf.distribute` strategy.

    progress = train(job, progress)

Keras's `fit` can't do what is needed here (resume within an epoch, exact tail batches, several workers), so the loop is
our own. Everything it does is a function of (settings, data, step): what was saved plus the step number is all that is
needed to go on.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm

from data_pipeline.cli import Preempted, say
from trainer.checkpoints import Checkpoints, Progress
from trainer.divergence import FAIL, Diverged, WayBack, diverged
from trainer.input_pipeline import Decoded, Layout, TrainInput, finish_on_device, train_batches
from trainer.intervals import Interval
from trainer.loss_scale import LossScale
from trainer.model_ends import parts_of
from trainer.order import TrainOrder
from trainer.pace import Pace
from trainer.preemption import StopSignal
from trainer.records import RecordReader
from trainer.saving import REFUSED, Saver
from trainer.schedule import last_rate
from trainer.step import Update, make_train_step
from trainer.step_calls import StepCalls
from trainer.step_profile import StepProfile
from trainer.watchdog import Watchdog

Metrics = dict[str, Any]
_on_the_way_out: list[Preempted] = []


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
    checkpoint_deadline_s: float = 1800.0
    on_nan: str = FAIL
    update: Update = field(default_factory=Update)
    scale: LossScale | None = None
    average: keras.Model | None = None
    freeze_epochs: int = 0
    keeps_last: bool = False
    profile: StepProfile = field(default_factory=StepProfile)
    decoded: Decoded | None = None
    steps_per_call: int = 0
    watchdog: Watchdog = field(default_factory=lambda: Watchdog(0.0))


def train(job: TrainJob, progress: Progress) -> Progress:
    """Train from `progress` to the end, saving on the way.

    Raises `Preempted` after saving when asked to stop, `RequestError` when training diverges and `FaultError` when no
    checkpoint can be saved for too long.
    """
    if progress.finished:
        return progress
    try:
        return _train(job, progress)
    except Preempted as told:
        # With it would go the batches that are being made, and taking those apart waits for them: many seconds.
        _on_the_way_out.append(told)
        raise


def _train(job: TrainJob, progress: Progress) -> Progress:
    calls = _StepsOfEpochs(job)
    with job.watchdog, job.profile:
        job.watchdog.beat("the way back", "as it is prepared")
        way_back = WayBack(job.checkpoints, job.optimizer, steps_per_epoch=job.order.steps_per_epoch, on_nan=job.on_nan)
        way_back.begin(progress)
        saver = _saver(job, progress, way_back)
        saver.begin(progress)
        batches = iter(_distributed(job, start_step=progress.step))
        while not progress.finished:
            try:
                progress = _train_epoch(job, batches, calls.of(len(progress.history)), saver, progress)
                progress = _judged(job, progress, _validated_row(job, saver, progress))
            except Diverged as found:
                progress = way_back.take(found, progress)
                batches = iter(_distributed(job, start_step=progress.step))
                continue
            _tell(job, progress)
            saver.epoch_end(progress)
            way_back.begin(progress)
            if job.layout.alone and job.stop.is_set() and not progress.finished:
                raise saver.stopped(progress)
        saver.finish(progress, job.stop)
    return progress


class _StepsOfEpochs:
    """The steps of each epoch: at first of the last layer alone, where that is wanted."""

    def __init__(self, job: TrainJob) -> None:
        self._job = job
        self._all = self._steps(None)
        self._last_layer = self._steps(parts_of(job.model)[1].trainable_variables) if job.freeze_epochs else None

    def of(self, epoch: int) -> StepCalls:
        """For the epoch with this number, counted from 0."""
        return self._last_layer if self._last_layer and epoch < self._job.freeze_epochs else self._all

    def _steps(self, only: Sequence[Any] | None) -> StepCalls:
        job = self._job
        step = make_train_step(
            job.strategy,
            job.model,
            job.optimizer,
            job.update,
            scale=job.scale,
            finish=finish_on_device(job.how) if job.how.on_device else None,
            average=job.average,
            only=only,
        )
        return StepCalls(step, wanted=job.steps_per_call, alone=job.layout.alone)


def _train_epoch(job: TrainJob, batches: Any, calls: StepCalls, saver: Saver, progress: Progress) -> Progress:
    """Run the steps that are left of the epoch under way. Raises `Diverged`, on all workers after the same step."""
    steps = job.order.steps_per_epoch
    epoch = len(progress.history)
    end = (epoch + 1) * steps
    started, before, waiting = time.monotonic(), progress, 0.0
    with _progress_bar(job, epoch, steps - (end - progress.step)) as bar:
        while progress.step < end:  # it is the end already if the run was stopped during validation
            if job.layout.alone and job.stop.is_set():  # the next batch may be long in coming
                raise saver.stopped(progress)
            job.watchdog.beat("step", f"{progress.step + 1} of epoch {epoch + 1}", compiles=True)
            with job.profile.step(progress.step + 1):
                rows = _next_steps(job, batches, calls, saver, progress, end=end)
            for loss, hits, records, _, broken, waited in rows:
                if not math.isfinite(loss) or broken:
                    what = "weights that aren't finite" if math.isfinite(loss) else f"a loss of {loss}"
                    raise diverged(job.order, job.reader, progress.step + 1, what)
                sums = (progress.sums[0] + loss, progress.sums[1] + hits, progress.sums[2] + records)
                waiting += waited
                progress = replace(progress, step=progress.step + 1, sums=sums)
            seconds = time.monotonic() - started
            progress = replace(
                progress,
                epoch_seconds=before.epoch_seconds + seconds,
                waiting_seconds=before.waiting_seconds + waiting,
            )
            pace = Pace(sums[2] - before.sums[2], progress.step - before.step, seconds, waiting)
            _show(bar, sums, pace, len(rows))
            if progress.step == end:
                break  # the end of the epoch saves by itself, after validation
            if rows[-1][3]:
                raise saver.stopped(progress)
            if not job.stop.is_set():  # several workers stop after the next step, and save then
                saver.after_step(progress)
    return progress


def _next_steps(
    job: TrainJob, batches: Any, calls: StepCalls, saver: Saver, progress: Progress, *, end: int
) -> list[list[float]]:
    """What `StepCalls.take` gives for one or more steps, up to the next at which there is something to do.

    A process that is alone and has nothing to save may be stopped in its midst: it compiles.
    """
    at_once = job.layout.alone and saver.has(progress)
    every = job.checkpoint_every.steps
    most = min(end - progress.step, every - progress.step % every) if every else end - progress.step
    left = job.epochs * job.order.steps_per_epoch - progress.step
    try:
        with job.reader.naming_failures(), job.stop.at_once() if at_once else nullcontext():
            return calls.take(batches, job.stop.is_set(), most=1 if job.profile.asked else most, left=left)
    except Preempted:
        raise saver.stopped(progress) from None


def _validated_row(job: TrainJob, saver: Saver, progress: Progress) -> dict[str, float]:
    """The epoch's row of the history. Validation may be long: a signal ends it, and it begins anew after resuming."""
    try:
        with job.stop.at_once() if job.layout.alone else nullcontext():
            job.watchdog.beat("validation", f"of epoch {len(progress.history) + 1}", compiles=True)
            validation = job.validate()
    except Preempted:
        raise saver.stopped(progress) from None
    row = _epoch_row(job, progress, validation)
    if not math.isfinite(row["validation_loss"]):
        what = f"a validation loss of {row['validation_loss']} after it"
        raise diverged(job.order, job.reader, progress.step, what)
    return row


def _epoch_row(job: TrainJob, progress: Progress, validation: Metrics) -> dict[str, float]:
    loss, hits, records = progress.sums
    pace = Pace(records, job.order.steps_per_epoch, progress.epoch_seconds, progress.waiting_seconds)
    return {
        "epoch": len(progress.history) + 1,
        "train_loss": loss / records,
        "train_accuracy": hits / records,
        "validation_loss": validation["log_loss"],
        "validation_accuracy": validation["accuracy"],
        "validation_balanced_accuracy": validation["balanced_accuracy"],
        "validation_macro_f1": validation["macro_f1"],
        "learning_rate": last_rate(job.optimizer),
        **pace.columns(),
    }


def _judged(job: TrainJob, progress: Progress, row: dict[str, float]) -> Progress:
    """The epoch is over: whether it is the one to keep so far, and the last one."""
    history = (*progress.history, row)
    progress = replace(progress, history=history, sums=(0.0, 0.0, 0.0), epoch_seconds=0.0, waiting_seconds=0.0)
    merit = _merit(row, job.monitor)
    if job.keeps_last or not progress.best or merit > progress.best:
        progress = replace(progress, best=merit, best_epoch=len(history), best_step=progress.step)
    waited = len(history) - progress.best_epoch
    over = progress.step >= job.epochs * job.order.steps_per_epoch or (0 < job.patience <= waited)
    return replace(progress, finished=over)


def _merit(row: dict[str, float], monitor: str) -> tuple[float, ...]:
    """What makes an epoch better: the monitored metric, and the lower loss between equals."""
    value = row[f"validation_{monitor}"]
    return (-value if monitor == "loss" else value, -row["validation_loss"])


def _tell(job: TrainJob, progress: Progress) -> None:
    """Log the epoch. A disk that is full must not end here what the saver bears with."""
    try:
        job.on_epoch(progress.history[-1])
    except REFUSED as error:
        say(f"Epoch {len(progress.history)} could not be logged ({error}). Training goes on; the report will show it.")


def _progress_bar(job: TrainJob, epoch: int, done: int) -> Any:
    return tqdm(
        total=job.order.steps_per_epoch,
        initial=done,
        desc=f"epoch {epoch + 1}/{job.epochs}",
        unit="step",
        leave=False,
        disable=not job.chief,
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
    )


def _show(bar: Any, sums: tuple[float, float, float], pace: Pace, steps: int) -> None:
    loss, hits, records = sums
    bar.set_postfix_str(f"loss {loss / records:.3f}, accuracy {hits / records:.3f}, {pace}", False)
    bar.update(steps)


def _saver(job: TrainJob, progress: Progress, way_back: WayBack) -> Saver:
    return Saver(
        job.checkpoints,
        every=job.checkpoint_every,
        deadline_s=job.checkpoint_deadline_s,
        writes=job.chief,
        pins=way_back.pins,
        beat=job.watchdog.beat,
        start=progress,
    )


def _distributed(job: TrainJob, *, start_step: int) -> Any:
    stop_step = job.epochs * job.order.steps_per_epoch

    def batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        source = job.decoded or job.reader
        return train_batches(source, job.order, job.how, job.layout, start_step=start_step, stop_step=stop_step)

    return job.strategy.distribute_datasets_from_function(batches)
