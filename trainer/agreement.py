"""What all workers must do together, or wait for each other for ever: agreed by adding up over all of them.

total = make_sum(strategy, layout)
if total(stop.is_set()) > 0: ...  # on all workers after the same call, or on none
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainer.input_pipeline import Layout


def make_sum(strategy: tf.distribute.Strategy, layout: Layout) -> Callable[[float], float]:
    """A function that every worker calls at the same point, and that gives all of them the sum over the replicas."""
    if layout.alone:
        return lambda value: float(value) * layout.replicas

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def total(value: Any) -> Any:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(lambda: tf.identity(value)), axis=None)

    return lambda value: float(total(tf.constant(float(value), tf.float64)))
