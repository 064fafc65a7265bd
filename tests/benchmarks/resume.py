"""What it costs to go on after an interruption, and to be able to.

python -m tests.benchmarks.resume  # prints the table
"""

import os
import tempfile
import time
from functools import partial
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
from tests.benchmarks.comparison import AtMost, Row, in_turns, table
from tests.benchmarks.smears import ORGAN, draw_jpegs
from trainer.augment_config import Augmentation
from trainer.input_pipeline import Layout, TrainInput, train_batches
from trainer.models import build_model
from trainer.order import TrainOrder, epoch_order
from trainer.records import RecordReader
from trainer.step import make_train_step

SIZE_PX, BATCH, STEPS = 128, 32, 12
EARLY, LATE = 10, 100_000
RECORDS = 1_000_000
MODEL_PX = 256


def order_us(step: int) -> float:
    """Microseconds to know which records a step sees, of a million, when nothing is known yet."""
    order = TrainOrder(RECORDS, BATCH, seed=0)
    epoch_order.cache_clear()
    started = time.perf_counter()
    order.batch(step)
    return (time.perf_counter() - started) * 1e6


def first_batch_ms(dataset: Path, step: int) -> float:
    """Milliseconds from nothing to the first augmented batch, when a run goes on at `step`."""
    started = time.perf_counter()
    reader = RecordReader(dataset, Manifest.load(dataset), "train")
    how = TrainInput(SIZE_PX, Augmentation(), seed=0)
    order = TrainOrder(len(reader), BATCH, seed=0)
    next(iter(train_batches(reader, order, how, Layout(), start_step=step, stop_step=step + 2)))
    return (time.perf_counter() - started) * 1e3


def checkpoint_s(folder: Path, *, read: bool) -> float:
    """Seconds to write the seed network with its optimizer, flushed to the disk, or to read it again."""
    model = build_model("seed", image_size=MODEL_PX, classes=5)
    optimizer = keras.optimizers.Adamax()
    optimizer.build(model.trainable_variables)
    tracked = tf.train.Checkpoint(model=model, optimizer=optimizer)
    started = time.perf_counter()
    if read:
        tracked.read(str(folder / "weights")).assert_consumed()
    else:
        tracked.write(str(folder / "weights"))
        for path in folder.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    return time.perf_counter() - started


def step_ms(*, deterministic: bool) -> float:
    """Milliseconds of CPU time an image of the training step, of the seed network."""
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    with strategy.scope():
        model = build_model("seed", image_size=SIZE_PX, classes=5)
        optimizer = keras.optimizers.Adamax()
        optimizer.build(model.trainable_variables)
    step = make_train_step(strategy, model, optimizer)
    random = np.random.default_rng(0)
    batch = {
        "image": tf.constant(random.random((BATCH, SIZE_PX, SIZE_PX, 3), dtype=np.float32)),
        "label": tf.constant(random.integers(0, 5, BATCH)),
        "index": tf.range(BATCH, dtype=tf.int64),
        "weight": tf.fill([BATCH], np.float32(1 / BATCH)),
    }
    step(batch, tf.constant(0.0))
    started = time.process_time()
    for _ in range(STEPS):
        np.asarray(step(batch, tf.constant(0.0)))
    return (time.process_time() - started) / STEPS / BATCH * 1e3


def run() -> str:
    """The group's section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = draw_jpegs(folder, slides=6, tiles=20, image_size=SIZE_PX)
        settings = Settings(image_size=SIZE_PX)
        source = open_sources(str(images), [ORGAN])[ORGAN]
        converted = Conversion(ORGAN, source, folder, settings, parse_rule("auto"))
        convert(converted)
        late, early = (partial(first_batch_ms, converted.target, step) for step in (LATE, EARLY))
        rows = [
            Row(
                f"which of {RECORDS:,} records step {LATE:,} sees, against step {EARLY}",
                "µs",
                *in_turns(partial(order_us, LATE), partial(order_us, EARLY)),
                AtMost(1.2),
            ),
            Row(f"first batch at step {LATE:,}, against step {EARLY}", "ms", *in_turns(late, early), AtMost(1.2)),
            Row(
                f"training step, batch {BATCH}, {SIZE_PX} px: deterministic operations, against any",
                "ms CPU an image",
                *in_turns(partial(step_ms, deterministic=True), partial(step_ms, deterministic=False), apart=True),
            ),
        ]
        weights = folder / "checkpoint"
        weights.mkdir()
        written, read = checkpoint_s(weights, read=False), checkpoint_s(weights, read=True)
        size = sum(path.stat().st_size for path in weights.iterdir()) / 1e6
        return (
            f"Medians (lowest – highest).\n\n{table(rows)}\n\nA checkpoint of the seed network at {MODEL_PX} px with "
            f"its optimizer has {size:,.0f} MB; it is written and flushed in {written:.1f} s and read in {read:.1f} s."
        )


if __name__ == "__main__":
    print(run())
