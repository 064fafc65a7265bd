"""Ways to feed training that need nothing but what is installed for tests, each measured in a process of its own.

python -m tests.benchmarks.feeding WAY DATASET FILES SIZE BATCH  # prints a line of JSON, as `peers.py` reads it
"""

import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trainer  # noqa: F401  # isort: skip  # tells TensorFlow what to use, before it is imported
from trainer.allocation import keep_freed_memory  # isort: skip

keep_freed_memory()  # as python -m trainer does, before TensorFlow starts threads

import keras
import numpy as np
import tensorflow as tf

from data_pipeline.manifest import Manifest
from trainer.augment_config import Augmentation
from trainer.decoded_cache import choose_cache
from trainer.input_pipeline import Decoded, Layout, TrainInput, train_batches
from trainer.order import TrainOrder
from trainer.records import RecordReader
from trainer.scratch import Scratch

WARM_UP = 3
BATCHES, THEIR_BATCHES, SLOWEST_BATCHES = 60, 12, 4
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Task:
    """The same images twice: `dataset` holds our TFRecords, `files` the JPEG files that are their bytes."""

    dataset: Path
    files: Path
    size_px: int
    batch: int

    def reader(self) -> RecordReader:
        return RecordReader(self.dataset, Manifest.load(self.dataset), "train")

    def encoded(self) -> tf.Tensor:
        return tf.constant([path.read_bytes() for path in sorted(self.files.rglob("*.jpg"))])


def ours(task: Task, reader: RecordReader | Decoded, *, steps: int = WARM_UP + BATCHES) -> Iterable[int]:
    """Read, decoded and augmented."""
    how = TrainInput(task.size_px, Augmentation(), seed=0)
    order = TrainOrder(len(reader), task.batch, seed=0)
    for batch in train_batches(reader, order, how, Layout(), start_step=0, stop_step=steps):
        yield int((batch["weight"] > 0).numpy().sum())


def kept_decoded(task: Task) -> Iterable[int]:
    """The same, kept in memory since an epoch before, which decoded them."""
    with tempfile.TemporaryDirectory() as folder:
        reader, scratch = task.reader(), Scratch.of(folder, "1GB")
        cache = choose_cache(reader, mode="decoded", budget_bytes=2 * 10**9, scratch=scratch, name="gland")
        assert cache
        for _ in ours(task, cache, steps=-(-len(cache) // task.batch)):
            pass
        yield from ours(task, cache)


def decoding(task: Task) -> Iterable[int]:
    """Decoded from memory on all cores and nothing else, not even put into a batch."""

    def some(encoded: Any) -> Any:
        rows = [tf.shape(tf.io.decode_jpeg(encoded[i], 3))[0] for i in range(AT_ONCE)]
        return tf.reduce_sum(tf.stack(rows) // task.size_px)

    images = tf.data.Dataset.from_tensor_slices(task.encoded()).repeat()
    calls = images.batch(AT_ONCE, drop_remainder=True).map(some, num_parallel_calls=tf.data.AUTOTUNE)
    for count in calls.prefetch(2).take((WARM_UP + BATCHES) * task.batch // AT_ONCE):
        yield int(count)


def layers(task: Task) -> Iterable[int]:
    """Decoded and augmented by Keras's preprocessing layers in tf.data, a batch at a time."""
    factor = (-0.2, 0.2)
    augment = keras.Sequential(
        [
            keras.layers.RandomRotation(30 / 360, fill_mode="nearest"),
            keras.layers.RandomTranslation(0.15, 0.15, fill_mode="nearest"),
            keras.layers.RandomZoom(factor, factor, fill_mode="nearest"),
            keras.layers.RandomFlip(),
            keras.layers.RandomBrightness(0.5, value_range=(0, 1)),
        ]
    )

    def one(data: tf.Tensor) -> tf.Tensor:
        pixels = tf.ensure_shape(tf.io.decode_jpeg(data, 3), [task.size_px, task.size_px, 3])
        return tf.cast(pixels, tf.float32) / 255

    images = tf.data.Dataset.from_tensor_slices(task.encoded()).repeat()
    batches = images.map(one, num_parallel_calls=tf.data.AUTOTUNE).batch(task.batch)
    batches = batches.map(lambda batch: augment(batch, training=True), num_parallel_calls=tf.data.AUTOTUNE)
    for batch in batches.prefetch(2).take(WARM_UP + THEIR_BATCHES):
        yield len(batch)


def generator(task: Task) -> Iterable[int]:
    """Read, decoded and augmented by `ImageDataGenerator`, as the notebooks did that this project replaces."""
    augment = keras.src.legacy.preprocessing.image.ImageDataGenerator(
        rotation_range=30,
        width_shift_range=0.15,
        height_shift_range=0.15,
        zoom_range=0.2,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(0.5, 1.5),
        rescale=1 / 255,
    )
    size = (task.size_px, task.size_px)
    with contextlib.redirect_stdout(io.StringIO()):  # it says how many files it found
        batches = augment.flow_from_directory(str(task.files), target_size=size, batch_size=task.batch)
    for _ in range(WARM_UP + SLOWEST_BATCHES):
        yield len(next(batches)[0])


WAYS: dict[str, Callable[[Task], Iterable[int]]] = {
    "files": lambda task: ours(task, task.reader()),
    "kept": kept_decoded,
    "decoding": decoding,
    "layers": layers,
    "generator": generator,
}


def measure(counts: Iterable[int]) -> dict[str, float]:
    """Images a second and CPU time an image, after the first batches."""
    steps = iter(counts)
    for _ in range(WARM_UP):
        next(steps)
    wall, cpu = time.perf_counter(), time.process_time()
    seen = int(np.sum(list(steps)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"images_per_s": seen / wall, "cpu_ms": cpu / seen * 1e3}


def main() -> None:
    way, dataset, files, size_px, batch = sys.argv[1:]
    task = Task(Path(dataset), Path(files), int(size_px), int(batch))
    print(json.dumps(measure(WAYS[way](task))))


if __name__ == "__main__":
    main()
