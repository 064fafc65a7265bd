"""How fast each stage of the input is, and the training step: measured on a dataset as training would use it.

    stages = Stages(reader, order, how, strategy, seconds=3.0, tick=bar.update)
    first, again = stages.reading(manifest, folder)
    whole = stages.input(reader), stages.input(stages.sample())
    step, training, waiting_share = stages.training(reader, config, classes=5)

Each is warmed up, then measured in `SLICES` slices of time, of which a slow one gets fewer. A stage holds those before
it: what it takes by itself is the difference.
"""

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_pipeline.manifest import Manifest
from trainer.advice import Rate
from trainer.augment_config import Mixing
from trainer.cluster import layout_of
from trainer.config import ON, TrainConfig
from trainer.decoded_cache import DecodedCache
from trainer.input_pipeline import Decoded, Layout, TrainInput, decode_stored, finish_on_device, train_batches
from trainer.order import TrainOrder, epoch_order
from trainer.records import RecordReader
from trainer.step import Update, make_train_step
from trainer.trainable import trainable

SLICES, FEWEST_SLICES = 5, 3
TICKS = SLICES + 1
PATIENCE = 3  # times the seconds asked for, after which fewer slices must do
SAMPLE_BYTES, SAMPLE_IMAGES, FORM_IMAGES = 256 * 10**6, 1024, 256
DECODE_BATCH = 64
ENDLESS_STEPS = 10**9

Source = RecordReader | Decoded


def rate_of(take: Callable[[], int], *, seconds: float, tick: Callable[[int], Any] = int, warm_up: bool = True) -> Rate:
    """Call `take`, which says how many images it was about, until `seconds` have passed or it says 0.

    `tick` is told of every slice that is done or left out, `TICKS` in all.
    """
    began, slice_s, left = time.perf_counter(), seconds / SLICES, TICKS
    if warm_up:
        _slice(take, slice_s)
    rows: list[tuple[float, float]] = []
    while left > 1:
        tick(1)
        left -= 1
        images, wall_s, cpu_s = _slice(take, slice_s)
        if images:
            rows.append((images / wall_s, 1000 * cpu_s / images))
        late = len(rows) >= FEWEST_SLICES and time.perf_counter() - began > PATIENCE * seconds
        if late or wall_s < slice_s:
            break
    tick(left)
    return Rate(tuple(speed for speed, _ in rows), tuple(cost for _, cost in rows))


def _slice(take: Callable[[], int], seconds: float) -> tuple[int, float, float]:
    """(images, seconds, CPU seconds of all threads); shorter than `seconds` if there are no more images."""
    started, cpu, images = time.perf_counter(), time.process_time(), 0
    while (taken := take()) and time.perf_counter() - started < seconds:
        images += taken
    images += taken
    return images, time.perf_counter() - started, time.process_time() - cpu


@dataclass(frozen=True)
class Stages:
    """What the measurements are about; each lasts about `seconds` and calls `tick`, see `rate_of`."""

    reader: RecordReader
    order: TrainOrder
    how: TrainInput
    strategy: tf.distribute.Strategy
    seconds: float
    tick: Callable[[int], Any] = int

    @property
    def layout(self) -> Layout:
        return layout_of(self.strategy)

    def reading(self, folder: Path, manifest: Manifest) -> tuple[Rate, Rate]:
        """Records in the order of the first epoch with their checksums, from the disk, then from memory."""
        steps = iter(range(self.order.steps_per_epoch))
        read: list[int] = []

        def take() -> int:
            step = next(steps, None)
            if step is None:
                return 0
            read.append(step)
            return len(self.reader.read(self.order.batch(step)[1]))

        forget(folder / shard.path for shard in manifest.shards_of("train"))
        first = rate_of(take, seconds=self.seconds, tick=self.tick, warm_up=False)
        again = itertools.cycle(tuple(read))
        return first, rate_of(
            lambda: len(self.reader.read(self.order.batch(next(again))[1])), seconds=self.seconds, tick=self.tick
        )

    def decoding(self) -> Rate:
        """Read and decoded, but not changed."""
        return self.input(self.reader, replace(self.how, on_device=True, mixing=Mixing()))

    def input(self, source: Source, how: TrainInput | None = None) -> Rate:
        """All that makes batches, from records or from images that are decoded."""
        elements = iter(self._batches(source, how or self.how))
        return rate_of(lambda: _present(next(elements)), seconds=self.seconds, tick=self.tick)

    def sample(self) -> DecodedCache:
        """Some images decoded, a batch at the least: they are given out as fast as all of them would be."""
        per_image = self.reader.image_size**2 * 3
        count = max(min(SAMPLE_IMAGES, SAMPLE_BYTES // per_image), self.order.batch_size)
        records = self.reader.records(epoch_order(len(self.reader), self.order.seed, 0)[:count])
        size = self.reader.image_size
        images = _decoded([record.image for record in records], size, size)
        pixels = np.stack(list(images.as_numpy_iterator()))
        return DecodedCache(pixels, np.array([record.label for record in records], dtype=np.int64))

    def forms(self, *, quality: int) -> dict[str, Rate]:
        """Decoding alone: of images as they are stored, and as JPEG files of the size that training takes."""
        numbers = epoch_order(len(self.reader), self.order.seed, 0)[:FORM_IMAGES]
        stored = [record.image for record in self.reader.records(numbers)]
        stored_px, size = self.reader.image_size, self.how.image_size

        def encode(image: Any) -> Any:
            pixels = tf.cast(tf.round(tf.cast(image, tf.float32)), tf.uint8)
            return tf.io.encode_jpeg(pixels, quality=quality, chroma_downsampling=False)

        small = list(_decoded(stored, stored_px, size).map(encode).as_numpy_iterator())

        def decoding(encoded: Sequence[bytes], encoded_px: int) -> Rate:
            batches = iter(_decoded(encoded, encoded_px, size).repeat().batch(DECODE_BATCH))
            return rate_of(lambda: len(next(batches)), seconds=self.seconds, tick=self.tick)

        return {"stored": decoding(stored, stored_px), "small": decoding(small, size)}

    def training(self, source: Source, config: TrainConfig, *, classes: int) -> tuple[Rate, Rate, float]:
        """The step on one batch again and again; the step on what the input gives; its share of waiting for that."""
        finish = finish_on_device(self.how) if self.how.on_device else None
        with self.strategy.scope():
            learner = trainable(config, classes=classes, steps_per_epoch=self.order.steps_per_epoch)
        update = Update(xla=config.xla == ON)
        model, optimizer = learner.model, learner.optimizer
        step = make_train_step(self.strategy, model, optimizer, update, scale=learner.scale, finish=finish)
        batches = iter(self.strategy.distribute_datasets_from_function(lambda _: self._batches(source, self.how)))
        constant, stop = next(batches), tf.constant(0.0)
        waits: list[tuple[float, float]] = []

        def bare() -> int:
            return int(np.asarray(step(constant, stop))[2])

        def fed() -> int:
            asked = time.perf_counter()
            batch = next(batches)
            there = time.perf_counter()
            records = int(np.asarray(step(batch, stop))[2])
            waits.append((there - asked, time.perf_counter() - asked))
            return records

        alone = rate_of(bare, seconds=self.seconds, tick=self.tick)
        _slice(fed, self.seconds / SLICES)  # with it go the batches that were made meanwhile
        waits.clear()
        together = rate_of(fed, seconds=self.seconds, tick=self.tick, warm_up=False)
        waited, took = np.sum(waits, axis=0)
        return alone, together, float(waited / took)

    def _batches(self, source: Source, how: TrainInput) -> tf.data.Dataset:
        order = replace(self.order, records=len(source))
        return train_batches(source, order, how, self.layout, start_step=0, stop_step=ENDLESS_STEPS)


def forget(paths: Any) -> None:
    """Have the system forget what it holds of these files in memory, where it does so, so that they are read anew."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _decoded(encoded: Sequence[bytes], stored_px: int, size_px: int) -> tf.data.Dataset:
    def decode(data: Any) -> Any:
        return decode_stored(data, stored_size=stored_px, image_size=size_px)

    return tf.data.Dataset.from_tensor_slices(list(encoded)).map(decode, num_parallel_calls=tf.data.AUTOTUNE)


def _present(batch: dict[str, Any]) -> int:
    return int(np.count_nonzero(batch["weight"].numpy() > 0))
