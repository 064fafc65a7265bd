"""Random numbers that are a function of what they are for, not of when they are drawn. Pure.

    uniform(seed, epoch, record_indices, draws=7)  # [records, 7] float64 in [0, 1)

A counter-based generator: SplitMix64's finaliser (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators") over the mixed-in key parts. The stream is fixed by this file alone, not by a NumPy or TensorFlow version.
"""

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_MANTISSA_BITS = 53


def hash64(*parts: int | NDArray[np.int64]) -> NDArray[np.uint64]:
    """A well mixed 64-bit number for each combination of `parts`, which broadcast against each other."""
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in parts:
            state = _mix(state + _GOLDEN + np.asarray(part, dtype=np.int64).astype(np.uint64))
    return state


def uniform(
    seed: int, epoch: int, indices: NDArray[np.int64], *, draws: int, stream: int | None = None
) -> NDArray[np.float64]:
    """`[len(indices), draws]` numbers in [0, 1): row i depends on (seed, epoch, indices[i]) and `stream` alone."""
    key = (seed, epoch) if stream is None else (stream, seed, epoch)
    bits = hash64(*key, indices[:, None], np.arange(draws, dtype=np.int64)[None, :])
    return (bits >> np.uint64(64 - _MANTISSA_BITS)) / float(1 << _MANTISSA_BITS)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    return np.asarray(state ^ (state >> np.uint64(31)))
