"""How many training steps one call from Python takes: several, where steps are so short that a call costs.

    calls = StepCalls(step, wanted=0, alone=True)
    rows = calls.take(batches, stop, most=left)         # [[loss, hits, records, stops, broken, seconds waited], ...]

Between two calls a device has nothing to do: of steps of a few milliseconds up to a tenth of the time. Of longer ones
it is next to nothing, and with one step a call a signal is heard sooner. Which it is, is measured. However steps are
put together, their results are the same bits: see `make_several_steps`.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.step import make_several_steps

CALL_S = 0.1  # so long a call may be: a signal is heard after it
SHORT_S = 0.02
MEASURED, FIRST = 20, 3  # steps that are looked at, after those that compile
WORTH_STEPS = 2000  # left to do: compiling anew takes seconds


class StepCalls:
    """Takes the steps of one process. `wanted` is how many a call takes at most, 0 as many as pay."""

    def __init__(self, step: Callable[[Any, Any], Any], *, wanted: int, alone: bool) -> None:
        self._step, self._several = step, make_several_steps(step)
        self._at_once = wanted if alone else 1  # several workers agree on every step
        self._seconds: list[float] = []

    def take(self, batches: Any, stop: bool, *, most: int, left: int) -> list[list[float]]:
        """At most `most` of the `left` steps of the run; fewer if one breaks. A row each, see above."""
        count = min(self.count(left), most)
        told = tf.constant(float(stop))
        if count > 1:
            rows = self._several(batches, tf.constant(count), told)
            return np.asarray(rows, dtype=np.float64).tolist()  # type: ignore[no-any-return]
        asked = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - asked
        sums = np.asarray(self._step(batch, told), dtype=np.float64).tolist()
        self.measured(time.monotonic() - asked)
        return [[*sums, waited]]

    def measured(self, step_s: float) -> None:
        """One step by itself took so long."""
        if not self._at_once:
            self._seconds.append(step_s)

    def count(self, left: int) -> int:
        """How many steps the next call should take, if `left` are left."""
        if self._at_once or len(self._seconds) < FIRST + MEASURED:
            return self._at_once or 1
        step_s = median(self._seconds[FIRST:])
        pays = step_s < SHORT_S and left >= WORTH_STEPS
        self._at_once = int(CALL_S / step_s) if pays else 1
        return self._at_once
