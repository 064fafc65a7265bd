"""The loss of each record, and what each class weighs in it.

loss = Loss(smoothing=0.1, class_weights=class_weights("balanced", [142, 141, 7]))
loss.of(batch, logits)              # [n] float32
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.learning_config import BALANCED, EFFECTIVE, ROOT

SAMPLES_THAT_OVERLAP = 0.999  # β of Cui et al.: their middle one, for classes of some hundred to some thousand images


@dataclass(frozen=True, slots=True)
class Loss:
    """Cross-entropy with label smoothing (C. Szegedy et al. 2016, "Rethinking the inception architecture").

    `class_weights`, if there are any, multiply the loss of each record by what its class weighs.
    """

    smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()

    def of(self, batch: dict[str, Any], logits: Any, *, of_team: bool = False) -> Any:
        """`[n] float32` of `logits` `[n, classes]`; of two labels that share an image, each in its share.

        `of_team` are the mean of several networks' log-probabilities: the loss is the mean of theirs, so that each
        learns by its own errors. By those of their common answer they'd learn to rely on each other, and err together
        (A. Jeffares et al. 2023, "Joint training of deep ensembles fails due to learner collusion").
        """
        logs = logits if of_team else tf.nn.log_softmax(logits)
        losses = self._for(batch["label"], logs)
        if "share" not in batch:
            return losses
        others = self._for(batch["partner_label"], logs)
        return batch["share"] * losses + (1.0 - batch["share"]) * others

    def _for(self, labels: Any, logs: Any) -> Any:
        losses = -tf.reduce_sum(tf.one_hot(labels, logs.shape[1]) * logs, axis=1)
        if self.smoothing:
            losses = (1.0 - self.smoothing) * losses - self.smoothing * tf.reduce_mean(logs, axis=1)
        return losses * tf.gather(tf.constant(self.class_weights), labels) if self.class_weights else losses


def class_weights(kind: str, counts: Sequence[int]) -> tuple[float, ...]:
    """What each class weighs, for `counts` records in training; their mean over records is 1. `()` for none.

    `balanced`: all classes weigh the same together. `root`: as their roots do, as in the square-root sampling of
    D. Mahajan et al. 2018, "Exploring the limits of weakly supervised pretraining". `effective`: by the effective
    number of samples, which grows ever more slowly (Y. Cui et al. 2019, "Class-balanced loss based on effective number
    of samples"). A class without records weighs nothing.
    """
    if kind not in (BALANCED, ROOT, EFFECTIVE):
        return ()
    records = np.asarray(counts, dtype=np.float64)
    there = records > 0
    number = {
        BALANCED: records,
        ROOT: np.sqrt(records),
        EFFECTIVE: (1 - SAMPLES_THAT_OVERLAP**records) / (1 - SAMPLES_THAT_OVERLAP),
    }[kind]
    weights = np.where(there, 1 / np.where(there, number, 1), 0.0)
    return tuple((weights * records.sum() / (weights @ records)).tolist())
