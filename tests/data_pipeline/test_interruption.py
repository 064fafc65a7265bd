"""Stops, kills, locks and rot: whatever happens on the way, the end is the same."""

import fcntl
import json
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
from data_pipeline.plan_folder import ShardEntry
from data_pipeline.verify import verify
from data_pipeline.write import write_shard
from tests.conftest import ROOT, make_images
from tests.data_pipeline.conversion import contents, convert
from tests.faults.program import run_here


def stage(images: Path, tfrecords: Path, *stages: str) -> Path:
    """Run these stages, as a run does that ends after them; the folder with what they made."""
    run_here(images, tfrecords, *stages)
    return tfrecords / ".gland.partial"


def flip(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def test_a_failing_overwrite_keeps_the_old_dataset(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    old = contents(tmp_path / "tf" / "gland")
    shutil.rmtree(images / "gland" / "red")
    shutil.rmtree(images / "gland" / "green")
    assert "at least 2" in convert(images, tmp_path / "tf", "--overwrite", code=cli.EXIT_REQUEST)
    assert contents(tmp_path / "tf" / "gland") == old


def test_an_interrupted_conversion_goes_on_and_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "whole")
    stage(images, tmp_path / "cut", "inspect", "plan")
    # A stop in the middle of the write stage, which no signal can time so well.
    work = tmp_path / "cut/.gland.partial"
    plan = json.loads((work / "plan" / "plan.json").read_text())
    first = ShardEntry(**plan["shards"][0])
    assert write_shard(first, work=work).fresh
    done = {path: path.stat() for path in (work / "dataset").iterdir()}
    chunks = {path: path.stat() for path in (work / "inspect").iterdir()}
    assert 0 < len(done) < 2 * len(plan["shards"])
    convert(images, tmp_path / "cut", "--stage=write")
    for path, before in (done | chunks).items():  # what was finished was not made again
        assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    convert(images, tmp_path / "cut")
    assert contents(tmp_path / "whole" / "gland") == contents(tmp_path / "cut" / "gland")
    assert not work.exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_with_code_75_and_a_second_run_finishes(images: Path, tmp_path: Path, workers: int) -> None:
    make_images(images / "gland", slides=60, tiles=6, size=100)
    command = [sys.executable, "-m", "data_pipeline", "--organ=gland", f"--images={images}"]
    command += [f"--tfrecords={tmp_path / 'tf'}", "--image_size=32", f"--workers={workers}"]
    chunks = tmp_path / "tf/.gland.partial/inspect"
    for finished in (0, 4, 9):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while len(list(chunks.glob("*.chunk"))) <= finished and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - asked < 10
        assert process.returncode == cli.EXIT_PREEMPTED, errors
        assert "run the same command again" in errors
        assert "Traceback" not in errors
        assert not (tmp_path / "tf" / "gland").exists()
    convert(images, tmp_path / "tf")
    manifest = Manifest.load(tmp_path / "tf" / "gland")
    assert manifest.counts.quarantined == 0
    assert verify(tmp_path / "tf" / "gland", workers=1) == []


def test_a_kill_between_the_two_renames_of_an_overwrite_loses_nothing(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    old = contents(tmp_path / "tf" / "gland")
    (tmp_path / "tf" / "gland").rename(tmp_path / "tf" / ".gland.replaced")
    assert "nothing to do" in convert(images, tmp_path / "tf")
    assert contents(tmp_path / "tf" / "gland") == old


def test_the_old_dataset_is_there_until_the_moment_the_new_one_is(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    target = tmp_path / "tf" / "gland" / "manifest.json"
    before = target.read_bytes()
    command = [sys.executable, "-m", "data_pipeline", "--organ=gland", f"--images={images}", "--overwrite"]
    command += [f"--tfrecords={tmp_path / 'tf'}", "--image_size=40"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seen, absences = [], 0
    while process.poll() is None:
        try:
            seen.append(target.read_bytes())
        except FileNotFoundError:
            absences += 1  # the instant between two renames; what a restart then does is tested above
    after = target.read_bytes()
    assert set(seen) <= {before, after}
    assert absences < 0.01 * len(seen)
    assert before in seen
    assert Manifest.load(target.parent).image_size == 40


def test_a_second_conversion_of_the_same_organ_is_kept_out(images: Path, tmp_path: Path) -> None:
    (tmp_path / "tf").mkdir()
    with (tmp_path / "tf" / ".gland.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process" in convert(images, tmp_path / "tf", code=cli.EXIT_REQUEST)
    convert(images, tmp_path / "tf")


@pytest.mark.parametrize(
    "harm", ["a bit of the shard", "a bit of its index", "no shard", "no index", "cut", "receipt", "split"]
)
def test_a_shard_that_rots_before_sealing_is_written_again(images: Path, tmp_path: Path, harm: str) -> None:
    convert(images, tmp_path / "whole")
    work = stage(images, tmp_path / "tf", "inspect", "plan", "write")
    shard = min((work / "dataset").glob("*.tfrecord-*[0-9]"))
    index, receipt = shard.with_name(f"{shard.name}.offsets"), work / "receipts" / f"{shard.name}.json"
    if harm.startswith("a bit"):
        flip(shard if harm.endswith("shard") else index, 50)
    elif harm.startswith("no"):
        (shard if harm.endswith("shard") else index).unlink()
    elif harm == "cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif harm == "receipt":
        receipt.write_text(receipt.read_text().replace('"seal"', '"sea"'))
    else:
        receipt.write_text(receipt.read_text().replace('"split": "', '"split": "un'))
    convert(images, tmp_path / "tf")
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "whole" / "gland")


def test_shards_of_other_flags_are_not_taken_for_these(images: Path, tmp_path: Path) -> None:
    stage(images, tmp_path / "tf", "inspect", "plan", "write")
    convert(images, tmp_path / "tf", "--image_size=40")
    convert(images, tmp_path / "whole", "--image_size=40")
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "whole" / "gland")


def test_an_image_changed_after_inspection_is_inspected_again(images: Path, tmp_path: Path) -> None:
    """Even if size and time of modification are those of before."""
    image = images / "gland" / "red" / "S200_0.png"
    data, times = image.read_bytes(), image.stat()
    image.write_bytes(data[:-1] + b"?")
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    stage(images, tmp_path / "tf", "inspect", "plan", "write")
    image.write_bytes(data)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    convert(images, tmp_path / "tf")
    assert Manifest.load(tmp_path / "tf" / "gland").counts.quarantined == 0


def test_a_killed_parent_takes_its_workers_with_it(images: Path, tmp_path: Path) -> None:
    make_images(images / "gland", slides=60, tiles=6, size=100)
    command = [sys.executable, "-m", "data_pipeline", "--organ=gland", f"--images={images}", "--workers=2"]
    process = subprocess.Popen([*command, f"--tfrecords={tmp_path / 'tf'}"], cwd=ROOT, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    chunks = tmp_path / "tf/.gland.partial/inspect"
    while not any(chunks.glob("*.chunk")) and process.poll() is None:
        time.sleep(0.01)
    workers = children.read_text().split()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
