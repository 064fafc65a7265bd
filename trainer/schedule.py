"""The learning rate of each step: a pure function of the step's number, times the highest rate.

    course = Course(steps=1000, warmup=50, falls=True)
    course.factor(0), course.factor(49), course.factor(999)     # 0.02, 1.0, nearly 0
    rate = ScheduledRate(course)
    optimizer = AdamW(rate)
    rate.belong_to(optimizer, highest=1e-3)

Warm-up is linear (Goyal et al. 2017, "Accurate, large minibatch SGD"), the fall half a cosine (Loshchilov, Hutter 2017,
"SGDR"). The highest rate is a variable of the optimizer: it is saved, restored and rolled back with it.
"""

import math
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf


@dataclass(frozen=True, slots=True)
class Course:
    """How the rate goes over `steps` steps.

    It rises over the first `warmup` of them and, if it `falls`, then falls to 0. Where a part is frozen at first, the
    rate is constant for `frozen` steps; what is left is a course of its own, at `then` times the rate.
    """

    steps: int
    warmup: int = 0
    falls: bool = False
    frozen: int = 0
    then: float = 1.0

    def factor(self, step: Any) -> Any:
        """The share of the highest rate in `step`, counted from 0: a scalar of float32, from a number or a tensor."""
        step = tf.cast(step, tf.float32)
        place = step - self.frozen
        left = max(self.steps - self.frozen - self.warmup, 1)
        rising = tf.minimum((place + 1) / max(self.warmup, 1), 1.0)
        done = tf.clip_by_value((place - self.warmup) / left, 0.0, 1.0)
        falling = (1 + tf.cos(math.pi * done)) / 2 if self.falls else 1.0
        return tf.where(place < 0, 1.0, self.then * rising * falling)


class ScheduledRate(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """What a Keras optimizer asks for its rate."""

    def __init__(self, course: Course) -> None:
        super().__init__()
        self._course = course
        self._highest: Any = None

    def belong_to(self, optimizer: keras.optimizers.Optimizer, *, highest: float) -> None:
        """Make the highest rate a variable of `optimizer`. Before `optimizer.build`, in the strategy's scope."""
        constant = keras.initializers.Constant(highest)
        self._highest = optimizer.add_variable(
            (), constant, "float32", aggregation="only_first_replica", name="highest_learning_rate"
        )
        optimizer.schedule = self

    @property
    def highest(self) -> Any:
        """The variable that says how fast the optimizer learns at most."""
        return self._highest

    def __call__(self, step: Any) -> Any:
        return tf.convert_to_tensor(self._highest) * self._course.factor(step)


def highest_rate(optimizer: keras.optimizers.Optimizer) -> Any:
    """The variable that says how fast `optimizer` learns at most."""
    schedule = getattr(optimizer, "schedule", None)
    return schedule.highest if schedule else optimizer.learning_rate


def last_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The learning rate of the step that was taken last."""
    schedule = getattr(optimizer, "schedule", None)
    last = schedule(tf.maximum(tf.convert_to_tensor(optimizer.iterations) - 1, 0)) if schedule else None
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate if last is None else last))
