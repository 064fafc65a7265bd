"""SIGTERM, remembered until the loop asks.

    stop = StopSignal()
    ...
    if stop.is_set(): save and end with `cli.EXIT_PREEMPTED`

Nothing is saved inside the handler: only between two steps is there a state worth saving.
"""

import signal


class StopSignal:
    """Whether SIGTERM has come since this was made."""

    def __init__(self) -> None:
        self._set = False
        signal.signal(signal.SIGTERM, self._remember)

    def is_set(self) -> bool:
        return self._set

    def _remember(self, signum: int, frame: object) -> None:
        self._set = True
