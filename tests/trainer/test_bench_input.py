"""What is measured of the input is what training does; wrong requests are told before TensorFlow is imported."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.cli import EXIT_DONE, EXIT_REQUEST
from data_pipeline.manifest import Manifest
from data_pipeline.transfer import upload
from tests.bucket_server import IN_MEMORY, FaultyBucket
from tests.conftest import run_module
from tests.trainer.conftest import SIZE
from tests.trainer.witness import Witness, assert_refused
from tests.trainer.wrong_requests import BAD_SHARES, Place, Row, flag, flip_bit, manifest_text, without
from trainer.augment_config import Augmentation
from trainer.cluster import layout_of
from trainer.input_pipeline import TrainInput
from trainer.input_stages import SLICES, TICKS, Stages, rate_of
from trainer.order import TrainOrder
from trainer.records import RecordReader

QUICK = ("--seconds=0.1", "--model=seed_pooled", "--batch_size=32")
ALWAYS = {"read_first", "read_again", "decoded", "whole", "kept", "step", "training"}


def _stored_small(place: Place) -> None:
    place.seal(replace(place.manifest, image_size=16))


WRONG = (
    *(flag(f"--organ={value}", "`--organ`", "gland") for value in ("", "liver", "../gland")),
    flag("--organ=gland,gland", "`--organ`"),
    flag("--tfrecords=/proc/nowhere", "`--tfrecords`", "No such file"),
    flag("--tfrecords=/proc/sys", "holds no dataset"),
    flag("--tfrecords=gs://B/x", "`--tfrecords`", "gs://my-bucket/tfrecords"),
    *(flag(f"--seconds={value}", "seconds") for value in ("", "nan", "0", "-1", "inf", "601")),
    *(flag(f"--blur={value}", "blur", value) for value in BAD_SHARES),
    *(flag(f"--batch_size={value}", "batch_size") for value in ("0", "many")),
    flag("--image_size=31", "`--image_size`", "32 or more"),
    flag("--precision=float8", "precision", "bfloat16"),
    flag("--xla=maybe", "xla", "off"),
    flag("--augment_on=cloud", "augment_on", "host"),
    flag("--cache=maybe", "cache", "decoded"),
    flag("--cache_budget=4", "`--cache_budget`", "100GB"),
    flag("--scratch_budget=much", "`--scratch_budget`", "100GB"),
    flag("--output=/proc/nowhere/o.json", "`--output`", "No such file"),
    flag("--output=/tmp", "`--output`", "a folder has that name"),
    flag("stray", "'stray'"),
    Row("no training images", without("train"), ("no train records",)),
    Row("manifest cut", manifest_text(lambda text: text[:300]), ("manifest.json is damaged",)),
    Row("images stored too small", _stored_small, ("`--image_size`", "32 or more")),
)


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    with Witness("trainer.bench_request", "trainer.predict") as running:
        yield running


@pytest.mark.parametrize("row", WRONG, ids=lambda row: row.name[:60])
def test_a_wrong_request_is_refused_before_tensorflow_is_imported(
    witness: Witness, tmp_path: Path, tfrecords: Path, row: Row
) -> None:
    with ExitStack() as stack:
        place = Place(tmp_path, tfrecords, stack)
        more = row.make(place) or []
        outcome = witness.run("trainer.bench_input", f"--tfrecords={place.tfrecords}", "--organ=gland", *more)
    assert_refused(outcome, *row.says)


def test_the_command_measures_every_stage_and_ends_with_a_verdict(tfrecords: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tfrecords.rglob("*")}
    flags = (f"--tfrecords={tfrecords}", "--organ=gland", f"--output={tmp_path / 'o.json'}")
    done = run_module("trainer.bench_input", *flags, *QUICK, "--image_size=48", "--blur=1.5", "--mixup=0.2")
    assert done.returncode == EXIT_DONE, done.stderr
    assert {path: path.stat().st_mtime_ns for path in tfrecords.rglob("*")} == before
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["stages"].keys() == ALWAYS
    assert found["without"].keys() == {"--blur", "--mixup"}
    assert found["facts"]["records"] == Manifest.load(tfrecords / "gland").splits["train"].records
    for stage in (*found["stages"].values(), *found["without"].values()):
        assert stage["images_per_s"] > 0
        assert stage["cpu_ms_per_image"] > 0
    table, verdict = done.stdout.strip().split("\n\n")
    assert len(table.splitlines()) == 1 + len(ALWAYS) + 2
    assert verdict.splitlines()[0] == found["verdict"]
    assert "bottleneck" in found["verdict"]


@pytest.mark.long
@pytest.mark.parametrize("faulty_bucket", IN_MEMORY, indirect=True)
def test_a_dataset_in_a_bucket_is_fetched_and_a_damaged_record_is_named(
    faulty_bucket: FaultyBucket, tfrecords: Path, tmp_path: Path
) -> None:
    files = {path.relative_to(tfrecords).as_posix(): path for path in tfrecords.rglob("*") if path.is_file()}
    upload(faulty_bucket.server.folder("tfrecords"), files)
    where = ("--tfrecords=gs://lab/tfrecords", "--organ=gland", f"--scratch={tmp_path}")
    done = run_module("trainer.bench_input", *where, *QUICK, "--augment_on=device", **faulty_bucket.server.env)
    assert done.returncode == EXIT_DONE, done.stderr
    assert "bottleneck" in done.stdout
    (shard,) = sorted(tmp_path.rglob("*train.tfrecord-00000*[0-9]"))
    stat = shard.stat()
    flip_bit(shard, 0.5)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    local = (f"--tfrecords={shard.parents[1]}", "--organ=gland")
    done = run_module("trainer.bench_input", *local, *QUICK)
    assert done.returncode == EXIT_REQUEST
    assert f"{shard}, record " in done.stderr
    assert "Traceback" not in done.stderr


def test_images_kept_decoded_are_those_that_were_sampled(dataset: tuple[Path, Manifest]) -> None:
    stages = stages_of(dataset, tf.distribute.OneDeviceStrategy("CPU:0"))
    sample = stages.sample()
    assert len(sample) == len(stages.reader)
    records = stages.reader.records(np.arange(len(stages.reader)))
    by_pixels = {tf.io.decode_image(record.image).numpy().tobytes(): record.label for record in records}
    assert {image.tobytes(): label for image, label in zip(sample.pixels, sample.labels, strict=True)} == by_pixels


def test_every_replica_is_fed_and_counted(dataset: tuple[Path, Manifest], strategy: tf.distribute.Strategy) -> None:
    stages = stages_of(dataset, strategy)
    assert layout_of(strategy) == stages.layout
    seen = []
    elements = iter(stages._batches(stages.reader, stages.how))
    for _ in range(stages.order.steps_per_epoch * stages.layout.local):
        batch = next(elements)
        seen += batch["index"].numpy()[batch["weight"].numpy() > 0].tolist()
    assert sorted(seen) == list(range(len(stages.reader)))
    assert min(stages.input(stages.reader).images_per_s) > 0


def test_a_source_that_runs_dry_ends_the_measurement_and_the_bar_is_full() -> None:
    pieces, ticks = [32, 32, 5], []
    rate = rate_of(lambda: pieces.pop() if pieces else 0, seconds=60, tick=ticks.append, warm_up=False)
    assert len(rate.images_per_s) == len(rate.cpu_ms) == 1
    assert sum(ticks) == TICKS
    ticks.clear()
    endless = rate_of(lambda: 1, seconds=0.05, tick=ticks.append)
    assert len(endless.images_per_s) == SLICES
    assert sum(ticks) == TICKS


def stages_of(dataset: tuple[Path, Manifest], strategy: tf.distribute.Strategy) -> Stages:
    reader = RecordReader(*dataset, "train")
    order = TrainOrder(len(reader), 10, seed=0)
    return Stages(reader, order, TrainInput(SIZE, Augmentation(), 0), strategy, seconds=0.1)
