"""Several workers over one folder, and stages one at a time: the bytes are those of one process."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline import cli
from data_pipeline.manifest import Manifest
from data_pipeline.spool import SUFFIX
from data_pipeline.verify import verify
from tests.conftest import ROOT, image_bytes, make_images
from tests.data_pipeline.conversion import contents, convert

Process = subprocess.Popen[str]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """540 images, which make nine chunks of the inspection and more shards than one."""
    make_images(tmp_path / "images" / "gland", slides=30, tiles=6)
    (tmp_path / "images" / "gland" / "red" / "broken.png").write_bytes(b"broken")
    return tmp_path / "images"


def start(images: Path, tfrecords: Path, *arguments: str, **environment: str) -> Process:
    command = [sys.executable, "-m", "data_pipeline", "--organ=gland", f"--images={images}", "--image_size=32"]
    return subprocess.Popen(
        [*command, f"--tfrecords={tfrecords}", "--workers=1", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: Process, code: int = cli.EXIT_DONE) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    return output + errors


def test_one_two_and_five_workers_give_identical_bytes(many: Path, tmp_path: Path) -> None:
    convert(many, tmp_path / "alone")
    whole = contents(tmp_path / "alone" / "gland")
    for number in (2, 5):
        shared = tmp_path / f"shared{number}"
        workers = [start(many, shared, f"--num_workers={number}", f"--worker={i}") for i in range(number)]
        said = [finish(worker) for worker in workers]
        assert contents(shared / "gland") == whole
        assert "Dataset: " in said[0]
        assert all("has done its shards" in text or "Dataset: " in text for text in said[1:])
        assert not (shared / ".gland.partial").exists()


def test_workers_share_the_work(many: Path, tmp_path: Path) -> None:
    """Each inspects its own chunks and nobody another's: together all of them."""
    seen: set[str] = set()
    for worker in range(3):
        finish(start(many, tmp_path / "tf", "--stage=inspect", "--num_workers=3", f"--worker={worker}"))
        there = {path.name for path in (tmp_path / "tf/.gland.partial/inspect").glob(f"*{SUFFIX}")}
        assert 2 <= len(there - seen) <= 4
        seen = there
    assert len(seen) == 9


def test_stages_one_at_a_time_give_identical_bytes(many: Path, tmp_path: Path) -> None:
    convert(many, tmp_path / "alone")
    for stage in ("inspect", "plan", "write", "seal"):
        workers = [
            start(many, tmp_path / "tf", f"--stage={stage}", "--num_workers=2", JOB_COMPLETION_INDEX=str(i))
            for i in range(2)
        ]
        for worker in workers:
            finish(worker)
        assert (tmp_path / "tf" / "gland").exists() == (stage == "seal")
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "alone" / "gland")


@pytest.mark.parametrize(("stage", "before"), [("plan", "inspect"), ("write", "plan"), ("seal", "plan")])
def test_a_stage_whose_turn_has_not_come_says_which_is_missing(
    images: Path, tmp_path: Path, stage: str, before: str
) -> None:
    message = finish(start(images, tmp_path / "tf", f"--stage={stage}"), cli.EXIT_REQUEST)
    assert f"run --stage={before}" in message


def test_the_seal_waits_for_no_shard_that_is_missing(many: Path, tmp_path: Path) -> None:
    for stage in ("inspect", "plan"):
        finish(start(many, tmp_path / "tf", f"--stage={stage}"))
    finish(start(many, tmp_path / "tf", "--stage=write", "--num_workers=2", "--worker=1"))
    assert "run --stage=write" in finish(start(many, tmp_path / "tf", "--stage=seal"), cli.EXIT_REQUEST)


def test_a_plan_for_other_flags_is_no_plan(many: Path, tmp_path: Path) -> None:
    for stage in ("inspect", "plan"):
        finish(start(many, tmp_path / "tf", f"--stage={stage}"))
    message = finish(start(many, tmp_path / "tf", "--stage=write", "--seed=7"), cli.EXIT_REQUEST)
    assert "run --stage=plan" in message


def test_a_worker_that_is_killed_and_comes_back_costs_no_byte(many: Path, tmp_path: Path) -> None:
    convert(many, tmp_path / "alone")
    flags = ["--num_workers=2"]
    first = start(many, tmp_path / "tf", *flags, "--worker=0")
    second = start(many, tmp_path / "tf", *flags, "--worker=1")
    chunks = tmp_path / "tf/.gland.partial/inspect"
    deadline = time.monotonic() + 60
    while len(list(chunks.glob("*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    second.communicate()
    time.sleep(1)
    assert first.poll() is None  # it waits
    finish(start(many, tmp_path / "tf", *flags, "--worker=1"))
    finish(first)
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "alone" / "gland")


def test_a_worker_that_never_comes_is_not_waited_for(many: Path, tmp_path: Path) -> None:
    convert(many, tmp_path / "alone")
    text = finish(start(many, tmp_path / "tf", "--num_workers=3", "--worker=0", "--patience_s=1"))
    assert "worker 0 makes them itself" in text
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "alone" / "gland")


def test_a_request_that_worker_0_refuses_is_refused_by_all(images: Path, tmp_path: Path) -> None:
    for diagnosis in ("red", "green"):
        shutil.rmtree(images / "gland" / diagnosis)
    workers = [start(images, tmp_path / "tf", "--num_workers=2", f"--worker={i}") for i in (0, 1)]
    for worker in workers:
        assert "at least 2" in finish(worker, cli.EXIT_REQUEST)


def test_a_chunk_under_another_ones_name_is_made_again(many: Path, tmp_path: Path) -> None:
    convert(many, tmp_path / "alone")
    finish(start(many, tmp_path / "tf", "--stage=inspect"))
    chunks = sorted((tmp_path / "tf/.gland.partial/inspect").glob(f"*{SUFFIX}"))
    shutil.copy(chunks[0], chunks[1])
    convert(many, tmp_path / "tf")
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "alone" / "gland")


def test_shards_set_aside_by_a_seal_that_was_cut_off_are_taken_up_again(many: Path, tmp_path: Path) -> None:
    convert(many, tmp_path / "alone")
    for stage in ("inspect", "plan", "write"):
        finish(start(many, tmp_path / "tf", f"--stage={stage}"))
    work = tmp_path / "tf/.gland.partial"
    (work / "dataset").rename(work / "sealing")
    before = {path.name: path.stat().st_ino for path in (work / "sealing").glob("*.tfrecord-*")}
    convert(many, tmp_path / "tf")
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "alone" / "gland")
    assert before == {path.name: path.stat().st_ino for path in (tmp_path / "tf" / "gland").glob("*.tfrecord-*")}


def test_a_plan_that_is_no_plan_is_made_again(many: Path, tmp_path: Path) -> None:
    for stage in ("inspect", "plan"):
        finish(start(many, tmp_path / "tf", f"--stage={stage}"))
    plan = tmp_path / "tf/.gland.partial/plan/plan.json"
    whole = plan.read_text()
    for text in ("[]", "{}", whole.replace("red", "rec", 1), whole[:-9], ""):
        plan.write_text(text)
        assert "run --stage=plan" in finish(start(many, tmp_path / "tf", "--stage=write"), cli.EXIT_REQUEST)
    plan.write_text(whole)
    next(plan.parent.glob("*.tfrecord-*")).unlink()
    assert "--stage=plan" in finish(start(many, tmp_path / "tf", "--stage=write"), cli.EXIT_FAULT)


def test_a_waiting_worker_can_be_stopped(many: Path, tmp_path: Path) -> None:
    process = start(many, tmp_path / "tf", "--num_workers=2", "--worker=0")
    time.sleep(4)
    process.send_signal(signal.SIGTERM)
    finish(process, cli.EXIT_PREEMPTED)


def test_the_same_worker_twice_and_a_lone_run_beside_workers_are_refused(many: Path, tmp_path: Path) -> None:
    flags = ["--num_workers=2", "--worker=0"]
    first = start(many, tmp_path / "tf", *flags)
    lock = tmp_path / "tf/.gland.lock.0"
    while not lock.exists():
        time.sleep(0.01)
    time.sleep(0.5)
    assert "Worker 0 of gland is running" in finish(start(many, tmp_path / "tf", *flags), cli.EXIT_REQUEST)
    assert "another process" in finish(start(many, tmp_path / "tf"), cli.EXIT_REQUEST)
    finish(start(many, tmp_path / "tf", "--num_workers=2", "--worker=1"))
    finish(first)


def test_a_chunk_that_is_damaged_is_made_again_whoever_made_it(many: Path, tmp_path: Path) -> None:
    convert(many, tmp_path / "alone")
    for stage in ("inspect", "plan"):
        finish(start(many, tmp_path / "tf", f"--stage={stage}"))
    chunks = sorted((tmp_path / "tf/.gland.partial/inspect").glob(f"*{SUFFIX}"))
    data = bytearray(chunks[0].read_bytes())
    data[100] ^= 1  # inside an image
    chunks[0].write_bytes(data)
    chunks[1].write_bytes(chunks[1].read_bytes()[:-9])  # its rows are gone
    chunks[2].unlink()
    for worker in (0, 1):
        finish(start(many, tmp_path / "tf", "--stage=write", "--num_workers=2", f"--worker={worker}"))
    finish(start(many, tmp_path / "tf", "--stage=seal"))
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "alone" / "gland")


def test_a_finished_job_is_up_to_date_for_every_worker(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    for worker in (0, 1):
        text = finish(start(images, tmp_path / "tf", "--num_workers=2", f"--worker={worker}"))
        assert "nothing to do" in text
    (images / "gland" / "red" / "S290_0.png").write_bytes(image_bytes(77))
    flags = ["--num_workers=2", "--overwrite"]
    workers = [start(images, tmp_path / "tf", *flags, f"--worker={i}") for i in (0, 1)]
    for process in workers:
        finish(process)
    assert Manifest.load(tmp_path / "tf" / "gland").counts.inputs == 73
    assert verify(tmp_path / "tf" / "gland", workers=1) == []


@pytest.mark.parametrize("flags", [["--num_workers=2", "--worker=2"], ["--worker=1"]])
def test_a_worker_beyond_their_number_is_refused(images: Path, tmp_path: Path, flags: list[str]) -> None:
    assert "--num_workers" in finish(start(images, tmp_path / "tf", *flags), cli.EXIT_REQUEST)
