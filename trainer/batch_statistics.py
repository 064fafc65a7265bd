"""Batch normalisation of the whole batch: of all replicas' records, and of no padding.

    model = of_whole_batches(model)             # before it is trained, in the strategy's scope
    with counted(batch["weight"]):              # in a replica
        logits = model(batch["image"], training=True)
    agree(strategy, statistics_of(model))       # in a step, outside of its replicas

Keras normalises by what a replica holds, padding included: the same batch would be another step on four devices than on
one, and a short batch one of the record it was padded with. And Keras lets each replica remember what it has seen in
copies that are never brought together: replicas would validate with different networks, and what is exported, one of
them, would know its share of the images alone.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_step = threading.local()  # each replica's part of a step is traced in a thread of its own


def of_whole_batches(model: keras.Model) -> keras.Model:
    """The same network with the same weights, which normalises within `counted` by whole batches.

    Its variables are in the order of `model`'s. One that learns no statistics is given back as it is.
    """
    if not statistics_of(model):
        return model

    def counting(layer: keras.Layer) -> keras.Layer:
        known = type(layer) is keras.layers.BatchNormalization
        return (_CountedBatchNormalization if known else type(layer)).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=counting)
    copy.set_weights(model.get_weights())
    return copy


@contextmanager
def counted(weights: Any, *, everywhere: bool = True) -> Iterator[None]:
    """Within, the records of a replica are those of `[batch]` weights above 0, and statistics those of all replicas.

    Not `everywhere`, they are of this replica's records: within a loop or a compilation replicas can't talk.
    """
    _step.present, _step.everywhere = tf.cast(weights > 0, tf.float32), everywhere
    try:
        yield
    finally:
        _step.present = None


class _CountedBatchNormalization(keras.layers.BatchNormalization):  # type: ignore[misc]
    """Outside of `counted` it does what Keras's own does. Its statistics are of float32, whatever the precision."""

    def _moments(self, inputs: Any, mask: Any) -> tuple[Any, Any]:
        """The mean and variance of each channel, the last axis of `inputs`."""
        present = getattr(_step, "present", None)
        if present is None:
            return super()._moments(inputs, mask)  # type: ignore[no-any-return]
        places = list(range(1, len(inputs.shape) - 1))
        rows = (tf.reduce_sum(inputs, places), tf.reduce_sum(tf.square(inputs), places))
        numbers = tf.reduce_sum(present) * float(np.prod([inputs.shape[axis] for axis in places]))
        # No matrix product, which GPUs would compute with ten bits.
        sums = tf.concat([*(tf.reduce_sum(row * present[:, tf.newaxis], 0) for row in rows), [numbers]], axis=0)
        replicas = tf.distribute.get_replica_context()
        if _step.everywhere and replicas.num_replicas_in_sync > 1:
            sums = replicas.all_reduce(tf.distribute.ReduceOp.SUM, sums)
        total, squares, count = tf.split(sums, [inputs.shape[-1], inputs.shape[-1], 1])
        mean = tf.math.divide_no_nan(total, count)
        variance = tf.maximum(tf.math.divide_no_nan(squares, count) - tf.square(mean), 0.0)
        # Where there is no record at all nothing is learnt of records.
        return tf.where(count > 0, mean, self.moving_mean), tf.where(count > 0, variance, self.moving_variance)


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
