"""From records to batches on the device.

    dataset = train_batches(reader, order, plan, layout, start_step=0, stop_step=order.steps_per_epoch)
    dataset = evaluation_batches(reader, batch_size=128, image_size=256, layout=layout)

Reading is random access, decoding and augmentation run on all cores, the latter a batch at a time. Every batch has
the same static shape: a short one is padded with records of weight 0. A dataset yields one element per local replica
and step, as `tf.distribute` takes them.

Elements are dicts of `image [n, size, size, 3] float32` in [0, 1], `label [n] int64`, `index [n] int64` (the record's
number in its split) and `weight [n] float32`: a record's share of the step's mean, so that summing weighted losses over
all replicas gives the mean over the global batch. Where images are mixed, `partner_label [n] int64` is that of the
other image and `share [n] float32` the weight of `label` against it.

    finish = finish_on_device(how)      # in the training step: batch = finish(batch)

With `TrainInput.on_device`, elements are what comes before augmentation, to be finished in the training step: `image`
as `decode_stored` gives it, and `parameters [n, columns] float32`. Where images are mixed, `n` is twice as many there:
the partners follow.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.allocation import keep_freed_memory
from trainer.augment import PACKED, draw, make_augment
from trainer.augment_config import Augmentation, Mixing
from trainer.mixing import MIX_PACKED, draw_mix, mixed
from trainer.order import TrainOrder, spread
from trainer.records import RecordReader

FEATURES = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

Indices = NDArray[np.int64]
# What a process does for (step, replica): record numbers, weights and parameters `[rows, columns]`; -1 is padding.
Load = Callable[[int, int], tuple[Indices, NDArray[np.float32], NDArray[np.float32]]]


class Decoded(Protocol):
    """Images that needn't be decoded any more, see `decoded_cache.py`."""

    image_size: int

    def __len__(self) -> int: ...

    def take(self, indices: Indices) -> tuple[NDArray[np.uint8], Indices]:
        """Pixels and labels."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where this process stands among the replicas: it feeds replicas `first` to `first + local - 1` of `replicas`."""

    replicas: int = 1
    first: int = 0
    local: int = 1

    @property
    def alone(self) -> bool:
        """Whether this process holds all replicas, and so may stop without asking others."""
        return self.local == self.replicas

    def per_replica(self, batch_size: int) -> int:
        """How many records of a global batch a replica holds, padding included."""
        return -(-batch_size // self.replicas)


@dataclass(frozen=True, slots=True)
class TrainInput:
    """How training images are made. `on_device` leaves all but reading and decoding to `finish_on_device`."""

    image_size: int
    augmentation: Augmentation
    seed: int
    mixing: Mixing = field(default_factory=Mixing)
    on_device: bool = False


def train_batches(
    reader: RecordReader | Decoded,
    order: TrainOrder,
    how: TrainInput,
    layout: Layout,
    *,
    start_step: int,
    stop_step: int,
) -> tf.data.Dataset:
    """The batches of global steps `start_step` to `stop_step - 1`."""
    keep_freed_memory()
    per_replica = layout.per_replica(min(order.batch_size, order.records))
    mixing = how.mixing

    def load(step: int, replica: int) -> tuple[Any, ...]:
        epoch, batch = order.batch(start_step + step)
        indices = spread(batch, replicas=layout.replicas, per_replica=per_replica)[replica]
        weight = (indices >= 0) / np.float32(len(batch))
        extra = []
        if mixing.on:  # the partners follow as further rows
            mix = draw_mix(
                mixing, seed=how.seed, epoch=epoch, indices=indices, records=order.records, size_px=how.image_size
            )
            indices, weight = np.concatenate([indices, mix.partners]), np.concatenate([weight, np.zeros_like(weight)])
            extra = [np.concatenate([mix.packed()] * 2)]
        draws = draw(how.augmentation, seed=how.seed, epoch=epoch, indices=indices)
        return indices, weight, np.concatenate([draws.packed(how.image_size), *extra], axis=1)

    dataset = _decoded(
        reader,
        load,
        steps=stop_step - start_step,
        layout=layout,
        rows=per_replica * (2 if mixing.on else 1),
        columns=PACKED + (MIX_PACKED if mixing.on else 0),
        image_size=how.image_size,
    )
    dataset = dataset.map(lambda examples, parameters: examples | {"parameters": parameters})
    return _delivered(dataset if how.on_device else dataset.map(_finish(how, on_host=True), num_parallel_calls=2))


def finish_on_device(how: TrainInput) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function that augments and mixes: from a batch made with `on_device` to the one that is made without it.

    It is to be called in the training step of each replica, and gives the same pixels within rounding.
    """
    return _finish(how, on_host=False)


def _finish(how: TrainInput, *, on_host: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    augment = make_augment(how.augmentation, on_host=on_host)

    def finish(batch: dict[str, Any]) -> dict[str, Any]:
        parameters = batch["parameters"]
        examples = {name: values for name, values in batch.items() if name != "parameters"}
        examples |= {"image": augment(batch["image"], parameters[:, :PACKED])}
        if not how.mixing.on:
            return examples
        rows = parameters.shape[0] // 2
        own = {name: values[:rows] for name, values in examples.items()}
        mix = parameters[:rows, PACKED:]
        image = mixed(own["image"], examples["image"][rows:], mix)
        return own | {"image": image, "partner_label": examples["label"][rows:], "share": mix[:, -1]}

    return finish


def evaluation_batches(reader: RecordReader, *, batch_size: int, image_size: int, layout: Layout) -> tf.data.Dataset:
    """Every record once, in order, as it is stored; `weight` is 1 for a record and 0 for padding."""

    def finish(examples: dict[str, Any]) -> dict[str, Any]:
        return examples | {"image": to_unit_range(examples["image"])}

    dataset = decoded_batches(reader, batch_size, layout, image_size=image_size)
    return _delivered(dataset.map(finish, num_parallel_calls=2))


def decoded_batches(reader: RecordReader, batch_size: int, layout: Layout, *, image_size: int = 0) -> tf.data.Dataset:
    """The same, images not in [0, 1] yet but as `decode_stored` gives them; `image_size` 0 means as stored."""
    per_replica = layout.per_replica(min(batch_size, len(reader)))
    step_size = per_replica * layout.replicas
    nothing = np.zeros([per_replica, 1], np.float32)  # without a column, `numpy_function` ends the process

    def load(step: int, replica: int) -> tuple[Any, ...]:
        batch = np.arange(step * step_size, min((step + 1) * step_size, len(reader)), dtype=np.int64)
        indices = spread(batch, replicas=layout.replicas, per_replica=per_replica)[replica]
        return indices, (indices >= 0).astype(np.float32), nothing

    dataset = _decoded(
        reader,
        load,
        steps=-(-len(reader) // step_size),
        layout=layout,
        rows=per_replica,
        columns=1,
        image_size=image_size or reader.image_size,
    )
    return dataset.map(lambda examples, parameters: examples)


def decode_stored(encoded: Any, *, stored_size: int, image_size: int) -> Any:
    """A record's image as `[image_size, image_size, 3]`: uint8 as it is stored, float32 in [0, 255] if resized."""
    pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    pixels = tf.ensure_shape(pixels, [stored_size, stored_size, 3])
    return pixels if stored_size == image_size else _resized(pixels, image_size)


def _resized(pixels: Any, image_size: int) -> Any:
    """Bilinear with antialiasing, ignoring the aspect ratio, as conversion does."""
    return tf.image.resize(tf.cast(pixels, tf.float32), [image_size, image_size], antialias=True)


def to_unit_range(pixels: Any) -> Any:
    """Pixels of 0 … 255 as the model takes them."""
    return tf.cast(pixels, tf.float32) / 255.0


def _decoded(
    reader: RecordReader | Decoded, load: Load, *, steps: int, layout: Layout, rows: int, columns: int, image_size: int
) -> tf.data.Dataset:
    """(examples, parameters `[rows, columns]`) for each step and local replica, images decoded but not finished."""
    stored_size = reader.image_size
    shapes: list[list[int]] = [[], [], [columns]]
    types = [tf.int64, tf.float32, tf.float32]

    def numbers(number: Any, read: Callable[[Indices], tuple[Any, ...]], read_types: list[Any]) -> Any:
        """What `read` gives for the records of a step, and what `load` does."""

        def both(step: Any, replica: Any) -> tuple[Any, ...]:
            loaded = load(int(step), int(replica))
            return *read(np.maximum(loaded[0], 0)), *loaded  # padding repeats a record, which its weight takes out

        step, local = number // layout.local, number % layout.local
        # AutoGraph would rewrite what runs as plain Python here. Stateless, or op determinism would make tf.data run
        # one call after another.
        plain = tf.autograph.experimental.do_not_convert(both)
        arguments = [step, layout.first + local]
        *parts, index, weight, parameters = tf.numpy_function(plain, arguments, [*read_types, *types], stateful=False)
        for part, shape in zip((index, weight, parameters), shapes, strict=True):
            part.set_shape([rows, *shape])
        return *parts, {"index": index, "weight": weight}, parameters

    dataset = tf.data.Dataset.range(steps * layout.local)
    if not isinstance(reader, RecordReader):

        def take(number: Any) -> tuple[Any, ...]:
            pixels, label, rest, parameters = numbers(number, reader.take, [tf.uint8, tf.int64])
            label.set_shape([rows])
            pixels.set_shape([rows, stored_size, stored_size, 3])
            image = pixels if stored_size == image_size else _resized(pixels, image_size)
            return rest | {"image": image, "label": label}, parameters

        return dataset.map(take, num_parallel_calls=tf.data.AUTOTUNE)

    def fetch(number: Any) -> tuple[Any, ...]:
        read = lambda indices: (np.array(reader.read(indices), dtype=object),)  # noqa: E731
        serialised, rest, parameters = numbers(number, read, [tf.string])
        serialised.set_shape([rows])
        return tf.io.parse_example(serialised, FEATURES) | rest, parameters

    def decode(examples: dict[str, Any], parameters: Any) -> tuple[Any, ...]:
        # An operation an image: TensorFlow runs them on all cores, which costs less than an element of tf.data each.
        images = [
            decode_stored(encoded, stored_size=stored_size, image_size=image_size)
            for encoded in tf.unstack(examples["image"], num=rows)
        ]
        return examples | {"image": tf.stack(images)}, parameters

    return dataset.map(fetch, num_parallel_calls=2).map(decode, num_parallel_calls=2)


def _delivered(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset as `tf.distribute` takes it, which by itself copies a replica's next batch to its device ahead."""
    options = tf.data.Options()
    options.deterministic = True
    # The sequence is laid out for the replicas already; tf.distribute must not shard it again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options).prefetch(2)
