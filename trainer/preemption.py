"""SIGTERM: when it ends the process, and when it waits for the loop to save first.

    exit_when_stopped()            # first of all, before imports that take seconds and start threads
    stop = StopSignal()
    stop.listen()                  # after anything that takes signals for itself, as TensorFlow's servers do
    ...
    if stop.is_set(): save and raise Preempted
    with stop.at_once(): ...       # nothing in here needs saving: the signal raises Preempted

Nothing is saved inside a handler: only between two steps is there a state worth saving.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from data_pipeline.cli import EXIT_PREEMPTED, STOPPED, Preempted

SIGTERM = frozenset({signal.SIGTERM})
POLL_S = 0.1
_somebody_listens = threading.Event()


def exit_when_stopped() -> None:
    """Until someone listens there is nothing to save: the signal ends the process at once, with exit code 75.

    A thread looks for it, and no handler runs: all threads that are started from now on have it blocked. TensorFlow's
    servers install a handler that would keep it to itself, on whichever thread it came. As process 1 of a container,
    Python would ignore it without a handler.
    """
    signal.signal(signal.SIGTERM, lambda signum, frame: os._exit(EXIT_PREEMPTED))
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGTERM)
    threading.Thread(target=_exit_with_signal, name="sigterm", daemon=True).start()


def _exit_with_signal() -> None:
    while not _somebody_listens.wait(POLL_S):
        if signal.SIGTERM in signal.sigpending():
            os._exit(EXIT_PREEMPTED)


class StopSignal:
    """Whether SIGTERM has come since `listen` was called first."""

    def __init__(self) -> None:
        self._set = False
        self._came = 0.0
        self._at_once = False

    def listen(self) -> None:
        """Take the signal from whoever has it. Only for the main thread."""
        signal.signal(signal.SIGTERM, self._remember)
        _somebody_listens.set()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGTERM)

    def is_set(self) -> bool:
        return self._set

    def since_s(self) -> float:
        """How long ago it came; 0 if it hasn't."""
        return time.monotonic() - self._came if self._set else 0.0

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
        self._came = self._came or time.monotonic()
        self._set = True
        if self._at_once:
            raise Preempted(STOPPED)
