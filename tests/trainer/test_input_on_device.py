"""Augmentation inside the training step: the same batches as before it, on one replica and on two."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.manifest import Manifest
from tests.trainer.conftest import SIZE
from trainer.augment_config import Augmentation, Mixing
from trainer.input_pipeline import Layout, TrainInput, finish_on_device, train_batches
from trainer.order import TrainOrder
from trainer.records import RecordReader

Dataset = tuple[Path, Manifest]
EVERYTHING = Augmentation(quarter_turns=True, stain=0.1, blur_px=1.0, cutout=0.2)
STEPS = 2
CHANGES = {
    "the seed's": (SIZE, Augmentation(), Mixing()),
    "all, mixed": (SIZE, EVERYTHING, Mixing(mixup=0.4, cutmix=1.0)),
    "resized": (48, Augmentation(stain=0.1, cutout=0.4), Mixing(mixup=0.4)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_step_finishes_what_the_host_would_have(
    strategy: tf.distribute.Strategy, dataset: Dataset, change: str
) -> None:
    size, augmentation, mixing = CHANGES[change]
    how = TrainInput(size, augmentation, 1, mixing)
    later = TrainInput(size, augmentation, 1, mixing, on_device=True)
    finish = finish_on_device(later)
    reader, replicas = RecordReader(*dataset, "train"), strategy.num_replicas_in_sync
    order, layout = TrainOrder(len(reader), 9, seed=1), Layout(replicas, 0, replicas)
    first = order.steps_per_epoch - 1  # the last step of an epoch is padded
    traced = []

    def batches(how: TrainInput) -> tf.data.Dataset:
        return train_batches(reader, order, how, layout, start_step=first, stop_step=first + STEPS)

    @tf.function
    def step(batch: Any) -> Any:
        traced.append(batch)
        return strategy.run(finish, args=(batch,))

    parts = []
    for batch in strategy.distribute_datasets_from_function(lambda context: batches(later)):
        images = strategy.experimental_local_results(batch["image"])
        assert tuple(image.device for image in images) == strategy.extended.worker_devices  # copied there already
        unfinished = images[0]
        assert unfinished.dtype == (tf.uint8 if size == SIZE else tf.float32)
        assert unfinished.shape[0] == layout.per_replica(9) * (2 if mixing.on else 1)
        done = step(batch)
        results = {name: strategy.experimental_local_results(values) for name, values in done.items()}
        parts += [{name: values[i].numpy() for name, values in results.items()} for i in range(replicas)]
    assert len(traced) == 1
    expected = list(batches(how).as_numpy_iterator())
    assert len(parts) == len(expected) == STEPS * replicas
    for ours, theirs in zip(parts, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert np.abs(ours.pop("image") - theirs["image"]).max() < 1e-5
        assert all((ours[name] == theirs[name]).all() for name in ours)
