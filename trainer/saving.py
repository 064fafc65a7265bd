"""When a checkpoint is made, and what happens when the disk refuses it.

    saver = Saver(checkpoints, every=Interval(seconds=600), deadline_s=1800, ...)
    saver.after_step(progress)      # saves if it is time to
    saver.epoch_end(progress)       # always saves
    saver.finish(progress, stop)    # doesn't come back before all is saved
    raise saver.stopped(progress)   # saves, and says what a run that is started again goes on from

A save that fails is told and tried again, at the next moment it is due and at least once a minute, while training goes
on. Only when that has lasted for `deadline_s` does it end the run. The checkpoint of an epoch that has to stay, such as
the best one, is kept in memory meanwhile and saved before the next: an outage changes nothing in the result.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import tensorflow as tf

from data_pipeline.cli import DISK_TROUBLE, FaultError, Preempted, say
from trainer.checkpoints import Checkpoints, Progress, Snapshot
from trainer.intervals import Interval
from trainer.preemption import StopSignal

# How Python and TensorFlow say that a disk has refused something.
REFUSED = (OSError, tf.errors.OpError)
RETRY_S = 60.0
LAST_RETRY_S = 5.0  # when there is nothing else left to do
POLL_S = 0.1
AGAIN = "Run the same command again to go on from here."


@dataclass(frozen=True)
class _Held:
    """A checkpoint that must not get lost and couldn't be saved yet."""

    progress: Progress
    state: Snapshot


class Saver:
    """Saves the checkpoints of a run, if this process is the one that `writes` them; otherwise it does nothing.

    `pins` names the steps whose checkpoints have to stay beside the last and the best; `beat` is told what begins.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        every: Interval,
        deadline_s: float,
        writes: bool,
        pins: Callable[[Progress], frozenset[int]],
        beat: Callable[[str, str], None],
        start: Progress,
    ) -> None:
        self._checkpoints = checkpoints
        self._every = every
        self._deadline_s = deadline_s
        self._writes = writes
        self._pins = pins
        self._beat = beat
        self._good = start
        self._tried = time.monotonic()
        self._failing_since: float | None = None
        self._held: dict[int, _Held] = {}

    def begin(self, progress: Progress) -> None:
        """Save the very start, if it has to stay."""
        if progress == Progress() and self._pins(progress):
            self.epoch_end(progress)

    def after_step(self, progress: Progress) -> None:
        """Save if it is time to. Raises `FaultError` when saving has failed for too long."""
        self._checkpoints.uploads.check()
        if self._writes and self._is_due(progress.step):
            self._attempt(progress)

    def epoch_end(self, progress: Progress) -> None:
        """Save, or keep in memory what must not get lost. Raises `FaultError` when saving has failed for too long."""
        if self._writes and not self._attempt(progress) and progress.step in self._needed(progress):
            needed = {step: held for step, held in self._held.items() if step in self._needed(progress)}
            self._held = needed | {progress.step: _Held(progress, self._checkpoints.snapshot())}

    def finish(self, progress: Progress, stop: StopSignal) -> None:
        """The end of training: try until it is saved. Raises `FaultError`, or `Preempted` when told to stop."""
        while self._writes and not self.has(progress):
            wake = time.monotonic() + LAST_RETRY_S
            while time.monotonic() < wake:
                if stop.is_set():
                    raise self.stopped(progress)
                self._beat("the wait", "for the disk")
                time.sleep(POLL_S)
            self._attempt(progress)

    def has(self, progress: Progress) -> bool:
        """Whether there is nothing in `progress` to be saved."""
        return self._good == progress

    def stopped(self, progress: Progress) -> Preempted:
        """What to raise when told to stop, after one more try to save."""
        if progress == Progress():
            return Preempted(f"Stopped before the first step. {AGAIN}")
        error = self._try(progress) if self._writes and not self.has(progress) else None
        if error is None:
            return Preempted(f"Stopped after step {progress.step}; it is saved. {AGAIN}")
        return Preempted(
            f"Stopped after step {progress.step}, which could NOT be saved: {_reason(error)}. The same command, run "
            f"again, goes back to {self._last_good()}. To fix it: {_fix(error)}, then run it."
        )

    def _is_due(self, step: int) -> bool:
        waited_s = time.monotonic() - self._tried
        if self._every.steps and step % self._every.steps == 0:
            return True
        if self._failing_since is not None and waited_s >= RETRY_S:
            return True
        return 0 < self._every.seconds <= waited_s

    def _attempt(self, progress: Progress) -> bool:
        """Whether it worked out. Raises `FaultError` when it hasn't for too long."""
        error = self._try(progress)
        if error is None:
            return True
        lasted_s = time.monotonic() - (self._failing_since or self._tried)
        where = self._checkpoints.folder
        told = f"The checkpoint of step {progress.step} could NOT be saved in {where}: {_reason(error)}."
        if lasted_s >= self._deadline_s:
            raise FaultError(
                f"{told} It has been so for {lasted_s:.0f} s, and --checkpoint_deadline is {self._deadline_s:g} s. "
                f"To fix it: {_fix(error)}, then run the same command again: it goes back to {self._last_good()}."
            )
        say(
            f"{told} Training goes on and tries again within {RETRY_S:.0f} s; it gives up in "
            f"{self._deadline_s - lasted_s:.0f} s. To fix it: {_fix(error)}. The last good one is {self._last_good()}."
        )
        return False

    def _try(self, progress: Progress) -> Exception | None:
        """Save what is held back and then `progress`; what went wrong, if anything did."""
        try:
            for step in sorted(set(self._held) & self._needed(progress) - {progress.step}):
                self._save(self._held[step].progress, self._held[step].state)
            self._save(progress)
        except REFUSED as error:
            self._failing_since = self._failing_since or time.monotonic()
            return error
        finally:
            self._tried = time.monotonic()
            self._beat("what follows a save", f"of step {progress.step}")
        self._held.clear()
        if self._failing_since is not None:
            say(f"The checkpoint of step {progress.step} is saved: the disk takes them again.")
            self._failing_since = None
        return None

    def _save(self, progress: Progress, state: Snapshot | None = None) -> None:
        keep = self._pins(progress)
        self._beat("save", f"of step {progress.step} to {self._checkpoints.folder}")
        if state is None:
            self._checkpoints.save(progress, keep=keep)
        else:
            self._checkpoints.save_snapshot(state, progress, keep=keep)
            self._held.pop(progress.step)
        self._good = progress

    def _needed(self, progress: Progress) -> frozenset[int]:
        return self._pins(progress) | {progress.best_step}

    def _last_good(self) -> str:
        return f"that of step {self._good.step}" if self._good.step else "the start"


def _reason(error: Exception) -> str:
    """What the disk said, in one line."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename}" if error.filename else str(error.strerror or error)
    return str(getattr(error, "message", error)).strip().splitlines()[0]


def _fix(error: Exception) -> str:
    for number, fix in DISK_TROUBLE.items():
        if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
            return fix
    return "look at the disk and how it is mounted"
