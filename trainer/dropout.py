"""Dropout whose mask is a function of (seed, step, record, feature) alone: not of batch, replica or restart.

    kept = dropped(features, indices, share=0.2, seed=0, step=step)

N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", 2014. Elsewhere the mask
comes from the state of a generator, so that it depends on how a batch is laid out over replicas.
"""

from typing import Any

import tensorflow as tf

# The finaliser of MurmurHash3 (A. Appleby) over the mixed-in parts of the key, as in `randomness.py`.
_GOLDEN, _FIRST, _SECOND = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35
_MANTISSA_BITS = 24


def dropped(features: Any, indices: Any, *, share: float, seed: int, step: Any) -> Any:
    """`[n, features]` with about `share` of them 0 and the others larger; `indices` `[n]` are the records' numbers."""
    kept = tf.cast(_uniform(indices, features.shape[1], seed=seed, step=step) >= share, features.dtype)
    return features * kept / tf.cast(1 - share, features.dtype)


def _uniform(indices: Any, columns: int, *, seed: int, step: Any) -> Any:
    """`[len(indices), columns] float32` in [0, 1)."""
    key = _mixed(_mixed(tf.constant(seed, tf.uint32)) + tf.cast(step, tf.uint32))
    rows = _mixed(key + tf.cast(indices, tf.uint32))
    bits = _mixed(rows[:, None] + tf.cast(tf.range(columns), tf.uint32)[None, :])
    return tf.cast(_shifted(bits, 32 - _MANTISSA_BITS), tf.float32) / float(1 << _MANTISSA_BITS)


def _mixed(state: Any) -> Any:
    state = _folded(state + _GOLDEN, 16) * _FIRST
    return _folded(_folded(state, 13) * _SECOND, 16)


def _folded(state: Any, bits: int) -> Any:
    return tf.bitwise.bitwise_xor(state, _shifted(state, bits))


def _shifted(state: Any, bits: int) -> Any:
    return tf.bitwise.right_shift(state, tf.constant(bits, tf.uint32))
