"""A profile of some training steps, for TensorBoard's Profile page: what each operation took, on which device.

    first, last = parse_steps("100,110")
    profile = StepProfile(folder / "tensorboard", first, last)
    with profile:                       # what is still recorded at the end is written
        with profile.step(1): ...

Steps are counted from 1 over the whole run, as everywhere. Recording costs time, so a few steps are enough; the first
ones compile, and say little of the others.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType

import tensorflow as tf

from data_pipeline.cli import say


class StepProfile(AbstractContextManager["StepProfile"]):
    """Records steps `first` to `last` into `folder`; 0 and 0: nothing."""

    def __init__(self, folder: Path = Path(), first: int = 0, last: int = 0) -> None:
        self._folder, self._first, self._last = folder, first, last
        self._recording = False

    @property
    def asked(self) -> bool:
        """Whether there are steps to record: then each is a call of its own."""
        return self._last > 0

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Around step `number`. A run that goes on in the midst of those asked for records the rest of them."""
        if not self._first <= number <= self._last:
            yield
            return
        if not self._recording:
            tf.profiler.experimental.start(str(self._folder))
            self._recording = True
        with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
            yield
        if number == self._last:
            self._write()

    def _write(self) -> None:
        self._recording = False
        tf.profiler.experimental.stop()
        say(f"The profile of the steps up to {self._last} is in {self._folder}: see it with TensorBoard's Profile page")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._recording:
            self._write()
