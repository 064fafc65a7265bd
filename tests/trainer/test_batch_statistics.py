"""Batch normalisation is by whole batches and no padding, and remembers one thing, however many replicas there are."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.trainer.conftest import SIZE
from tests.trainer.jobs import Dataset, job_of
from tests.trainer.test_learning import config_of
from trainer.averaging import averaged_copy
from trainer.batch_statistics import counted, of_whole_batches, statistics_of
from trainer.checkpoints import Progress
from trainer.loop import train
from trainer.model_ends import ended, image_input
from trainer.models import build_model
from trainer.preemption import StopSignal
from trainer.step import Update, make_train_step
from trainer.trainable import trainable


def normalised() -> keras.Model:
    image = image_input(SIZE)
    convolved = layers.Conv2D(4, 5, strides=4, use_bias=False)(image)
    features = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.BatchNormalization(momentum=0.5)(convolved)))
    return ended(image, features, 3, name="normalised")


def test_what_batches_were_like_is_the_same_on_every_replica(
    dataset: Dataset, tmp_path: Path, strategy: tf.distribute.Strategy
) -> None:
    with strategy.scope():
        model = normalised()
        average, optimizer = averaged_copy(model), keras.optimizers.Adamax(1e-3)
        optimizer.build(model.trainable_variables)
    before = model.get_weights()
    changes = {"model": model, "average": average, "optimizer": optimizer, "update": Update(ema=0.9)}
    train(job_of(dataset, tmp_path, StopSignal(), strategy=strategy, **changes), Progress())
    for variable in (*model.variables, *average.variables):
        first, *others = (np.asarray(copy) for copy in strategy.experimental_local_results(variable.value))
        assert all((first == other).all() for other in others), variable.path
    assert all((was != now).any() for was, now in zip(before, model.get_weights(), strict=True))


RECORDS, ROWS = 5, 8
IMAGES = np.random.default_rng(0).random((RECORDS, SIZE, SIZE, 3), dtype=np.float32)


def rows_of(count: int) -> dict[str, np.ndarray]:
    """A batch of `RECORDS`, padded to `count` rows as the input pipeline does it."""
    numbers = np.append(np.arange(RECORDS), np.zeros(count - RECORDS, np.int64))
    weight = np.append(np.full(RECORDS, 1 / RECORDS), np.zeros(count - RECORDS)).astype(np.float32)
    return {"image": IMAGES[numbers], "label": numbers % 3, "weight": weight, "index": numbers}


def after_a_step(strategy: tf.distribute.Strategy, model: keras.Model, rows: dict[str, Any], **how: Any) -> list[Any]:
    with strategy.scope():
        optimizer = keras.optimizers.SGD(0.1)
        optimizer.build(model.trainable_variables)
    step = make_train_step(strategy, model, optimizer, Update(**how))
    batches = tf.data.Dataset.from_tensor_slices(rows).batch(len(rows["label"]))
    for batch in strategy.experimental_distribute_dataset(batches):
        step(batch, tf.constant(0.0))
    return model.get_weights()  # type: ignore[no-any-return]


def test_a_step_is_that_of_keras_on_one_device_without_padding(strategy: tf.distribute.Strategy) -> None:
    keras.utils.set_random_seed(0)
    model = build_model("residual_batch", image_size=SIZE, classes=3)
    with strategy.scope():
        ours = of_whole_batches(model)
    before = model.get_weights()
    found = after_a_step(strategy, ours, rows_of(ROWS))
    expected = after_a_step(tf.distribute.OneDeviceStrategy("CPU:0"), model, rows_of(RECORDS))
    for old, one, other in zip(before, found, expected, strict=True):
        assert np.allclose(one - old, other - old, atol=2e-3 * np.abs(other - old).max() + 1e-5)
    assert len(statistics_of(ours)) > 10


def test_a_fresh_backbone_learns_by_whole_batches_too() -> None:
    learner = trainable(config_of(model="MobileNetV2", image_size=32), classes=3, steps_per_epoch=1)
    layers_of = [layer for layer in learner.model.layers if isinstance(layer, layers.BatchNormalization)]
    assert {type(layer).__name__ for layer in layers_of} == {"_CountedBatchNormalization"}


@pytest.mark.parametrize("how", [{"accumulate": 4}, {"xla": True}])
def test_in_parts_or_compiled_it_is_by_what_there_is(strategy: tf.distribute.Strategy, how: dict[str, Any]) -> None:
    with strategy.scope():
        model = of_whole_batches(normalised())
    weights = after_a_step(strategy, model, rows_of(ROWS), **how)
    moving = dict(zip((one.path.rpartition("/")[2] for one in model.variables), weights, strict=True))
    assert all(np.isfinite(values).all() for values in weights)
    assert (moving["moving_variance"] > 0).all()  # a part that is padding alone would draw it to nothing


def test_where_nothing_is_counted_it_is_the_layer_of_keras() -> None:
    model = normalised()
    ours = of_whole_batches(model)
    assert (np.asarray(model(IMAGES, training=True)) == np.asarray(ours(IMAGES, training=True))).all()
    with counted(tf.constant([1.0, 1, 0, 0, 0])):
        some = ours(IMAGES, training=True)
    assert np.allclose(some[:2], ours(IMAGES[:2], training=True), atol=1e-5)
    assert of_whole_batches(build_model("seed_pooled", image_size=SIZE, classes=3)).name == "seed_pooled"
