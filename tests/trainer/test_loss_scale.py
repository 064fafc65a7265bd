"""The factor on the loss in float16: no replica goes its own way, and nothing is lost by an interruption."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.trainer.test_step import ALONE, TWO, strategy_of
from trainer.checkpoints import Checkpoints, Progress
from trainer.loss_scale import FIRST, GREATEST, GROWTH_STEPS, LEAST, LossScale
from trainer.models import build_model
from trainer.step import make_train_step

SIZE, BATCH = 32, 8


class Training:
    """A network with its step, to be given batches one after another."""

    def __init__(self, where: str, precision: str, *, first: float = FIRST) -> None:
        self.strategy = strategy_of(where)
        keras.utils.set_random_seed(0)
        with self.strategy.scope():
            self.model = build_model("seed_pooled", image_size=SIZE, classes=3, precision=precision)
            self.optimizer = keras.optimizers.SGD(0.1)
            self.scale = LossScale(self.optimizer, first=first) if precision == "float16" else None
            self.optimizer.build(self.model.trainable_variables)
        self.step = make_train_step(self.strategy, self.model, self.optimizer, scale=self.scale)

    def run(self, images: np.ndarray, *, weight: float = 1.0) -> np.ndarray:
        """One step on `images`, of which each replica gets its share in their order; the sums it gives."""
        rows = len(images) // self.strategy.num_replicas_in_sync
        batch: dict[str, Any] = {
            "image": images,
            "label": np.arange(len(images)) % 3,
            "index": np.arange(len(images)),
            "weight": np.full(len(images), weight / len(images), np.float32),
        }
        dataset = tf.data.Dataset.from_tensor_slices(batch).batch(rows, drop_remainder=True)
        batches = self.strategy.distribute_datasets_from_function(lambda context: dataset)
        return np.array(self.step(next(iter(batches)), tf.constant(0.0)))

    def weights(self) -> np.ndarray:
        return np.concatenate([np.ravel(weights) for weights in self.model.get_weights()])


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((BATCH, SIZE, SIZE, 3), dtype=np.float32)


@pytest.mark.parametrize("where", [ALONE, TWO])
def test_a_step_in_float16_is_that_of_float32_within_its_rounding(where: str, images: np.ndarray) -> None:
    plain, scaled = Training(ALONE, "float32"), Training(where, "float16")
    before = plain.weights()
    sums = plain.run(images), scaled.run(images)
    moved = plain.weights() - before
    assert np.linalg.norm(scaled.weights() - plain.weights()) < 0.05 * np.linalg.norm(moved)
    assert sums[1][0] == pytest.approx(sums[0][0], rel=1e-2)


def test_what_overflows_on_one_replica_is_left_out_on_all(images: np.ndarray) -> None:
    images[BATCH // 2 :] = 0.0  # of black images the second replica gets gradients of a bias alone, which are small
    training = Training(TWO, "float16", first=2.0**20)
    before = training.weights()
    assert training.scale
    for halvings in (1, 2):
        sums = training.run(images * 50)
        assert np.isfinite(sums).all()
        assert sums[4] == 0.0
        assert float(training.scale.factor) == 2.0**20 / 2**halvings
        assert int(training.optimizer.iterations.numpy()) == 0
        assert np.array_equal(training.weights(), before)
    training.run(images / 50)
    assert int(training.optimizer.iterations.numpy()) == 1
    assert not np.array_equal(training.weights(), before)


def test_gradients_that_no_factor_makes_finite_are_told(images: np.ndarray) -> None:
    training = Training(ALONE, "float16", first=LEAST)
    sums = training.run(images * 6e4, weight=1e3)
    assert np.isfinite(sums[0])
    assert sums[4] == 1.0


def test_the_factor_grows_after_many_good_steps_and_not_beyond_bounds() -> None:
    optimizer = keras.optimizers.SGD()
    scale = LossScale(optimizer, first=4.0)
    update = tf.function(scale.update)
    factors = []
    for finite in [*[True] * GROWTH_STEPS, False, *[True] * (GROWTH_STEPS - 1), False]:
        update(tf.constant(finite))
        factors.append(float(scale.factor))
    assert factors[GROWTH_STEPS - 2] == 4.0
    assert factors[GROWTH_STEPS - 1 :] == [8.0, *[4.0] * GROWTH_STEPS, 2.0]
    for end, finite in ((LEAST, False), (GREATEST, True)):
        scale = LossScale(keras.optimizers.SGD(), first=end)
        scale._good_steps.assign(GROWTH_STEPS)
        scale.update(tf.constant(finite))
        assert float(scale.factor) == end


def test_a_checkpoint_brings_the_factor_back(tmp_path: Path, images: np.ndarray) -> None:
    training = Training(ALONE, "float16", first=2.0**24)
    training.run(images)
    assert training.scale
    assert float(training.scale.factor) < 2.0**24
    Checkpoints(tmp_path, training.model, training.optimizer).save(Progress(step=1))
    again = Training(ALONE, "float16")
    Checkpoints(tmp_path, again.model, again.optimizer).restore_last()
    assert again.scale
    assert float(again.scale.factor) == float(training.scale.factor)
    assert np.array_equal(again.run(images), training.run(images))
    assert np.array_equal(again.weights(), training.weights())
