"""Several steps in one call: the same bits as one by one, and no step more than there should be."""

import math
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.models import build_model
from trainer.step import make_train_step
from trainer.step_calls import CALL_S, FIRST, MEASURED, WORTH_STEPS, StepCalls

SIZE_PX, BATCH, STEPS = 32, 4, 7
BROKEN = 5  # the batch whose images are no numbers; replicas take batches in turn


class Training:
    """A small network and the batches of its steps."""

    def __init__(self, strategy: tf.distribute.Strategy, *, wanted: int, broken: bool = False) -> None:
        with strategy.scope():
            keras.utils.set_random_seed(0)
            self.model = build_model("seed_pooled", image_size=SIZE_PX, classes=3)
            optimizer = keras.optimizers.Adamax(1e-3)
            optimizer.build(self.model.trainable_variables)
        rng, replicas = np.random.default_rng(0), strategy.num_replicas_in_sync
        images = rng.random((STEPS, BATCH, SIZE_PX, SIZE_PX, 3), dtype=np.float32)
        images[BROKEN - 1] = math.nan if broken else images[BROKEN - 1]
        labels, weights = rng.integers(0, 3, (STEPS, BATCH)), np.full((STEPS, BATCH), 1 / BATCH / replicas, np.float32)
        batches = tf.data.Dataset.from_tensor_slices({"image": images, "label": labels, "weight": weights})
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        batches = batches.repeat(replicas).with_options(options)
        self.batches = iter(strategy.distribute_datasets_from_function(lambda context: batches))
        self.calls = StepCalls(make_train_step(strategy, self.model, optimizer), wanted=wanted, alone=True)

    def take(self, most: int) -> list[list[float]]:
        return self.calls.take(self.batches, False, most=most, left=STEPS)

    def weights(self) -> list[Any]:
        return self.model.get_weights()  # type: ignore[no-any-return]


def test_steps_put_together_are_bit_identical_to_steps_taken_one_by_one(strategy: tf.distribute.Strategy) -> None:
    alone, together = Training(strategy, wanted=1), Training(strategy, wanted=4)
    one_by_one = [row for _ in range(STEPS) for row in alone.take(STEPS)]
    in_calls = [together.take(STEPS), together.take(STEPS - 4)]
    assert [len(rows) for rows in in_calls] == [4, 3]
    assert [row[:5] for row in one_by_one] == [row[:5] for rows in in_calls for row in rows]
    assert all(0 <= row[5] < 60 for rows in in_calls for row in rows)
    for ours, theirs in zip(alone.weights(), together.weights(), strict=True):
        assert (ours == theirs).all()


def test_a_call_ends_after_the_step_that_breaks(strategy: tf.distribute.Strategy) -> None:
    alone, together = Training(strategy, wanted=1, broken=True), Training(strategy, wanted=STEPS, broken=True)
    rows, expected = together.take(STEPS), math.ceil(BROKEN / strategy.num_replicas_in_sync)
    assert len(rows) == expected
    assert [row[4] > 0 for row in rows] == [False] * (expected - 1) + [True]
    for _ in range(expected):
        alone.take(STEPS)
    for ours, theirs in zip(alone.weights(), together.weights(), strict=True):
        assert np.array_equal(ours, theirs, equal_nan=True)


@pytest.mark.parametrize(
    ("step_s", "left", "alone", "expected"),
    [
        (0.005, WORTH_STEPS, True, int(CALL_S / 0.005)),
        (0.005, WORTH_STEPS - 1, True, 1),  # compiling anew would take longer than it saves
        (0.5, WORTH_STEPS, True, 1),
        (0.005, WORTH_STEPS, False, 1),
    ],
)
def test_short_steps_are_put_together_where_that_pays(step_s: float, left: int, alone: bool, expected: int) -> None:
    calls = StepCalls(lambda batch, stop: tf.zeros(5), wanted=0, alone=alone)
    for seconds in (9.0,) * FIRST + (step_s,) * MEASURED:  # the first ones compile
        assert calls.count(left) == 1
        calls.measured(seconds)
    assert calls.count(left) == expected
