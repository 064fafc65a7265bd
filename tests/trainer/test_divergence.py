"""A loss that is no number: found in its step, named, never saved; and the way back is the same with interruptions."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.cli import RequestError
from tests.trainer.jobs import SCORE, Dataset, job_of, state_of, train_in_pieces, untimed
from trainer.checkpoints import Progress
from trainer.divergence import MAX_ROLLBACKS
from trainer.intervals import Interval
from trainer.loop import TrainJob, train
from trainer.preemption import StopSignal
from trainer.watchdog import Watchdog

TOO_HIGH = 1e9  # the weights are so large after one step that the second step's loss is no number
A_LITTLE_TOO_HIGH = 1e4  # two halvings are enough


class InfiniteRate(Watchdog):
    """Makes the learning rate infinite before the second step: it has a loss like any other, and then such weights."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.job: TrainJob | None = None

    def beat(self, kind: str, detail: str = "", *, compiles: bool = False) -> None:
        if self.job and (kind, detail) == ("step", "2 of epoch 1"):
            self.job.optimizer.learning_rate.assign(np.inf)


def job_that_diverges(dataset: Dataset, folder: Path, *, loss_stays_finite: bool) -> TrainJob:
    """In its second step; a checkpoint is made after each."""
    every = Interval(steps=1)
    if not loss_stays_finite:
        return job_of(dataset, folder, StopSignal(), learning_rate=TOO_HIGH, checkpoint_every=every)
    rate = InfiniteRate()
    rate.job = job_of(dataset, folder, StopSignal(), checkpoint_every=every, watchdog=rate)
    return rate.job


def test_the_step_its_epoch_and_its_records_are_named_with_a_remedy(dataset: Dataset, tmp_path: Path) -> None:
    job = job_that_diverges(dataset, tmp_path, loss_stays_finite=False)
    with pytest.raises(RequestError, match=r"step 2 \(epoch 1, step 2 of 3\): a loss of nan") as found:
        train(job, Progress())
    _, indices = job.order.batch(1)
    ids = [record.id for record in job.reader.records(indices)]
    assert f"records {', '.join(ids[:5])} and {len(ids) - 5} more." in str(found.value)
    assert "To fix it: a smaller --learning_rate, or --on_nan=rollback" in str(found.value)


def test_infinite_weights_behind_a_finite_loss_are_found_in_the_same_step(dataset: Dataset, tmp_path: Path) -> None:
    job = job_that_diverges(dataset, tmp_path, loss_stays_finite=True)
    with pytest.raises(RequestError, match=r"step 2 .*: weights that aren't finite"):
        train(job, Progress())


@pytest.mark.parametrize("loss_stays_finite", [False, True])
def test_the_last_good_checkpoint_stays(dataset: Dataset, tmp_path: Path, loss_stays_finite: bool) -> None:
    job = job_that_diverges(dataset, tmp_path, loss_stays_finite=loss_stays_finite)
    with pytest.raises(RequestError, match="last good checkpoint is kept"):
        train(job, Progress())
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000001"]
    kept = job.checkpoints.restore_last()
    assert kept is not None
    assert kept.step == 1
    assert all(np.isfinite(weight).all() for weight in job.model.get_weights())


def test_a_validation_that_gives_no_number_is_divergence(dataset: Dataset, tmp_path: Path) -> None:
    job = job_of(dataset, tmp_path, StopSignal(), validate=lambda: SCORE | {"log_loss": float("nan")})
    with pytest.raises(RequestError, match=r"step 3 .*a validation loss of nan"):
        train(job, Progress())


@pytest.mark.parametrize("devices", [["CPU:0"], ["CPU:0", "CPU:1"]])
def test_rollback_halves_the_learning_rate_and_the_history_shows_it(
    dataset: Dataset, tmp_path: Path, devices: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    strategy = tf.distribute.MirroredStrategy(devices) if len(devices) > 1 else None
    job = job_of(dataset, tmp_path, StopSignal(), learning_rate=A_LITTLE_TOO_HIGH, on_nan="rollback", strategy=strategy)
    end = train(job, Progress())
    assert end.finished
    assert end.rollbacks > 0
    assert {row["learning_rate"] for row in end.history} == {A_LITTLE_TOO_HIGH / 2**end.rollbacks}
    assert all(np.isfinite(weight).all() for weight in job.model.get_weights())
    assert "goes back to step 0 and on at a learning rate of 5000" in capsys.readouterr().err


def test_after_five_halvings_it_ends(dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_of(dataset, tmp_path, StopSignal(), learning_rate=1e12, on_nan="rollback")
    with pytest.raises(RequestError, match=r"after 5 halvings.*To fix it"):
        train(job, Progress())
    assert capsys.readouterr().err.count("goes back to step 0") == MAX_ROLLBACKS == 5


def too_high_in_the_second_epoch(dataset: Dataset, folder: Path, stop: StopSignal) -> TrainJob:
    """Good for an epoch, then at a learning rate that is a little too high."""

    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == 1:
            job.optimizer.learning_rate.assign(3 * A_LITTLE_TOO_HIGH)

    job = job_of(dataset, folder, stop, on_nan="rollback", on_epoch=on_epoch, checkpoint_every=Interval(steps=1))
    return job


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([1] * 20, marks=pytest.mark.long),
        [7, 1, 3, 1],
        pytest.param([9, 2, 4], marks=pytest.mark.long),
    ],
)
def test_with_interruptions_rollbacks_end_bit_identical(dataset: Dataset, tmp_path: Path, stops: list[int]) -> None:
    whole = too_high_in_the_second_epoch(dataset, tmp_path / "whole", StopSignal())
    end = train(whole, Progress())
    assert end.rollbacks > 1
    assert end.history[0]["learning_rate"] < end.history[1]["learning_rate"] < 3 * A_LITTLE_TOO_HIGH

    def make(stop: StopSignal) -> TrainJob:
        return too_high_in_the_second_epoch(dataset, tmp_path / "cut", stop)

    cut, cut_end = train_in_pieces(make, stops)
    assert untimed(cut_end) == untimed(end)
    assert state_of(cut) == state_of(whole)


def test_without_the_start_of_its_epoch_it_goes_back_as_far_as_it_can(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that began with --on_nan=fail, and so kept no checkpoint to go back to."""
    first = job_of(dataset, tmp_path, StopSignal(), checkpoint_every=Interval(steps=1), on_nan="fail")
    for step in (1, 2):
        first.checkpoints.save(Progress(step=step, sums=(1.0, 1.0, 64.0)))
    again = job_of(dataset, tmp_path, StopSignal(), on_nan="rollback")
    at = again.checkpoints.restore_last()
    assert at is not None
    assert train(again, at).finished
    assert "step 2 is the one to go back to" in capsys.readouterr().err
