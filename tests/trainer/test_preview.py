"""The preview shows the very pixels of training."""

from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.cli import EXIT_REQUEST
from data_pipeline.manifest import Manifest
from tests.conftest import run_module
from tests.trainer.conftest import SIZE
from trainer.augment_config import Augmentation, Mixing
from trainer.input_pipeline import Layout, TrainInput, train_batches
from trainer.order import TrainOrder
from trainer.preview import choose, preview
from trainer.records import RecordReader

EVERYTHING = Augmentation(quarter_turns=True, stain=0.1, blur_px=1.0, cutout=0.2)
MIXED = Mixing(mixup=0.4, cutmix=1.0)


def test_it_is_what_each_epoch_sees(dataset: tuple[Path, Manifest]) -> None:
    reader = RecordReader(*dataset, "train")
    chosen = np.array([5, 0, 17])
    versions = preview(reader, chosen, how=EVERYTHING, mixing=MIXED, seed=4, image_size=SIZE, epochs=2)
    assert len(versions) == 3
    order = TrainOrder(len(reader), 64, seed=4)
    stop = 2 * order.steps_per_epoch
    batches = train_batches(
        reader, order, TrainInput(SIZE, EVERYTHING, 4, MIXED), Layout(), start_step=0, stop_step=stop
    )
    for number, batch in enumerate(batches.as_numpy_iterator()):
        epoch = number // order.steps_per_epoch
        for index, image in zip(batch["index"], batch["image"], strict=True):
            for row in np.flatnonzero(chosen == index):
                assert (versions[1 + epoch][row] == image).all()


def test_every_diagnosis_is_shown(dataset: tuple[Path, Manifest]) -> None:
    reader = RecordReader(*dataset, "train")
    chosen = choose(reader, 4, seed=0)
    labels = [record.label for record in reader.records(chosen)]
    assert labels[:3] == [0, 1, 2]
    assert len(set(chosen.tolist())) == 4
    assert sorted(choose(reader, 10**6, seed=0).tolist()) == list(range(len(reader)))


def test_the_command_writes_a_picture(dataset: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder, manifest = dataset
    output = tmp_path / "seen.png"
    flags = (
        f"--tfrecords={folder.parent}",
        f"--organ={manifest.organ}",
        f"--output={output}",
        "--images=2",
        "--epochs=3",
    )
    done = run_module("trainer.preview", *flags, "--stain=0.05")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Preview: {output}\n"
    with Image.open(output) as picture:
        assert picture.width > picture.height > 100
    wrong = run_module("trainer.preview", *flags, "--blur=nan")
    assert wrong.returncode == EXIT_REQUEST
    assert "`--blur`" in wrong.stderr
