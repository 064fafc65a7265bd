"""Adam and Adamax for weights that begin to learn late, when the frozen part of a run is over.

    optimizer = AdamW(rate, weight_decay=0.05)
    optimizer.build(model.trainable_variables)
    optimizer.begin_late(body, after=300)       # steps in which these weights were frozen

Moments begin at 0, and Adam makes up for that by a factor that tends to 1 as steps are taken. Keras counts those of the
optimizer: weights that join after some hundred steps would take their first hundred up to six times as long as the
learning rate says, just where loaded weights are fragile. Here each weight's steps are counted from its own first.
"""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class _LateWeights:
    """What both have in common. Without late weights each does what Keras's own does, to the bit."""

    _late: frozenset[int] = frozenset()
    _after = 0

    def begin_late(self, weights: Sequence[keras.Variable], *, after: int) -> None:
        """`weights` take their first step after so many of the optimizer, which is built already."""
        self._late, self._after = frozenset(self._get_variable_index(weight) for weight in weights), after  # type: ignore[attr-defined]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """One step of one weight."""
        if self._get_variable_index(variable) in self._late:  # type: ignore[attr-defined]
            steps = tf.cast(self.iterations, tf.float32) + 1.0  # type: ignore[attr-defined]
            own = tf.maximum(steps - float(self._after), 1.0)
            learning_rate = learning_rate * self._correction(own) / self._correction(steps)
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def _correction(self, steps: Any) -> Any:
        """What Keras multiplies the rate by, this many steps after moments of 0: here for the first moment."""
        return 1.0 / (1.0 - self.beta_1**steps)  # type: ignore[attr-defined]


class AdamW(_LateWeights, keras.optimizers.AdamW):  # type: ignore[misc]
    """Keras's, whose second moment is corrected too."""

    def _correction(self, steps: Any) -> Any:
        return super()._correction(steps) * tf.sqrt(1.0 - self.beta_2**steps)


class Adamax(_LateWeights, keras.optimizers.Adamax):  # type: ignore[misc]
    """Keras's."""
