"""What batch normalisation remembers is one thing, however many replicas there are."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.trainer.conftest import SIZE
from tests.trainer.jobs import Dataset, job_of
from trainer.averaging import averaged_copy
from trainer.checkpoints import Progress
from trainer.loop import train
from trainer.model_ends import ended, image_input
from trainer.preemption import StopSignal
from trainer.step import Update


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
