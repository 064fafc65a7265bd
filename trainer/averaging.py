"""A moving average of a model's weights, which does better on new images than the weights of any single step.

    average = averaged_copy(model)                                  # in the strategy's scope, once the model is built
    follow(strategy, average, model, decay=0.99, step=step)         # after each step, outside of its replicas

B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the decay grows over the first
steps as (1 + step) / (10 + step), so that the start is soon forgotten. What a layer remembers besides its weights, such
as the statistics of batch normalisation, is averaged with them. The average is a model of its own, so it is validated,
saved and exported as any other.
"""

from typing import Any

import keras
import tensorflow as tf


def averaged_copy(model: keras.Model) -> keras.Model:
    """A model like `model`, with the same weights in variables of its own."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def decay_at(step: Any, decay: float) -> Any:
    """How much of the average stays in `step`, counted from 0: a scalar of float32, from a number or a tensor."""
    step = tf.cast(step, tf.float32)
    return tf.minimum(decay, (1 + step) / (10 + step))


def follow(strategy: tf.distribute.Strategy, average: keras.Model, model: keras.Model, *, decay: Any) -> None:
    """Move the average towards the model: what stays of it is the share `decay`."""
    for mean, variable in zip(average.variables, model.variables, strict=True):
        strategy.extended.update(mean.value, _moved, args=(variable.value, decay), group=True)


def _moved(mean: Any, value: Any, decay: Any) -> Any:
    if not mean.dtype.is_floating:
        return mean.assign(value)
    return mean.assign_add((1 - tf.cast(decay, mean.dtype)) * (value - mean))
