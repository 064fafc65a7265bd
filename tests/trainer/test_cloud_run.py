"""Whole runs from and to a bucket, as processes that are stopped and killed, over a network that fails."""

import csv
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_pipeline.cli import EXIT_DONE, EXIT_PREEMPTED
from data_pipeline.transfer import download, upload
from tests.bucket_faults import Seen, seeded
from tests.bucket_server import FaultyBucket
from tests.conftest import run_module
from tests.faults.training.left import left_by
from tests.trainer.conftest import train_command
from tests.trainer.workers import Worker, until
from trainer.export import load_served
from trainer.predict import as_csv, predict
from trainer.published import parse_pointer
from trainer.sealed_state import read_whole

RUN = "runs/gland/r"
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


@pytest.fixture
def cloud(faulty_bucket: FaultyBucket, tfrecords: Path, tmp_path: Path) -> Iterator[Cloud]:
    files = {path.relative_to(tfrecords).as_posix(): path for path in tfrecords.rglob("*") if path.is_file()}
    upload(faulty_bucket.server.folder("tfrecords"), files)
    return Cloud(faulty_bucket, tmp_path)


def step_sent(seen: Seen, name: str) -> int:
    """The step of the checkpoint whose file `name` is uploaded; -1 if that isn't what is asked."""
    found = re.search(rf"step-(\d+)/{name}", seen.body.decode(errors="replace") + seen.address)
    return int(found[1]) if found and seen.method == "POST" else -1


def check_published(folder: Path) -> int:
    """What the pointer names is whole; which step it is."""
    pointer = parse_pointer((folder / "checkpoints" / "last.json").read_bytes())
    assert pointer
    assert read_whole(folder / "checkpoints" / str(pointer))["progress"]["step"] == pointer.step
    return pointer.step


def test_stopped_killed_and_moved_it_ends_bit_identical_to_a_run_on_a_disk(
    cloud: Cloud, finished_run: Path, images: Path, tmp_path: Path
) -> None:
    front = cloud.bucket.front

    # ── SIGTERM, over a network that does all that networks do ───────────────────────────────────────────────────
    front.rule = seeded(3, rate=0.1)
    worker = cloud.start(EVERY_STEP)
    until(lambda: cloud.published() >= 3 or worker.process.poll() is not None, 60, "step 3")
    worker.process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    assert worker.code(30) == EXIT_PREEMPTED, worker.errors
    print(f"{time.monotonic() - sent:.2f} s from SIGTERM to exit; faults: {front.hit()}")
    stopped = check_published(cloud.fetched(tmp_path / "stopped"))
    assert f"Stopped after step {stopped}; it is saved" in worker.errors
    assert f"gs://lab/{RUN} has that of step {stopped}" in worker.errors

    # ── SIGKILL while a checkpoint is uploaded, on another machine ───────────────────────────────────────────────
    front.rule = lambda seen: "hang" if step_sent(seen, "weights.index") > stopped + 4 else ""
    worker = cloud.start(EVERY_STEP)
    until(lambda: "hang" in front.hit() or worker.process.poll() is not None, 60, "an upload")
    worker.process.kill()
    assert f"goes on after step {stopped}" in worker.errors
    killed = check_published(cloud.fetched(tmp_path / "killed"))
    half = max((tmp_path / "killed" / "checkpoints").glob("step-*")).name
    assert stopped < killed < int(half.split("-")[1])

    # ── A third machine takes it to its end ──────────────────────────────────────────────────────────────────────
    front.rule = seeded(4, rate=0.1)
    done = run_module("trainer", *cloud.command(EVERY_STEP), **cloud.bucket.server.env)
    assert done.returncode == EXIT_DONE, done.stderr
    assert f"goes on after step {killed}" in done.stderr
    assert done.stdout.strip() == f"Report: gs://lab/{RUN}/report.html"
    ours, theirs = left_by(cloud.fetched(tmp_path / "done")), left_by(finished_run)
    del ours["leftovers"], theirs["leftovers"]
    assert ours == theirs
    assert not (tmp_path / "done" / "checkpoints" / half).exists()
    assert str(tmp_path) not in (tmp_path / "done" / "report.html").read_text().replace(
        str(cloud.folder / "machine"), ""
    )

    # ── Given again it says so, and fetches neither data nor checkpoints ─────────────────────────────────────────
    before = front.media_bytes()
    again = run_module("trainer", *cloud.command(EVERY_STEP), **cloud.bucket.server.env)
    assert (again.returncode, again.stdout) == (EXIT_DONE, done.stdout)
    assert "finished already" in again.stderr
    assert front.media_bytes() - before < 50_000
    other = run_module("trainer", *cloud.command("--seed=5"), **cloud.bucket.server.env)
    assert other.returncode == 2
    assert f"The run in gs://lab/{RUN} can't go on: --seed was 0 and is 5" in other.stderr

    # ── Prediction from the bucket, into the bucket ──────────────────────────────────────────────────────────────
    new = cloud.bucket.server.folder("new")
    upload(new, {path.relative_to(images).as_posix(): path for path in images.rglob("*.png")})
    new.write("gland/notes.txt", b"not an image")
    new.write("gland/broken.png", b"no image at all")
    front.rule = seeded(5, rate=0.1)
    arguments = [
        f"--model=gs://lab/{RUN}",
        "--output=gs://lab/out/p.csv",
        "gs://lab/new",
        "gs://lab/new/gland/notes.txt",
    ]
    done = run_module("trainer.predict", *arguments, **cloud.bucket.server.env)
    assert done.returncode == 1, done.stderr
    assert "2 of 74 files could not be predicted" in done.stderr
    front.rule = lambda seen: ""
    rows = list(csv.reader(cloud.bucket.server.folder("out").read("p.csv").decode().splitlines()))
    served = load_served(tmp_path / "done")
    local = as_csv(list(predict(served, sorted(images.rglob("*.png")))), served.classes)
    expected = list(csv.reader(local.splitlines()))
    good = [row for row in rows if not row[-1] or row[-1] == "error"]
    assert [row[1:] for row in good] == [row[1:] for row in expected]
    assert good[1][0] == f"gs://lab/new/{Path(expected[1][0]).relative_to(images)}"
