"""A loss that is no number any more, or weights that aren't: how it is told, and the way back.

    way_back = WayBack(checkpoints, optimizer, steps_per_epoch=11, on_nan="rollback")
    way_back.begin(progress)             # once, then after each epoch
    try: ...
    except Diverged as found:
        progress = way_back.take(found, progress)

The way leads to the start of the epoch under way, not to the newest checkpoint: that one may have been made by the
clock or by an interruption, and what is learnt must depend on neither. Each worker keeps that state in its memory, so
all go back in the same step without a word to each other and without a disk.
"""

from dataclasses import dataclass, replace

import keras

from data_pipeline.cli import RequestError, say
from trainer.checkpoints import Checkpoints, Progress, Snapshot
from trainer.order import TrainOrder
from trainer.records import RecordReader
from trainer.schedule import highest_rate

FAIL, ROLLBACK = "fail", "rollback"
MAX_ROLLBACKS = 5
IDS_SHOWN = 5


class Diverged(Exception):
    """Training has left the numbers in a step that all workers know of."""


@dataclass(frozen=True)
class _Start:
    """A state to go back to."""

    progress: Progress
    state: Snapshot


class WayBack:
    """Where to go back to; with `on_nan="fail"`, nowhere, and nothing is kept."""

    def __init__(
        self, checkpoints: Checkpoints, optimizer: keras.optimizers.Optimizer, *, steps_per_epoch: int, on_nan: str
    ) -> None:
        self._checkpoints = checkpoints
        self._rate = highest_rate(optimizer)
        self._steps_per_epoch = steps_per_epoch
        self._possible = on_nan == ROLLBACK
        self._start: _Start | None = None

    def pins(self, progress: Progress) -> frozenset[int]:
        """The steps whose checkpoints must stay for a run that is interrupted and goes back later."""
        return frozenset({self._start_step(progress)} if self._possible else ())

    def begin(self, progress: Progress) -> None:
        """Training stands at `progress`: remember the start of its epoch, which may have to be read from the disk."""
        if not self._possible:
            return
        now = self._checkpoints.snapshot()
        self._start = _Start(progress, now)
        if progress.step == self._start_step(progress):
            return
        start = self._checkpoints.restore_step(self._start_step(progress))
        if start:
            self._start = _Start(start, self._checkpoints.snapshot())
        else:
            say(f"There is no checkpoint of the start of this epoch: step {progress.step} is the one to go back to.")
        self._checkpoints.load(now)

    def take(self, found: Diverged, progress: Progress) -> Progress:
        """Go back, and halve the learning rate once more. Raises `RequestError` when that isn't wanted or no use."""
        if self._start is None:
            fix = "a smaller --learning_rate, or --on_nan=rollback, which halves it by itself; look at these images too"
            raise RequestError(f"{found} The last good checkpoint is kept. To fix it: {fix}.")
        if progress.rollbacks >= MAX_ROLLBACKS:
            fix = "look at these images, then train with a much smaller --learning_rate"
            raise RequestError(f"{found} It did after {MAX_ROLLBACKS} halvings of the learning rate. To fix it: {fix}.")
        back = replace(self._start.progress, rollbacks=progress.rollbacks + 1)
        self._checkpoints.load(self._start.state)
        rate = float(keras.ops.convert_to_numpy(self._rate))
        rate /= 2.0 ** (back.rollbacks - self._start.progress.rollbacks)
        self._rate.assign(rate)
        say(
            f"{found} Training goes back to step {back.step} and on at a learning rate of {rate:g}; "
            f"this was time {back.rollbacks} of at most {MAX_ROLLBACKS}."
        )
        return back

    def _start_step(self, progress: Progress) -> int:
        return len(progress.history) * self._steps_per_epoch


def diverged(order: TrainOrder, reader: RecordReader, step: int, what: str) -> Diverged:
    """The step after which `what` isn't finite, counted from 1, with the records it was about."""
    epoch, indices = order.batch(step - 1)
    ids = [record.id for record in reader.records(indices[:IDS_SHOWN])]
    more = f" and {len(indices) - len(ids)} more" if len(indices) > len(ids) else ""
    return Diverged(
        f"Training has diverged in step {step} (epoch {epoch + 1}, step {(step - 1) % order.steps_per_epoch + 1} of "
        f"{order.steps_per_epoch}): {what}. Its batch were the records {', '.join(ids)}{more}. "
        "The learning rate is too high, or one of these images is broken."
    )
