"""SIGTERM: when it ends the process, and when it waits for the loop to save first.

    exit_when_stopped()            # first of all, before imports that take seconds
    stop = StopSignal()
    stop.listen()                  # again after anything that takes signals for itself, as TensorFlow's servers do
    ...
    if stop.is_set(): save and raise Preempted
    with stop.at_once(): ...       # nothing in here needs saving: the signal raises Preempted

Nothing is saved inside a handler: only between two steps is there a state worth saving.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from data_pipeline.cli import EXIT_PREEMPTED, STOPPED, Preempted


def exit_when_stopped() -> None:
    """Until someone listens there is nothing to save. As process 1 of a container, Python would ignore the signal."""
    signal.signal(signal.SIGTERM, lambda signum, frame: os._exit(EXIT_PREEMPTED))


class StopSignal:
    """Whether SIGTERM has come since `listen` was called first."""

    def __init__(self) -> None:
        self._set = False
        self._at_once = False

    def listen(self) -> None:
        """Take the signal from whoever has it."""
        signal.signal(signal.SIGTERM, self._remember)

    def is_set(self) -> bool:
        return self._set

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this block the signal, or one that came before, raises `Preempted`."""
        self._at_once = True
        try:
            if self._set:
                raise Preempted(STOPPED)
            yield
        finally:
            self._at_once = False

    def _remember(self, signum: int, frame: object) -> None:
        self._set = True
        if self._at_once:
            raise Preempted(STOPPED)
