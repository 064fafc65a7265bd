"""A factor on the loss, so that small gradients don't vanish in float16, and the factor taken out of them again.

    scale = LossScale(optimizer)                    # in the strategy's scope, before `optimizer.build`
    loss = scale.up(loss)                           # before the gradients are taken
    gradients = scale.down(gradients)
    scale.update(finite)                            # after each step, the same on every replica

A step whose gradients aren't finite is left out, and the factor halved; after `GROWTH_STEPS` without one it is doubled
(Micikevicius et al., Mixed Precision Training, 2018). Both numbers are variables of the optimizer, so they are saved,
restored and rolled back with it. Keras's `LossScaleOptimizer` looks at each replica's gradients alone, so replicas
could go apart: here the finding is one for all of them.
"""

from typing import Any

import keras
import tensorflow as tf

FIRST, LEAST, GREATEST = 2.0**15, 1.0, 2.0**24
GROWTH_STEPS = 2000


class LossScale:
    """The factor and how many steps it has gone well for. Scalars of the optimizer, the same on every replica."""

    def __init__(self, optimizer: keras.optimizers.Optimizer, *, first: float = FIRST) -> None:
        constant = keras.initializers.Constant
        self._factor = _scalar(optimizer, constant(first), "float32", "loss_scale")
        self._good_steps = _scalar(optimizer, constant(0), "int32", "loss_scale_good_steps")

    @property
    def factor(self) -> Any:
        return tf.convert_to_tensor(self._factor)

    @property
    def exhausted(self) -> Any:
        """Whether the factor can't be made smaller: then it isn't what makes gradients infinite."""
        return self.factor <= LEAST

    def up(self, loss: Any) -> Any:
        return loss * self.factor

    def down(self, gradients: list[Any]) -> list[Any]:
        return [tf.cast(gradient, tf.float32) / self.factor for gradient in gradients]

    def update(self, finite: Any) -> None:
        """To be called by each replica, with the same `finite`: a boolean scalar."""
        good = tf.where(finite, tf.convert_to_tensor(self._good_steps) + 1, 0)
        grows = good >= GROWTH_STEPS
        changed = tf.where(finite, tf.where(grows, self.factor * 2.0, self.factor), self.factor / 2.0)
        self._factor.assign(tf.clip_by_value(changed, LEAST, GREATEST))
        self._good_steps.assign(tf.where(grows, 0, good))


def _scalar(optimizer: keras.optimizers.Optimizer, initializer: Any, dtype: str, name: str) -> Any:
    return optimizer.add_variable((), initializer, dtype, aggregation="only_first_replica", name=name)
