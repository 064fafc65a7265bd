"""How a run in a bucket ends when something comes between: what is told, and how soon."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_pipeline.bucket import ConflictError
from data_pipeline.cli import Preempted
from tests.bucket_server import FaultyBucket
from tests.trainer.test_checkpoints import fill, new
from tests.trainer.workers import until
from trainer.checkpoints import Progress
from trainer.config import TrainConfig
from trainer.preemption import StopSignal
from trainer.published import Name, pointer_to
from trainer.remote_run import POINTER, RemoteRun
from trainer.uploader import uploading
from trainer.uploads import Uploads

ADDRESS = "gs://lab/runs/gland/r"
STOPPED_AFTER_S = 0.5


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    (tmp_path / "runs" / "gland" / "r").mkdir(parents=True)
    (tmp_path / "runs" / "gland" / "r" / "config.json").write_text("{}")
    places = {"tfrecords": tmp_path, "runs": tmp_path / "runs", "runs_address": "gs://lab/runs", "run": "r"}
    return TrainConfig(organ="gland", stop_timeout="1s", **places)


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    """One that a real SIGTERM reaches soon after `listen`."""
    yield StopSignal()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_stop_while_the_run_is_claimed_ends_at_once(
    faulty_bucket: FaultyBucket, config: TrainConfig, stop: StopSignal
) -> None:
    """With a bucket that doesn't answer it would take minutes otherwise, and a scheduler would kill the process."""
    front = faulty_bucket.front
    front.rule = lambda seen: "hang" if seen.method == "POST" else ""
    stop.listen()
    began = time.monotonic()
    threading.Timer(STOPPED_AFTER_S, os.kill, (os.getpid(), signal.SIGTERM)).start()
    threading.Timer(6.0, front.release).start()
    with pytest.raises(Preempted), uploading(config, "f", config.run_folder("f"), stop, chief=True):
        front.rule = lambda seen: ""
    assert STOPPED_AFTER_S <= time.monotonic() - began < 5.0


def test_who_was_overtaken_and_is_stopped_is_told_so_and_not_to_go_on_from_here(
    faulty_bucket: FaultyBucket, config: TrainConfig, stop: StopSignal
) -> None:
    def work(folder: Path, uploads: Uploads) -> None:
        save(1, folder, uploads)
        until(lambda: there(folder, POINTER), 20, "the pointer")
        RemoteRun(ADDRESS, folder).folder.write(POINTER, pointer_to(Name(7)))  # as another process does
        save(2, folder, uploads)
        until(lambda: ended(uploads), 20, "a look at the pointer")

    told = stopped_after(work, config, stop)
    assert re.fullmatch(r"Stopped\.\nAnother process works on the run .* To fix it: .*", told)


def test_what_has_arrived_but_is_not_published_is_not_what_others_go_on_from(
    faulty_bucket: FaultyBucket, config: TrainConfig, stop: StopSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CYTOTRAIN_STORAGE_PATIENCE_S", "0.1")
    front = faulty_bucket.front

    def work(folder: Path, uploads: Uploads) -> None:
        save(1, folder, uploads)
        until(lambda: there(folder, POINTER), 20, "the pointer")
        front.rule = lambda seen: "503" if seen.method == "POST" and b"last.json" in seen.body else ""
        save(2, folder, uploads)
        until(lambda: "503" in front.hit(), 20, "the second pointer")

    told = stopped_after(work, config, stop)
    assert there(config.run_folder("f"), f"checkpoints/{Name(2)}/state.json")
    assert f"The checkpoint of step 2 is NOT in {ADDRESS}" in told
    assert "elsewhere from that of step 1." in told


def stopped_after(work: Callable[[Path, Uploads], None], config: TrainConfig, stop: StopSignal) -> str:
    """What is told at the end."""
    folder = config.run_folder("f")
    try:
        with uploading(config, "f", folder, stop, chief=True) as uploads:
            work(folder, uploads)
            raise Preempted("Stopped.")
    except Preempted as told:
        return str(told)


def save(step: int, folder: Path, uploads: Uploads) -> None:
    checkpoints, model = new(folder / "checkpoints")
    checkpoints.uploads = uploads
    fill(model, step)
    checkpoints.save(Progress(step=step))


def there(folder: Path, name: str) -> bool:
    return RemoteRun(ADDRESS, folder).folder.find(name) is not None


def ended(uploads: Uploads) -> bool:
    try:
        uploads.check()
    except ConflictError:
        return True
    return False
