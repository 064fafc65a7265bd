"""Whole runs from and to a bucket, as processes that are stopped and killed, over a network that fails."""

import csv
import json
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_pipeline.cli import EXIT_DONE, EXIT_FAULT, EXIT_PREEMPTED, EXIT_REQUEST
from data_pipeline.transfer import download, upload
from tests.bucket_faults import FaultyFront, Seen, seeded
from tests.bucket_server import BucketServer, FaultyBucket
from tests.conftest import run_module
from tests.faults.training.left import left_by
from tests.trainer.conftest import train_command
from tests.trainer.witness import NOT_IMPORTED, Witness
from tests.trainer.workers import Worker, free_addresses, until
from trainer.evaluate import checked_split, evaluate_served
from trainer.export import load_served
from trainer.predict import as_csv, predict
from trainer.published import parse_pointer
from trainer.run_folder import model_folder
from trainer.sealed_state import read_whole

RUN = "runs/gland/r"
REPORT = f"Report: gs://lab/{RUN}/report.html\n"
EVERY_STEP = "--checkpoint_every=1"


@dataclass
class Cloud:
    """A bucket with the dataset in it, and machines without anything that train from it."""

    bucket: FaultyBucket
    folder: Path
    machines: int = 0

    def command(self, *more: object) -> list[object]:
        """For a machine that has nothing yet."""
        self.machines += 1
        return self.command_here(*more)

    def command_here(self, *more: object) -> list[object]:
        """For the machine that had the last command."""
        places = ["--tfrecords=gs://lab/tfrecords", "--runs=gs://lab/runs"]
        scratch = f"--scratch={self.folder / f'machine-{self.machines}'}"
        return [*train_command(Path(), Path()), *places, scratch, *more]

    def start(self, *more: object) -> Worker:
        return Worker("trainer", *self.command(*more), **self.bucket.server.env)

    def published(self) -> int:
        """The step that the pointer in the bucket names; -1 if there is none."""
        path = self.folder / "buckets" / "lab" / RUN / "checkpoints" / "last.json"
        name = parse_pointer(path.read_bytes()) if path.exists() else None
        return name.step if name else -1

    def fetched(self, to: Path) -> Path:
        """The run as the bucket has it."""
        self.bucket.front.rule = lambda seen: ""
        run = self.bucket.server.folder(RUN)
        download(run, run.files(), to)
        return to


@pytest.fixture(scope="module")
def cloud(tfrecords: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One for all tests here, which go on with what the one before has left."""
    folder = tmp_path_factory.mktemp("cloud")
    (folder / "buckets").mkdir()
    (address,) = free_addresses(1)
    front = FaultyFront(f"http://{address}")
    with (
        pytest.MonkeyPatch.context() as patch,
        front.running(),
        BucketServer.started(folder / "buckets", front=front.url, address=address) as server,
    ):
        for name, value in server.env.items():
            patch.setenv(name, value)
        files = {path.relative_to(tfrecords).as_posix(): path for path in tfrecords.rglob("*") if path.is_file()}
        upload(server.folder("tfrecords"), files)
        yield Cloud(FaultyBucket(server, front), folder)


def step_sent(seen: Seen, name: str) -> int:
    """The step of the checkpoint whose file `name` is uploaded; -1 if that isn't what is asked."""
    found = re.search(rf"step-(\d+)/{name}", seen.body.decode(errors="replace") + seen.address)
    return int(found[1]) if found and seen.method == "POST" else -1


def half_uploaded(folder: Path, published: int) -> list[str]:
    """The names of checkpoints beyond the one that is published."""
    names = [path.name for path in (folder / "checkpoints").glob("step-*")]
    return [name for name in names if int(name.split("-")[1]) > published]


def check_published(folder: Path) -> int:
    """What the pointer names is whole; which step it is."""
    pointer = parse_pointer((folder / "checkpoints" / "last.json").read_bytes())
    assert pointer
    assert read_whole(folder / "checkpoints" / str(pointer))["progress"]["step"] == pointer.step
    return pointer.step


@pytest.fixture(scope="module")
def stopped(cloud: Cloud) -> int:
    """A run that got SIGTERM, over a network that does all that networks do; the step it was stopped after."""
    cloud.bucket.front.rule = seeded(3, rate=0.1)
    worker = cloud.start(EVERY_STEP)
    until(lambda: cloud.published() >= 3 or worker.process.poll() is not None, 60, "step 3")
    worker.process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    assert worker.code(30) == EXIT_PREEMPTED, worker.errors
    print(f"{time.monotonic() - sent:.2f} s from SIGTERM to exit; faults: {cloud.bucket.front.hit()}")
    step = check_published(cloud.fetched(cloud.folder / "stopped"))
    assert f"Stopped after step {step}; it is saved" in worker.errors
    assert f"gs://lab/{RUN} has that of step {step}" in worker.errors
    return step


@pytest.fixture(scope="module")
def killed(cloud: Cloud, stopped: int) -> int:
    """The run, killed on another machine while it uploaded a checkpoint; the step that was published before."""
    front = cloud.bucket.front
    front.rule = lambda seen: "hang" if step_sent(seen, "weights.index") > stopped + 4 else ""
    worker = cloud.start(EVERY_STEP)
    until(lambda: "hang" in front.hit() or worker.process.poll() is not None, 60, "an upload")
    worker.process.kill()
    assert f"goes on after step {stopped}" in worker.errors
    step = check_published(cloud.fetched(cloud.folder / "killed"))
    assert step >= stopped
    return step


@pytest.fixture(scope="module")
def done(cloud: Cloud, killed: int) -> Path:
    """The run, taken to its end by a third machine, as the bucket has it then."""
    cloud.bucket.front.rule = seeded(4, rate=0.05)
    ended = run_module("trainer", *cloud.command(EVERY_STEP), **cloud.bucket.server.env)
    assert ended.returncode == EXIT_DONE, ended.stderr
    assert f"goes on after step {killed}" in ended.stderr
    assert ended.stdout == REPORT
    return cloud.fetched(cloud.folder / "done")


def test_stopped_killed_and_moved_it_ends_bit_identical_to_a_run_on_a_disk(
    cloud: Cloud, killed: int, done: Path, finished_run: Path
) -> None:
    ours, theirs = left_by(done), left_by(finished_run)
    del ours["leftovers"], theirs["leftovers"]
    assert ours == theirs
    (half,) = half_uploaded(cloud.folder / "killed", killed)
    assert not (done / "checkpoints" / half).exists()
    scratch = cloud.folder / f"machine-{cloud.machines}"
    assert not [path for path in (scratch / "runs").rglob("*") if path.is_file()]  # what is in the bucket isn't kept


def test_places_are_called_by_their_addresses(cloud: Cloud, done: Path) -> None:
    for text in ((done / "config.json").read_text(), (done / "report.html").read_text()):
        assert "--tfrecords=gs://lab/tfrecords --runs=gs://lab/runs" in text


def test_a_finished_run_given_again_says_so_and_fetches_neither_data_nor_checkpoints(cloud: Cloud, done: Path) -> None:
    before = cloud.bucket.front.media_bytes()
    with Witness("trainer.preflight") as witness:
        again = witness.run("trainer", *map(str, cloud.command(EVERY_STEP)))
        other = witness.run("trainer", *map(str, cloud.command("--seed=5")))
    assert (again.code, again.output, again.tensorflow) == (EXIT_DONE, REPORT, NOT_IMPORTED)
    assert "finished already" in again.errors
    assert other.code == EXIT_REQUEST
    assert f"The run in gs://lab/{RUN} can't go on: --seed was 0 and is 5" in other.errors
    assert cloud.bucket.front.media_bytes() - before < 50_000
    assert not list(cloud.folder.glob(f"machine-{cloud.machines}/*"))


def test_prediction_from_and_to_the_bucket_is_that_from_a_disk(cloud: Cloud, done: Path, images: Path) -> None:
    new = cloud.bucket.server.folder("new")
    upload(new, {path.relative_to(images).as_posix(): path for path in images.rglob("*.png")})
    new.write("gland/notes.txt", b"not an image")
    new.write("gland/broken.png", b"no image at all")
    cloud.bucket.front.rule = seeded(5, rate=0.05)
    places = [f"--model=gs://lab/{RUN}", "--output=gs://lab/out/p.csv", "gs://lab/new", "gs://lab/new/gland/notes.txt"]
    ended = run_module("trainer.predict", *places, **cloud.bucket.server.env)
    cloud.bucket.front.rule = lambda seen: ""
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == "Predictions: gs://lab/out/p.csv (74 files)\n"
    assert "2 of 74 files could not be predicted" in ended.stderr
    rows = list(csv.reader(cloud.bucket.server.folder("out").read("p.csv").decode().splitlines()))
    served = load_served(done)
    expected = as_csv(list(predict(served, sorted(images.rglob("*.png")))), served.classes).replace(
        str(images), "gs://lab/new"
    )
    assert [row for row in rows if row[1]] == list(csv.reader(expected.splitlines()))
    assert [row[0] for row in rows if not row[1]] == ["gs://lab/new/gland/broken.png", "gs://lab/new/gland/notes.txt"]


def test_evaluation_from_the_bucket_is_the_test_of_the_run(cloud: Cloud, done: Path) -> None:
    places = {"tfrecords": "gs://lab/tfrecords", "scratch": str(cloud.folder / "e"), "scratch_budget": "1GB"}
    values = SimpleNamespace(organ="gland", split="test", **places)
    with model_folder(f"gs://lab/{RUN}/model") as model, checked_split(values) as (dataset, manifest):
        metrics = evaluate_served(model, dataset, manifest, "test")
    assert metrics == json.loads((done / "metrics.json").read_text())["test"]
    assert not model.exists()


def test_a_run_that_another_process_has_gone_on_with_ends_and_says_so(cloud: Cloud, tmp_path: Path) -> None:
    cloud.bucket.front.rule = lambda seen: ""
    worker = cloud.start(EVERY_STEP, "--run=two", "--epochs=200")
    pointer = cloud.bucket.server.folder("runs/gland/two/checkpoints")
    until(lambda: pointer.find("last.json") or worker.process.poll() is not None, 60, "a checkpoint")
    pointer.write("last.json", b"{}")  # as another process would, in place of what is there now
    assert worker.code(30) == EXIT_FAULT, worker.errors
    assert "Another process works on the run gs://lab/runs/gland/two" in worker.errors
    assert "Traceback" not in worker.errors
    assert pointer.read("last.json") == b"{}"
