"""How fast training is fed, beside others and bare decoding: `python -m tests.benchmarks.input` prints the table."""

import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from data_pipeline.conversion import Conversion
from data_pipeline.grouping import parse_rule
from data_pipeline.manifest import Manifest
from data_pipeline.settings import Settings
from data_pipeline.sources import open_sources
from data_pipeline.stages import convert
from tests.benchmarks.comparison import TURNS, AtLeast, Row, in_turns, table
from tests.benchmarks.smears import ORGAN, draw_jpegs
from trainer.augment_config import Augmentation
from trainer.decoded_cache import choose_cache
from trainer.input_pipeline import Decoded, Layout, TrainInput, train_batches
from trainer.order import TrainOrder
from trainer.records import RecordReader
from trainer.scratch import Scratch

SIZE_PX = 256
BATCH = 64
STEPS, THEIR_STEPS = 40, 3


def ours(reader: RecordReader | Decoded) -> float:
    """Images a second, read, decoded and augmented."""
    how = TrainInput(SIZE_PX, Augmentation(), seed=0)
    order = TrainOrder(len(reader), BATCH, seed=0)
    batches = iter(train_batches(reader, order, how, Layout(), start_step=0, stop_step=STEPS))
    next(batches)
    started = time.perf_counter()
    seen = sum(int((batch["weight"] > 0).numpy().sum()) for batch in batches)
    return seen / (time.perf_counter() - started)


def decoded(encoded: tf.Tensor) -> float:
    """Images a second, decoded from memory on all cores and nothing else."""
    dataset = tf.data.Dataset.from_tensor_slices(encoded).repeat(-(-STEPS * BATCH // len(encoded)))
    images = iter(dataset.map(lambda one: tf.io.decode_jpeg(one, 3), num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH))
    next(images)
    started = time.perf_counter()
    seen = sum(len(batch) for batch in images)
    return seen / (time.perf_counter() - started)


def layers(encoded: tf.Tensor) -> float:
    """Images a second, decoded and augmented by Keras's preprocessing layers in tf.data."""
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
        return tf.cast(tf.ensure_shape(tf.io.decode_jpeg(data, 3), [SIZE_PX, SIZE_PX, 3]), tf.float32) / 255

    dataset = tf.data.Dataset.from_tensor_slices(encoded).repeat()
    dataset = dataset.map(one, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
    batches = dataset.map(lambda batch: augment(batch, training=True), num_parallel_calls=tf.data.AUTOTUNE)
    images = iter(batches.prefetch(2).take(1 + STEPS // 4))
    next(images)
    started = time.perf_counter()
    seen = sum(len(batch) for batch in images)
    return seen / (time.perf_counter() - started)


def theirs(images: Path) -> float:
    """Images a second, with the same augmentation."""
    generator = keras.src.legacy.preprocessing.image.ImageDataGenerator(
        rotation_range=30,
        width_shift_range=0.15,
        height_shift_range=0.15,
        zoom_range=0.2,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(0.5, 1.5),
        rescale=1 / 255,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it says how many files it found
        batches = generator.flow_from_directory(str(images), target_size=(SIZE_PX, SIZE_PX), batch_size=BATCH)
    next(batches)
    started = time.perf_counter()
    seen = sum(len(next(batches)[0]) for _ in range(THEIR_STEPS))
    return seen / (time.perf_counter() - started)


def run() -> str:
    """The group's section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = draw_jpegs(folder, slides=10, tiles=20, image_size=SIZE_PX)
        source = open_sources(str(images), [ORGAN])[ORGAN]
        settings = Settings(image_size=SIZE_PX)
        converted = Conversion(ORGAN, source, folder, settings, parse_rule("auto"))
        convert(converted)
        reader = RecordReader(converted.target, Manifest.load(converted.target), "train")
        scratch = Scratch.of(str(folder / "scratch"), "1GB")
        cache = choose_cache(reader, mode="decoded", budget_bytes=10**9, scratch=scratch, name=ORGAN)
        assert cache
        encoded = tf.constant([record.image for record in reader.records(np.arange(len(reader)))])
        from_files, from_cache = lambda: ours(reader), lambda: ours(cache)
        rows = [
            Row(claim, "images/s", *in_turns(measure, other), bar)
            for claim, measure, other, bar in (
                ("against ImageDataGenerator", from_files, lambda: theirs(images / ORGAN), AtLeast(15)),
                ("against Keras's layers in tf.data", from_files, lambda: layers(encoded), AtLeast(8)),
                ("against decoding alone", from_files, lambda: decoded(encoded), AtLeast(0.55)),
                ("kept decoded, against decoding alone", from_cache, lambda: decoded(encoded), AtLeast(0.75)),
            )
        ]
    return (
        f"Images a second with the seed augmentation, from JPEG files of {SIZE_PX} × {SIZE_PX} pixels in TFRecords: "
        f"medians (lowest – highest) of {TURNS} turns.\n\n{table(rows)}"
    )


if __name__ == "__main__":
    print(run())
