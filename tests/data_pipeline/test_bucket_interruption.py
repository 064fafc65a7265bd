"""Machines that are lost, processes that are killed, two at once: a bucket holds a whole dataset or none."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline import cli
from data_pipeline.bucket import BucketFolder
from data_pipeline.bucket_dataset import fetch
from data_pipeline.manifest import FILE_NAME, DatasetError, Manifest
from data_pipeline.settings import Settings
from data_pipeline.stages import convert
from data_pipeline.verify import verify
from tests.bucket_faults import FaultyFront, Seen, seeded
from tests.bucket_server import BucketServer, FaultyBucket
from tests.conftest import ROOT, make_images
from tests.data_pipeline.bucket_files import TO, convert_here, fetched, fill, to_bucket
from tests.data_pipeline.conversion import contents
from tests.faults.program import IMAGE_SIZE, conversion, run_here

DEADLINE_S = 60.0
# Among them those that take the claim and remove the old manifest, files, and, past the last one, none at all.
STRUCK = (1, 2, 3, 8, 15, 16, 99)


def start(images: Path | str, scratch: Path, *arguments: str, module: str = "data_pipeline") -> "subprocess.Popen[str]":
    """The conversion as a process group of its own."""
    flags = ["--organ=gland", f"--images={images}", f"--tfrecords={TO}", f"--scratch={scratch}", "--image_size=32"]
    return subprocess.Popen(
        [sys.executable, "-m", module, *flags, "--workers=1", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_until(happened: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.poll() is None, process.communicate()
    assert happened()


def read_images(front: FaultyFront, since: int = 0) -> list[str]:
    """The images that were fetched, one entry for each time."""
    return [seen.address for seen in front.log[since:] if seen.media and "/images/gland" in seen.address]


def whole_or_none(folder: BucketFolder, target: Path) -> str:
    """`none`, or the fingerprint of the dataset there, every file of which must be what its manifest says."""
    shutil.rmtree(target, ignore_errors=True)
    try:
        fetch(folder / "gland", target)
    except DatasetError:
        return "none"
    manifest = Manifest.load(target)
    known = {FILE_NAME, *(file.path for file in manifest.files)}
    known |= {name for shard in manifest.shards for name in (shard.path, shard.offsets.path)}
    for path in target.iterdir():  # what an overwrite hasn't removed yet is no harm to who reads by the manifest
        if path.name not in known:
            path.unlink()
    assert verify(target, workers=1) == []
    return manifest.fingerprint


def test_a_machine_lost_in_mid_conversion_takes_no_finished_work_with_it(
    faulty_bucket: FaultyBucket, tmp_path: Path
) -> None:
    server, front = faulty_bucket.server, faulty_bucket.front
    images, number, done = tmp_path / "images", 5 * 64 + 4, 3 * 64
    make_images(images / "gland", slides=18, tiles=6, size=32)
    fill(server.folder("images"), images)
    run_here(images, tmp_path / "tf")
    front.rule = lambda seen: "hang" if len(read_images(front)) > done + 10 and seen.media else ""
    kept = lambda: server.folder("tf/.gland.partial").files()  # noqa: E731
    process = start("gs://lab/images", tmp_path / "scratch")
    wait_until(lambda: len(kept()) == 3, process)
    kill(process)
    shutil.rmtree(tmp_path / "scratch")  # the disk went with the machine
    front.rule = lambda seen: ""
    front.release()
    began = len(front.log)
    said = to_bucket("gs://lab/images", tmp_path / "scratch")
    assert f"{done} files were inspected by a run before" in said
    assert len(read_images(front, began)) == number - done
    assert fetched(server.folder("tf"), tmp_path / "theirs") == contents(tmp_path / "tf" / "gland")
    assert kept() == []


def test_kills_while_publishing_leave_a_whole_dataset_or_none(faulty_bucket: FaultyBucket, tmp_path: Path) -> None:
    """An overwrite, ended by SIGKILL at one of its requests that change something."""
    server, front = faulty_bucket.server, faulty_bucket.front
    folder = server.folder("tf")
    images = make_images(tmp_path / "images" / "gland").parent
    convert_here(images, tmp_path / "scratch", image_size=24)
    old = whole_or_none(folder, tmp_path / "seen")
    before = {blob.name: folder.read(blob) for blob in folder.files()}
    run_here(images, tmp_path / "tf")
    new = Manifest.load(tmp_path / "tf" / "gland").fingerprint
    found: list[str] = []
    for number in STRUCK:
        shutil.rmtree(tmp_path / "scratch", ignore_errors=True)
        folder.delete([blob.name for blob in folder.files()])
        for name, data in before.items():
            folder.write(name, data)
        reached = fail_from_change(front, number, after=number % 2 == 1)
        process = start(images, tmp_path / "scratch", "--overwrite")
        while not reached() and process.poll() is None:
            time.sleep(0.01)
        code = process.poll()
        kill(process)
        front.rule = lambda seen: ""
        found.append(whole_or_none(folder, tmp_path / "seen"))
        if code == cli.EXIT_DONE:
            break
    assert found[-1] == new
    assert set(found) == {old, "none", new}
    assert found == sorted(found, key=[old, "none", new].index)  # never back again
    convert_here(images, tmp_path / "scratch", overwrite=True)
    assert fetched(folder, tmp_path / "theirs") == contents(tmp_path / "tf" / "gland")


def fail_from_change(front: FaultyFront, number: int, *, after: bool) -> Callable[[], bool]:
    """Have the front lose the `number`-th change to the dataset, or its answer, and all later ones; whether it came."""
    changes: list[Seen] = []

    def rule(seen: Seen) -> str:
        if seen.method in ("POST", "PUT", "DELETE") and "partial" not in seen.address:
            changes.append(seen)
        return ("reset after" if after and len(changes) == number else "reset before") if len(changes) >= number else ""

    front.rule = rule
    return lambda: len(changes) >= number


def test_of_two_that_publish_different_datasets_one_wins_and_the_other_is_told(
    bucket_server: BucketServer, tmp_path: Path
) -> None:
    images = make_images(tmp_path / "images" / "gland").parent
    processes = [start(images, tmp_path / f"scratch{seed}", f"--seed={seed}") for seed in (0, 1)]
    outcomes = [(process.communicate(timeout=DEADLINE_S), process.returncode) for process in processes]
    assert sorted(code for _, code in outcomes) == [cli.EXIT_DONE, cli.EXIT_FAULT], outcomes
    ((_, said),) = (output for output, code in outcomes if code == cli.EXIT_FAULT)
    assert "nother dataset" in said or "written by somebody else" in said
    assert "Traceback" not in said
    winner = [code for _, code in outcomes].index(cli.EXIT_DONE)
    (tmp_path / "tf").mkdir()
    convert(conversion(images, tmp_path / "tf", settings=Settings(image_size=IMAGE_SIZE, seed=winner)))
    assert fetched(bucket_server.folder("tf"), tmp_path / "theirs") == contents(tmp_path / "tf" / "gland")


@pytest.mark.parametrize("moment", ["gland-train.tfrecord", "gland/manifest.json"])
def test_who_was_overtaken_while_publishing_is_told_and_changes_nothing_more(
    faulty_bucket: FaultyBucket, tmp_path: Path, moment: str
) -> None:
    server, front = faulty_bucket.server, faulty_bucket.front
    images = make_images(tmp_path / "images" / "gland").parent
    front.rule = lambda seen: "hang" if seen.method == "POST" and moment.encode() in seen.body else ""
    slow = start(images, tmp_path / "slow", "--seed=1")
    wait_until(lambda: "hang" in front.hit(), slow)
    front.rule = lambda seen: ""
    convert_here(images, tmp_path / "fast", overwrite=True)
    front.release()
    _, said = slow.communicate(timeout=DEADLINE_S)
    assert slow.returncode == cli.EXIT_FAULT, said
    assert "nother dataset" in said or "written by somebody else" in said
    run_here(images, tmp_path / "tf")
    assert fetched(server.folder("tf"), tmp_path / "theirs") == contents(tmp_path / "tf" / "gland")


def test_two_that_do_the_same_both_succeed(bucket_server: BucketServer, tmp_path: Path) -> None:
    images = make_images(tmp_path / "images" / "gland").parent
    processes = [start(images, tmp_path / f"scratch{number}") for number in (0, 1)]
    for process in processes:
        _, said = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == cli.EXIT_DONE, said
    assert whole_or_none(bucket_server.folder("tf"), tmp_path / "seen") != "none"


@pytest.mark.parametrize("moment", ["images", "publish"])
def test_sigterm_ends_a_transfer_at_once_with_code_75(faulty_bucket: FaultyBucket, tmp_path: Path, moment: str) -> None:
    """Even while every thread waits for an answer."""
    server, front = faulty_bucket.server, faulty_bucket.front
    images = make_images(tmp_path / "images" / "gland").parent
    fill(server.folder("images"), images)
    part = "/images/gland/red" if moment == "images" else "gland-train.tfrecord"
    front.rule = lambda seen: "hang" if part in seen.address or part.encode() in seen.body else ""
    process = start("gs://lab/images", tmp_path / "scratch")
    wait_until(lambda: "hang" in front.hit(), process)
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert time.monotonic() - asked < 5
    assert process.returncode == cli.EXIT_PREEMPTED, said
    assert "Traceback" not in said
    front.rule = lambda seen: ""
    front.release()
    convert_here("gs://lab/images", tmp_path / "scratch")


DOWNLOAD = """
import sys
from pathlib import Path
from data_pipeline import transfer
from data_pipeline.bucket import BucketFolder
transfer.PIECE_BYTES = 1 << 20
folder = BucketFolder.of("x", "gs://lab/x")
transfer.download(folder, folder.files(), Path(sys.argv[1]))
"""


def test_a_download_killed_midway_goes_on_where_it_was(faulty_bucket: FaultyBucket, tmp_path: Path) -> None:
    server, front = faulty_bucket.server, faulty_bucket.front
    data = random.Random(1).randbytes(12 << 20)
    server.folder("x").write("large", data)
    command = [sys.executable, "-c", DOWNLOAD, str(tmp_path / "to")]
    front.latency_s = 0.1
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, text=True, stdout=-1, stderr=-1)
    wait_until(lambda: front.media_bytes() > 5 << 20, process)
    kill(process)
    assert not (tmp_path / "to" / "large").exists()
    front.latency_s, before = 0.0, front.media_bytes()
    subprocess.run(command, cwd=ROOT, check=True, timeout=DEADLINE_S)
    assert (tmp_path / "to" / "large").read_bytes() == data
    assert front.media_bytes() - before <= len(data) - (4 << 20)
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["large"]


UPLOAD = """
import sys
from pathlib import Path
from data_pipeline.bucket import BucketFolder
BucketFolder.of("x", "gs://lab/x").write("large", Path(sys.argv[1]))
"""


@pytest.mark.parametrize("there", [b"", b"the object of before"])
def test_an_upload_killed_midway_leaves_what_was_there(
    faulty_bucket: FaultyBucket, tmp_path: Path, there: bytes
) -> None:
    server, front = faulty_bucket.server, faulty_bucket.front
    (tmp_path / "large").write_bytes(random.Random(1).randbytes(9 << 20))
    if there:
        server.folder("x").write("large", there)
    before = server.folder("x").files()
    front.rule = lambda seen: "hang" if seen.method == "PUT" else ""
    command = [sys.executable, "-c", UPLOAD, str(tmp_path / "large")]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, text=True, stdout=-1, stderr=-1)
    wait_until(lambda: "hang" in front.hit(), process)
    kill(process)
    assert server.folder("x").files() == before


def test_kills_at_any_moment_and_lost_disks_end_with_the_same_bytes(
    faulty_bucket: FaultyBucket, tmp_path: Path
) -> None:
    """Through a network that fails, too."""
    server, front = faulty_bucket.server, faulty_bucket.front
    images = make_images(tmp_path / "images" / "gland", slides=22, tiles=3).parent
    fill(server.folder("images"), images)
    run_here(images, tmp_path / "tf")
    chance = random.Random(7)
    front.rule = seeded(7, rate=0.03, faults=("reset before", "reset after", "503", "cut", "flip"))
    front.latency_s = 0.01
    for _ in range(4):
        began, requests = len(front.log), chance.randint(20, 250)
        process = start("gs://lab/images", tmp_path / "scratch")
        while len(front.log) - began < requests and process.poll() is None:
            time.sleep(0.005)
        kill(process)
        assert whole_or_none(server.folder("tf"), tmp_path / "seen") in (
            "none",
            Manifest.load(tmp_path / "tf" / "gland").fingerprint,
        )
        if chance.random() < 0.5:
            shutil.rmtree(tmp_path / "scratch")
    front.latency_s = 0.0
    convert_here("gs://lab/images", tmp_path / "scratch")
    assert fetched(server.folder("tf"), tmp_path / "theirs") == contents(tmp_path / "tf" / "gland")
