"""Which records step n sees, and in which order: a pure function of (seed, epoch, step).

    order = TrainOrder(records=546, batch_size=128, seed=0)
    epoch, indices = order.batch(step=17)

An epoch is a permutation of all records: the records sorted by a hash of (seed, epoch, index). It is cut into batches
of `batch_size`; the last one is what remains. So resuming at any step is arithmetic: nothing is replayed, no state is
kept, and the number of replicas, workers and restarts plays no part.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trainer.randomness import hash64


@dataclass(frozen=True, slots=True)
class TrainOrder:
    """The order of `records` records in batches of `batch_size`, epoch after epoch."""

    records: int
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.records // self.batch_size)

    def batch(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """(epoch, record indices) of global step `step`, both counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        start = place * self.batch_size
        return epoch, epoch_order(self.records, self.seed, epoch)[start : start + self.batch_size]


@lru_cache(maxsize=2)
def epoch_order(records: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """All record indices in the order in which `epoch` sees them."""
    order = np.argsort(hash64(seed, epoch, np.arange(records, dtype=np.int64)), kind="stable")
    order.flags.writeable = False
    return order


def spread(indices: NDArray[np.int64], *, replicas: int, per_replica: int) -> NDArray[np.int64]:
    """A batch laid out for its replicas: `[replicas, per_replica]`, -1 where there is no record.

    Replica r gets the records r, r + replicas, …, so that a short last batch leaves no replica without work.
    """
    padded = np.full(replicas * per_replica, -1, dtype=np.int64)
    padded[: len(indices)] = indices
    return np.ascontiguousarray(padded.reshape(per_replica, replicas).T)
