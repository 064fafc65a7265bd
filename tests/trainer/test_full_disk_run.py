"""Whole runs, as processes, on a disk that fills up."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_pipeline import cli
from tests.conftest import ROOT, run_module
from tests.faults.disks import Disk, mounted
from tests.trainer.conftest import train_command

pytestmark = pytest.mark.long

REFUSED = "could NOT be saved"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk", size_mb=64) as disk:
        yield disk


@contextmanager
def on_a_full_disk(tfrecords: Path, disk: Disk, says: Path, *arguments: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A run that has saved something, and then been refused something."""
    command = train_command(tfrecords, disk.folder, "--epochs=30", "--checkpoint_every=1", *arguments)
    with says.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "trainer", *map(str, command)], cwd=ROOT, stderr=file)
    try:
        wait_for(process, (disk.folder / "gland" / "r" / "checkpoints" / "last.json").exists)
        fill(process, disk, says)
        disk.free()  # a save that was under way has given some space back by now
        fill(process, disk, says)
        yield process
    finally:
        process.kill()
        process.wait()


def fill(process: "subprocess.Popen[bytes]", disk: Disk, says: Path) -> None:
    """Fill the disk, and wait until the run has met with it."""
    process.send_signal(signal.SIGSTOP)
    disk.fill(spare_pages=0)
    seen = says.read_text().count(REFUSED)
    process.send_signal(signal.SIGCONT)
    wait_for(process, lambda: says.read_text().count(REFUSED) > seen)


def wait_for(process: "subprocess.Popen[bytes]", condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_disk_that_is_full_for_a_while_is_no_end(tfrecords: Path, disk: Disk, tmp_path: Path) -> None:
    with on_a_full_disk(tfrecords, disk, tmp_path / "says") as process:
        time.sleep(2)
        disk.free()
        assert process.wait(timeout=200) == cli.EXIT_DONE, (tmp_path / "says").read_text()
        said = (tmp_path / "says").read_text()
        assert "No space left on device" in said
        assert "To fix it: free some space there" in said
        assert "Traceback" not in said
        folder = disk.folder / "gland" / "r"
        assert len(json.loads((folder / "metrics.json").read_text())["history"]) == 30
        assert not list((folder / "checkpoints").glob(".*"))


def test_told_to_stop_on_a_full_disk_it_ends_with_code_75_and_goes_on_later(
    tfrecords: Path, disk: Disk, tmp_path: Path
) -> None:
    with on_a_full_disk(tfrecords, disk, tmp_path / "says") as process:
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == cli.EXIT_PREEMPTED
        print(f"{time.monotonic() - sent:.2f} s from SIGTERM to exit")
        assert time.monotonic() - sent < 10
        said = (tmp_path / "says").read_text().splitlines()
        stopped = next(line for line in said if "Stopped after step" in line)
        assert REFUSED in stopped
        last = json.loads((disk.folder / "gland" / "r" / "checkpoints" / "last.json").read_text())["checkpoint"]
        assert f"goes back to that of step {int(last.split('-')[1])}." in stopped
        disk.free()
        done = run_module("trainer", *train_command(tfrecords, disk.folder, "--epochs=30", "--checkpoint_every=1"))
        assert done.returncode == cli.EXIT_DONE, done.stderr
        assert f"goes on after step {int(last.split('-')[1])}" in done.stderr


def test_a_disk_that_stays_full_ends_it_with_a_fault(tfrecords: Path, disk: Disk, tmp_path: Path) -> None:
    with on_a_full_disk(tfrecords, disk, tmp_path / "says", "--checkpoint_deadline=2s") as process:
        assert process.wait(timeout=100) == cli.EXIT_FAULT
        said = (tmp_path / "says").read_text()
        assert "--checkpoint_deadline is 2 s. To fix it: free some space there" in said
        assert "Traceback" not in said


def test_checkpoints_that_were_copied_from_another_run_are_refused(
    finished_run: Path, tfrecords: Path, tmp_path: Path
) -> None:
    """Their folder alone, beside a config.json that would fit."""
    made = run_module("trainer", *train_command(tfrecords, tmp_path, "--seed=5", "--epochs=1"))
    assert made.returncode == cli.EXIT_DONE, made.stderr
    folder = tmp_path / "gland" / "r"
    (folder / "metrics.json").unlink()
    for path in (folder / "checkpoints").iterdir():
        path.unlink() if path.is_file() else [*map(Path.unlink, path.iterdir()), path.rmdir()]
    subprocess.run(["cp", "-r", f"{finished_run}/checkpoints/.", str(folder / "checkpoints")], check=True)
    done = run_module("trainer", *train_command(tfrecords, tmp_path, "--seed=5", "--epochs=1"))
    assert done.returncode == cli.EXIT_REQUEST, done.stderr
    assert "is of another run: --epochs was 4 and is 1; --seed was 0 and is 5. To fix it: " in done.stderr
    assert "Traceback" not in done.stderr
