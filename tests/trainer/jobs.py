"""Small training jobs in this process, which can be stopped after any number of steps."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from data_pipeline.cli import Preempted
from data_pipeline.manifest import Manifest
from tests.trainer.conftest import SIZE
from trainer.augment_config import Augmentation
from trainer.checkpoints import Checkpoints, Progress
from trainer.cluster import layout_of
from trainer.input_pipeline import TrainInput
from trainer.intervals import Interval
from trainer.loop import TrainJob, train
from trainer.models import build_model
from trainer.order import TrainOrder
from trainer.pace import CLOCK_COLUMNS
from trainer.preemption import StopSignal
from trainer.records import RecordReader

Dataset = tuple[Path, Manifest]
ONE = tf.distribute.OneDeviceStrategy
SCORE = {"log_loss": 1.0, "accuracy": 0.5, "balanced_accuracy": 0.5, "macro_f1": 0.5}


class StopAfter(StopSignal):
    """SIGTERM comes just before training looks for it for the `looks`-th time: up to three times a step."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks_left = looks

    def is_set(self) -> bool:
        self.looks_left -= 1
        return self.looks_left <= 0


def job_of(
    dataset: Dataset,
    folder: Path,
    stop: StopSignal,
    *,
    learning_rate: float = 1e-3,
    strategy: tf.distribute.Strategy | None = None,
    **changes: object,
) -> TrainJob:
    """A job of three epochs of three steps whose validation always answers the same."""
    keras.utils.set_random_seed(0)
    strategy = strategy or ONE("CPU:0")
    with strategy.scope():
        model = build_model("seed_pooled", image_size=SIZE, classes=3)
        optimizer = keras.optimizers.Adamax(learning_rate)
        optimizer.build(model.trainable_variables)
    reader = RecordReader(*dataset, "train")
    job = TrainJob(
        strategy=strategy,
        layout=layout_of(strategy),
        model=model,
        optimizer=optimizer,
        reader=reader,
        order=TrainOrder(len(reader), 64, seed=0),
        how=TrainInput(SIZE, Augmentation(), seed=0),
        epochs=3,
        patience=0,
        monitor="balanced_accuracy",
        checkpoint_every=Interval(),
        checkpoints=Checkpoints(folder, model, optimizer),
        validate=lambda: SCORE,
        on_epoch=lambda row: None,
        stop=stop,
        chief=True,
    )
    return replace(job, **changes)


def scores(*values: float) -> Callable[[], dict[str, float]]:
    """A validation that answers these, one after another."""
    answers = iter(values)
    return lambda: SCORE | {"balanced_accuracy": next(answers)}


def state_of(job: TrainJob) -> list[bytes]:
    """All bits of the weights and of what the optimizer remembers."""
    return [tf.convert_to_tensor(v).numpy().tobytes() for v in (*job.model.variables, *job.optimizer.variables)]


def best_of(job: TrainJob, progress: Progress) -> list[bytes]:
    """All bits of the best epoch, from the disk."""
    job.checkpoints.restore_best(progress)
    return state_of(job)


def untimed(progress: Progress) -> Progress:
    """Without what no two runs share."""
    rows = [{k: v for k, v in row.items() if k not in CLOCK_COLUMNS} for row in progress.history]
    return replace(progress, history=tuple(rows), epoch_seconds=0.0, waiting_seconds=0.0)


def train_in_pieces(
    make_job: Callable[..., TrainJob], stops: Sequence[int], **changes: Any
) -> tuple[TrainJob, Progress]:
    """Train, stopped by each of `stops` and started again; after the last one, to the end."""
    for stop in (*[StopAfter(steps) for steps in stops], StopSignal()):
        job = make_job(stop=stop, **changes)
        try:
            return job, train(job, job.checkpoints.restore_last() or Progress())
        except Preempted:
            continue
    raise AssertionError("the last piece has no stop")
