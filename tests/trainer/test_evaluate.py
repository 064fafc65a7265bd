"""Evaluation pairs each prediction with its own label."""

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.manifest import Manifest
from tests.trainer.conftest import SIZE
from trainer.cluster import layout_of
from trainer.evaluate import make_evaluation_step, predict_split
from trainer.metrics import compute_metrics
from trainer.records import RecordReader

Dataset = tuple[Path, Manifest]


def colour_model() -> keras.Model:
    """Knows the truth: of the three test classes (blue, green, red), the one whose channel is brightest."""
    image = keras.layers.Input([SIZE, SIZE, 3])
    mean = keras.layers.GlobalAveragePooling2D()(image)
    dense = keras.layers.Dense(3, activation="softmax")
    model = keras.Model(image, dense(mean))
    dense.set_weights([200 * np.eye(3)[::-1].astype(np.float32), np.zeros(3, np.float32)])
    return model


@pytest.mark.parametrize("batch_size", [1, 2, 5, 16, 17, 40, 500])
def test_a_perfect_model_scores_exactly_one(
    dataset: Dataset, strategy: tf.distribute.Strategy, batch_size: int
) -> None:
    """With tails of every kind: 1 to 500 images a batch over 72 records, on one replica and on two."""
    folder, manifest = dataset
    reader = RecordReader(folder, manifest, "validation")
    with strategy.scope():
        model = colour_model()
    step = make_evaluation_step(strategy, model)
    predictions = predict_split(
        strategy, step, reader, batch_size=batch_size, image_size=SIZE, layout=layout_of(strategy)
    )
    assert len(predictions.labels) == len(reader)
    metrics = compute_metrics(predictions, manifest.classes)
    assert metrics["accuracy"] == metrics["balanced_accuracy"] == metrics["macro_f1"] == 1.0
    for name, label in zip(predictions.ids, predictions.labels, strict=True):
        assert name.startswith(manifest.classes[label])


def test_a_reader_in_another_order_changes_no_pair(dataset: Dataset, strategy: tf.distribute.Strategy) -> None:
    """Shuffled shards: predictions follow their records."""
    folder, manifest = dataset
    reader = RecordReader(folder, manifest, "train")
    with strategy.scope():
        model = colour_model()
    step = make_evaluation_step(strategy, model)
    size = {"batch_size": 13, "image_size": SIZE, "layout": layout_of(strategy)}
    straight = predict_split(strategy, step, reader, **size)
    reordered = replace(manifest, shards=tuple(reversed(manifest.shards)))
    backwards = predict_split(strategy, step, RecordReader(folder, reordered, "train"), **size)
    assert straight.ids != backwards.ids
    ours = dict(zip(straight.ids, straight.probabilities.tolist(), strict=True))
    theirs = dict(zip(backwards.ids, backwards.probabilities.tolist(), strict=True))
    assert ours.keys() == theirs.keys()
    assert all(np.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


@pytest.mark.parametrize("harm", ["missing", "twice", "label"])
def test_a_lost_doubled_or_mislabelled_prediction_is_an_error(dataset: Dataset, harm: str) -> None:
    reader = RecordReader(*dataset, "validation")
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        honest = make_evaluation_step(strategy, colour_model())

    def crooked(batch):
        table = np.array(honest(batch))
        if harm == "missing":
            table[0, 1] = 0
        elif harm == "twice":
            table[0, 0] = table[1, 0]
        else:
            table[0, 2] = (table[0, 2] + 1) % 3
        return table

    with pytest.raises(RuntimeError, match="Evaluation"):
        predict_split(strategy, crooked, reader, batch_size=16, image_size=SIZE, layout=layout_of(strategy))
