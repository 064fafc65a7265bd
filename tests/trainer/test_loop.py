"""The loop: the same gradients on any number of replicas, stops between any two steps, the right best epoch."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.cli import Preempted
from tests.trainer.conftest import SIZE
from tests.trainer.jobs import ONE, Dataset, StopAfter, job_of
from trainer.augment_config import Augmentation
from trainer.checkpoints import Progress
from trainer.cluster import layout_of
from trainer.input_pipeline import TrainInput, train_batches
from trainer.loop import train
from trainer.losses import Loss
from trainer.models import build_model
from trainer.order import TrainOrder
from trainer.preemption import StopSignal
from trainer.records import RecordReader
from trainer.step import make_train_step


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    before = signal.getsignal(signal.SIGTERM)
    signal_seen = StopSignal()
    signal_seen.listen()
    yield signal_seen
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("batch_size", [7, 16, 171])
def test_two_replicas_take_the_step_that_one_takes(dataset: Dataset, batch_size: int) -> None:
    """Plain SGD, one step from the same weights over the same records: a wrong mean or mask would show at once."""
    reader = RecordReader(*dataset, "train")
    order = TrainOrder(len(reader), batch_size, seed=0)
    step_number = order.steps_per_epoch - 1  # the tail, which no number of replicas divides
    after = []
    for strategy in (ONE("CPU:0"), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = build_model("seed_pooled", image_size=SIZE, classes=3)
            optimizer = keras.optimizers.SGD(0.1)
            optimizer.build(model.trainable_variables)
        step = make_train_step(strategy, model, optimizer)
        layout = layout_of(strategy)
        batches = strategy.distribute_datasets_from_function(
            lambda context, layout=layout: train_batches(
                reader,
                order,
                TrainInput(SIZE, Augmentation(), 0),
                layout,
                start_step=step_number,
                stop_step=step_number + 1,
            )
        )
        before = [np.array(w) for w in model.get_weights()]
        sums = np.array(step(next(iter(batches)), tf.constant(0.0)))
        moved = np.concatenate([(new - old).ravel() for new, old in zip(model.get_weights(), before, strict=True)])
        after.append((moved, sums))
    assert np.linalg.norm(after[0][0]) > 0
    assert np.linalg.norm(after[0][0] - after[1][0]) < 1e-4 * np.linalg.norm(after[0][0])
    assert after[0][1] == pytest.approx(after[1][1], rel=1e-5)
    assert after[0][1][2] == len(order.batch(step_number)[1])


def test_of_two_labels_each_counts_in_its_share() -> None:
    logits = tf.constant([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
    batch = {"label": [0, 1], "partner_label": [2, 1], "share": tf.constant([0.7, 0.2])}
    targets = 0.7 * np.eye(3)[0] + 0.3 * np.eye(3)[2], np.eye(3)[1]
    expected = -np.sum(targets * np.log(tf.nn.softmax(logits)), axis=1)
    assert Loss().of(batch, logits).numpy() == pytest.approx(expected, rel=1e-5)
    assert Loss().of({"label": [0, 1]}, logits).numpy()[1] == pytest.approx(expected[1], rel=1e-5)


def test_a_stop_during_validation_saves_and_resumes_into_it(dataset: Dataset, tmp_path: Path, stop: StopSignal) -> None:
    whole = train(job_of(dataset, tmp_path / "whole", StopSignal()), Progress())

    def stopped() -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal must end validation")

    job = job_of(dataset, tmp_path / "cut", stop, validate=stopped)
    with pytest.raises(Preempted, match="saved"):
        train(job, Progress())
    resumed = job_of(dataset, tmp_path / "cut", StopSignal())
    progress = resumed.checkpoints.restore_last()
    assert progress is not None
    assert progress.step == job.order.steps_per_epoch
    assert progress.history == ()
    assert progress.sums[2] == len(job.reader)
    end = train(resumed, progress)
    for ours, theirs in zip(end.history, whole.history, strict=True):
        assert ours["train_loss"] == theirs["train_loss"]


def test_a_stop_between_steps_saves_the_step_that_is_done(dataset: Dataset, tmp_path: Path) -> None:
    job = job_of(dataset, tmp_path, StopAfter(2))
    with pytest.raises(Preempted, match="step 1; it is saved"):
        train(job, Progress())
    progress = job.checkpoints.restore_last()
    assert progress is not None
    assert progress.step == 1


def test_a_stop_before_anything_is_learnt_waits_for_no_step(dataset: Dataset, tmp_path: Path, stop: StopSignal) -> None:
    job = job_of(dataset, tmp_path, stop)
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Preempted, match="before the first step"):
        train(job, Progress())
    assert job.checkpoints.restore_last() is None


def test_a_stop_that_came_before_ends_what_needs_no_saving(stop: StopSignal) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Preempted), stop.at_once():
        raise AssertionError("must not begin")


@pytest.mark.parametrize(
    ("scores", "patience", "best", "epochs"),
    [
        ([0.1, 0.3, 0.2, 0.3, 0.2], 0, 2, 5),
        ([0.1, 0.3, 0.2, 0.2, 0.9], 2, 2, 4),
        ([0.5, 0.4, 0.3, 0.2, 0.1], 1, 1, 2),
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 5, 5),
    ],
)
def test_the_best_epoch_is_kept_and_patience_counts_from_it(
    dataset: Dataset, tmp_path: Path, stop: StopSignal, scores: list[float], patience: int, best: int, epochs: int
) -> None:
    answers = iter(scores)

    def validate() -> dict[str, float]:
        return {"log_loss": 1.0, "accuracy": 0.0, "balanced_accuracy": next(answers), "macro_f1": 0.0}

    kept: list[np.ndarray] = []
    job = job_of(dataset, tmp_path, stop, validate=validate, patience=patience, epochs=5)
    job = replace(job, on_epoch=lambda row: kept.append(job.model.get_weights()[0]))
    progress = train(job, Progress())
    assert len(progress.history) == epochs
    assert progress.best_epoch == best
    assert progress.sums == (0.0, 0.0, 0.0)
    job.checkpoints.restore_best(progress)
    assert (job.model.get_weights()[0] == kept[best - 1]).all()
