"""Prediction, against decoding as the input pipeline does it and the forward pass of the same network.

python -m tests.benchmarks.predicting

Ours is all that `python -m trainer.predict` does with files once the model is loaded: finding and reading them, looking
for damage, predicting, and writing the CSV file. Theirs is evaluation's input, which reads the same bytes from
TFRecords, and the network. What the program takes before its first row is told apart.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import trainer  # noqa: F401  # isort: skip  # tells TensorFlow what to use, before it is imported

import keras
import tensorflow as tf
from absl import flags

from tests.benchmarks.comparison import TURNS, AtLeast, Row, in_turns, table
from tests.benchmarks.sample import make_sample
from tests.conftest import ROOT
from trainer.export import export, load_served
from trainer.input_pipeline import Layout, evaluation_batches
from trainer.models import LOGITS, build_model
from trainer.predict import predict_to
from trainer.predict_request import define_flags, request_of
from trainer.predict_stream import BATCH
from trainer.records import RecordReader

IMAGE_SIZE = 256
CHEAPEST = "next to nothing"
IMAGES_OF = {CHEAPEST: 2000, "seed_pooled": 400, "seed": 400}
LONG = 20  # times the files, for memory
CLASSES = ("a", "b", "c", "d", "e")
TIMED = """
import resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run([sys.executable, "-m", "trainer.predict", *sys.argv[1:]], check=True)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def network(name: str) -> keras.Model:
    """By name; `CHEAPEST` looks at 16 × 16 means, so that what is left is the work around a network."""
    if name != CHEAPEST:
        return build_model(name, image_size=IMAGE_SIZE, classes=len(CLASSES))
    image = keras.layers.Input([IMAGE_SIZE, IMAGE_SIZE, 3], name="image")
    means = keras.layers.Flatten()(keras.layers.AveragePooling2D(16)(image))
    return keras.Model(image, keras.layers.Softmax()(keras.layers.Dense(len(CLASSES), name=LOGITS)(means)))


def ours(model: Path, files: list[Path], out: Path) -> Callable[[], float]:
    """Images a second."""
    served = load_served(model)

    def measure() -> float:
        began = time.perf_counter()
        values = flags.FlagValues()
        define_flags(values)
        arguments = values(["predict", f"--model={model}", f"--output={out}", "--group_by=none", *map(str, files)])
        if predict_to(request_of(values, arguments[1:]), served):
            raise RuntimeError("An image could not be predicted.")
        return len(files) / (time.perf_counter() - began)

    return measure


def theirs(model: keras.Model, reader: RecordReader, count: int) -> Callable[[], float]:
    """Images a second."""
    forward = tf.function(lambda image: model(image, training=False))

    def measure() -> float:
        batches = evaluation_batches(reader, batch_size=BATCH, image_size=IMAGE_SIZE, layout=Layout())
        done, began = 0, time.perf_counter()
        for batch in batches:
            forward(batch["image"]).numpy()
            done += BATCH
            if done >= count:
                break
        return min(done, len(reader)) / (time.perf_counter() - began)

    return measure


def compare(name: str, folder: Path, reader: RecordReader, files: list[Path]) -> Row:
    """The network of this name, on as many of the files as it takes a while for."""
    model, count = network(name), min(IMAGES_OF[name], len(files))
    export(model, classes=CLASSES, image_size=IMAGE_SIZE, folder=folder / name / "model")
    pair = in_turns(ours(folder / name / "model", files[:count], folder / "out.csv"), theirs(model, reader, count))
    return Row(f"{name}, {count:,} images", "images/s", *pair, None if name == CHEAPEST else AtLeast(0.9))


def program(model: Path, folder: Path, count: int) -> tuple[float, float]:
    """(seconds, the most memory in MB) of the whole program on the first `count` files of a folder."""
    few = folder.with_name(f"{folder.name}-{count}")
    few.mkdir()
    for path in sorted(folder.iterdir())[:count]:
        (few / path.name).hardlink_to(path)
    arguments = [f"--model={model}", f"--output={few}.csv", "--group_by=none", str(few)]
    done = subprocess.run(
        [sys.executable, "-c", TIMED, *arguments], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE
    )
    seconds, kilobytes = map(float, done.stdout.split()[-2:])
    return seconds, kilobytes / 1000


def many(files: list[Path], folder: Path) -> Path:
    """A folder with links to all files, `LONG` times."""
    folder.mkdir()
    for time_ in range(LONG):
        for number, file in enumerate(files):
            (folder / f"{time_:02d}{number:05d}.jpg").hardlink_to(file)
    return folder


def run() -> str:
    """The group's section of RESULTS.md."""
    with tempfile.TemporaryDirectory(prefix="predicting-") as name:
        folder = Path(name)
        sample = make_sample(folder, image_size=IMAGE_SIZE)
        reader = sample.reader()
        files = sorted(sample.files.rglob("*.jpg"), key=lambda path: path.name)  # in the order of the records
        rows = table(compare(which, folder, reader, files) for which in IMAGES_OF)
        model, links = folder / CHEAPEST / "model", many(files, folder / "links")
        counts = (1, len(files), LONG * len(files))
        runs = [(count, *program(model, links, count)) for count in counts]
    whole = "\n".join(f"* {count:,} images: {seconds:.1f} s, {memory:,.0f} MB" for count, seconds, memory in runs)
    return (
        f"{sample.about}, in batches of {BATCH}. Ours is all that `python -m trainer.predict` does with files once the "
        "model is loaded, up to the CSV file; theirs is decoding as evaluation's input does it, from TFRecords, and "
        f"the same network in memory: medians (lowest – highest) of {TURNS} turns. The network that does next to "
        f"nothing shows the work around a network; no bar is set for it.\n\n{rows}\n\n"
        f"The whole program, start-up included, on a folder and with that network, and the most memory "
        f"it took:\n\n{whole}"
    )


if __name__ == "__main__":
    print(run())
