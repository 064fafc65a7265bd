"""How fast training is fed, beside the generator it replaces: `python -m tests.benchmarks.input` prints the table."""

import contextlib
import io
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from data_pipeline.conversion import Conversion
from data_pipeline.grouping import parse_rule
from data_pipeline.manifest import Manifest
from data_pipeline.settings import Settings
from data_pipeline.sources import open_sources
from data_pipeline.stages import convert
from tests.benchmarks.comparison import TURNS, Row, in_turns, table
from tests.benchmarks.smears import ORGAN, draw_jpegs
from trainer.augment_config import Augmentation
from trainer.input_pipeline import Layout, TrainInput, train_batches
from trainer.order import TrainOrder
from trainer.records import RecordReader

SIZE_PX = 256
BATCH = 64
STEPS, THEIR_STEPS = 40, 3


def ours(dataset: Path) -> float:
    """Images a second, decoded and augmented."""
    reader = RecordReader(dataset, Manifest.load(dataset), "train")
    how = TrainInput(SIZE_PX, Augmentation(), seed=0)
    order = TrainOrder(len(reader), BATCH, seed=0)
    batches = iter(train_batches(reader, order, how, Layout(), start_step=0, stop_step=STEPS))
    next(batches)
    started = time.perf_counter()
    seen = sum(int((batch["weight"] > 0).numpy().sum()) for batch in batches)
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
        pairs = in_turns(lambda: ours(converted.target), lambda: theirs(images / ORGAN))
    row = Row("input pipeline, seed augmentation, against ImageDataGenerator", "images/s", *pairs)
    return (
        f"Decoded and augmented images a second, on the same 1,000 JPEG files of {SIZE_PX} × {SIZE_PX} pixels: medians "
        f"(lowest – highest) of {TURNS} turns.\n\n{table([row])}"
    )


if __name__ == "__main__":
    print(run())
