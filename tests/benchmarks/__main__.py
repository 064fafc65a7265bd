"""Measure what the README claims about speed, side by side, and write RESULTS.md: `make bench`.

Every row compares two ways over the same files in the same run, taking turns, so that a machine whose speed drifts
treats both alike. Medians of the turns are reported, with their range.
"""

import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tabulate import tabulate

from data_pipeline.discover import discover
from data_pipeline.grouping import parse_rule
from data_pipeline.images import decode
from data_pipeline.inspect_stage import inspect
from data_pipeline.manifest import Manifest
from data_pipeline.parallel import available_cpus
from data_pipeline.plan import Settings, make_plan
from data_pipeline.seal import seal
from data_pipeline.synthesize import SynthesisConfig, synthesize
from data_pipeline.write import write_shards
from trainer.augment import Augmentation
from trainer.input_pipeline import Layout, TrainInput, train_batches
from trainer.order import TrainOrder
from trainer.records import RecordReader

RESULTS = Path(__file__).with_name("RESULTS.md")
SIZE = 256
BATCH = 64
TURNS = 5


@dataclass(frozen=True)
class Row:
    """A claim, and what both ways reached in each turn."""

    claim: str
    unit: str
    ours: list[float]
    theirs: list[float]

    def cells(self) -> list[str]:
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        ratio = ours / theirs
        return [self.claim, _spread(self.ours, self.unit), _spread(self.theirs, self.unit), f"{ratio:.2f}"]


def _spread(values: list[float], unit: str) -> str:
    return f"{statistics.median(values):,.0f} {unit} ({min(values):,.0f} – {max(values):,.0f})"


def in_turns(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Both measurements `TURNS` times, one after the other, after one turn that isn't counted."""
    pairs = [(ours(), theirs()) for _ in range(TURNS + 1)][1:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def bench_input(dataset: Path, images: Path) -> Row:
    """Decoding and augmentation, against Keras's generator on the same pictures."""
    manifest = Manifest.load(dataset)
    reader = RecordReader(dataset, manifest, "train")
    order = TrainOrder(len(reader), BATCH, seed=0)
    how = TrainInput(SIZE, Augmentation(), seed=0)

    def ours() -> float:
        batches = iter(train_batches(reader, order, how, Layout(), start_step=0, stop_step=40))
        next(batches)
        started = time.perf_counter()
        seen = sum(int((batch["weight"] > 0).numpy().sum()) for batch in batches)
        return seen / (time.perf_counter() - started)

    def theirs() -> float:
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
        batches = generator.flow_from_directory(str(images), target_size=(SIZE, SIZE), batch_size=BATCH)
        next(batches)
        started = time.perf_counter()
        seen = sum(len(next(batches)[0]) for _ in range(3))
        return seen / (time.perf_counter() - started)

    return Row("input pipeline, seed augmentation, against ImageDataGenerator", "images/s", *in_turns(ours, theirs))


def bench_conversion(images: Path, claim: str, size_px: int) -> Row:
    """All four stages in one process, against decoding every file once. CPU time an image."""
    files = discover(images)
    contents = [(images / file.id).read_bytes() for file in files]
    settings = Settings(image_size=size_px)

    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            convert(images, Path(folder), settings)
            return (time.process_time() - started) / len(files) * 1e6

    def theirs() -> float:
        started = time.process_time()
        for data in contents:
            picture = decode(data).pixels
            if size_px != SIZE:
                out = io.BytesIO()
                Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.BILINEAR).save(
                    out, "JPEG", quality=95, subsampling=0
                )
        return (time.process_time() - started) / len(files) * 1e6

    return Row(claim, "µs CPU", *in_turns(ours, theirs))


def convert(images: Path, folder: Path, settings: Settings) -> Path:
    """Convert in this process, so that its CPU time is all that is counted."""
    work = folder / "work"
    rows = inspect(images, discover(images), work=work / "inspect", workers=1)
    plan = make_plan(rows, organ="gland", settings=settings, rule=parse_rule("auto"))
    shards = write_shards(plan, images, work=work, settings=settings, workers=1)
    seal(plan, shards, work=work, target=folder / "gland", settings=settings, inputs_sha256="", workers=1)
    return folder / "gland"


def main() -> None:
    """Run every benchmark and write the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = synthesize(
            SynthesisConfig(
                output=folder / "png", slides=10, tiles=20, image_size=SIZE, clean=True, workers=available_cpus()
            )
        )
        images = folder / "jpeg"
        for path in sorted(made.folder.rglob("*.png")):
            target = images / path.parent.name / f"{path.stem}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).save(target, quality=90)
        rows = [
            bench_input(convert(images, folder / "data", Settings(image_size=SIZE)), images),
            bench_conversion(images, "conversion, bytes kept, against one full decode", SIZE),
            bench_conversion(images, "conversion to 128 px, against decode + resize + encode", SIZE // 2),
        ]
    names = {"TensorFlow": tf.__version__, "Keras": keras.__version__, "NumPy": np.__version__}
    versions = ", ".join(f"{name} {version}" for name, version in names.items())
    table = tabulate([row.cells() for row in rows], ["what", "ours", "theirs", "ours / theirs"], tablefmt="github")
    text = (
        "# Benchmarks\n\nWritten by `make bench`: medians (lowest – highest) of "
        f"{TURNS} turns, taken in turns on the same 1,000 JPEG files of {SIZE} × {SIZE} pixels.\n\n"
        f"{available_cpus()} CPUs ({platform.machine()}), {versions}.\n\n{table}\n"
    )
    RESULTS.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
