"""Two logical CPUs for all tests of the trainer, a small dataset, and one finished run to look at."""

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf

from data_pipeline.manifest import Manifest
from tests.conftest import make_images, run_module

SIZE = 32


@pytest.fixture(autouse=True)
def _with_two_devices(two_devices: None) -> None:
    """All tests of the trainer run on the two devices.

    Each begins its strategies' collective operations at a number of its own, as TensorFlow's tests do: it would take a
    network of another size for a member of the group that an earlier test has left.
    """
    tf.distribute.MirroredStrategy._collective_key_base += 100_000


@pytest.fixture(scope="session")
def tfrecords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sealed dataset `gland`: 3 classes, 96 slides, 288 tiles at 32 pixels."""
    folder = tmp_path_factory.mktemp("data")
    make_images(folder / "images" / "gland", slides=32)
    done = run_module(
        "data_pipeline",
        "--organ=gland",
        f"--images={folder / 'images'}",
        f"--tfrecords={folder / 'tfrecords'}",
        f"--image_size={SIZE}",
    )
    assert done.returncode == 0, done.stderr
    return folder / "tfrecords"


@pytest.fixture(scope="session")
def dataset(tfrecords: Path) -> tuple[Path, Manifest]:
    return tfrecords / "gland", Manifest.load(tfrecords / "gland")


def train_command(tfrecords: Path, runs: Path, *arguments: object) -> list[object]:
    """The arguments of a run that takes seconds."""
    size = ["--epochs=4", "--batch_size=16", "--run=r"]
    return ["--organ=gland", f"--tfrecords={tfrecords}", f"--runs={runs}", *size, *arguments]


@pytest.fixture(scope="session")
def finished_run(tfrecords: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run trained to its end by a process of its own."""
    runs = tmp_path_factory.mktemp("runs")
    done = run_module("trainer", *train_command(tfrecords, runs))
    assert done.returncode == 0, done.stderr
    folder = runs / "gland" / "r"
    assert done.stdout.strip() == f"Report: {folder / 'report.html'}"
    return folder


@pytest.fixture(params=["single", "mirrored"])
def strategy(request: pytest.FixtureRequest) -> Iterator[tf.distribute.Strategy]:
    if request.param == "single":
        yield tf.distribute.OneDeviceStrategy("CPU:0")
    else:
        yield tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
