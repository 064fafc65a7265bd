"""What batch normalisation remembers of features, kept the same on every replica.

    statistics = statistics_of(model)
    agree(strategy, statistics)                 # in a step, outside of its replicas

Keras lets each replica remember what it has seen, in copies of its own that are never brought together: replicas would
validate with different networks, and what is exported, one of them, would know its share of the images alone. A
checkpoint holds one too, so that validation after a restart would be that of other networks than before.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def statistics_of(model: keras.Model) -> list[Any]:
    """What the model's layers of batch normalisation change in training: their moving means and variances."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]


def agree(strategy: tf.distribute.Strategy, statistics: Sequence[Any]) -> None:
    """Give each replica's copy the mean over replicas, in one exchange for all."""
    if not statistics or strategy.num_replicas_in_sync == 1:
        return
    ours = strategy.run(lambda: tf.concat([tf.reshape(variable.value, [-1]) for variable in statistics], axis=0))
    means = strategy.reduce(tf.distribute.ReduceOp.MEAN, ours, axis=None)
    sizes = [int(np.prod(variable.shape)) for variable in statistics]
    for variable, mean in zip(statistics, tf.split(means, sizes), strict=True):
        strategy.extended.update(variable.value, _set, args=(tf.reshape(mean, variable.shape),), group=True)


def _set(copy: Any, mean: Any) -> Any:
    return copy.assign(mean)
