"""A process that is stuck ends by itself and says where; one that isn't is left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline import cli
from tests.conftest import ROOT
from tests.trainer.jobs import Dataset
from tests.trainer.test_divergence_workers import start_two

# The main thread waits in C++ for a batch that never comes.
STUCK = """
import threading
import tensorflow as tf
from trainer.watchdog import Watchdog

def load(number):
    if number == 3:
        threading.Event().wait()
    return number

batches = tf.data.Dataset.range(9).map(lambda n: tf.numpy_function(load, [n], tf.int64))
with Watchdog({timeout}) as watchdog:
    for number, batch in enumerate(batches):
        watchdog.beat("step", str(number + 1), compiles={compiles})
print("came through")
"""
SLOW = """
import time
from trainer.watchdog import Watchdog

with Watchdog({timeout}) as watchdog:
    for number in range(3):
        watchdog.beat("step", str(number), compiles=True)
        time.sleep({first} if number == 0 else {later})
time.sleep({after})
print("came through")
"""


def run(program: str, **values: object) -> "subprocess.CompletedProcess[str]":
    text = program.format(**values)
    return subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_step_that_hangs_in_tensorflow_ends_with_code_75_and_all_stacks() -> None:
    done = run(STUCK, timeout=1.0, compiles=False)
    assert done.returncode == cli.EXIT_PREEMPTED, done.stderr
    assert "Stuck in step 3 for more than 1 s" in done.stderr
    assert "To fix it: " in done.stderr
    stacks = done.stderr.split("Stuck in")[0]
    assert "most recent call first" in stacks
    assert "in load" in stacks
    assert 'File "<string>", line' in stacks
    assert done.stdout == ""


def test_the_first_one_of_its_kind_may_compile_for_ten_times_as_long() -> None:
    assert run(SLOW, timeout=0.5, first=2.0, later=0.0, after=1.0).stdout == "came through\n"
    done = run(SLOW, timeout=0.5, first=2.0, later=2.0, after=0.0)
    assert done.returncode == cli.EXIT_PREEMPTED
    assert "Stuck in step 1 for" in done.stderr


@pytest.mark.long
def test_with_a_timeout_of_zero_it_waits_for_ever() -> None:
    with subprocess.Popen([sys.executable, "-c", STUCK.format(timeout=0.0, compiles=False)], cwd=ROOT) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=12)
        process.kill()


def test_a_stderr_that_nobody_reads_does_not_keep_it() -> None:
    """The pipe is full before the watchdog writes to it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, bytes(1 << 16))
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    text = SLOW.format(timeout=0.5, first=0.0, later=60.0, after=0.0)
    with subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, stderr=writer) as process:
        assert process.wait(timeout=30) == cli.EXIT_PREEMPTED
    os.close(reader)
    os.close(writer)


# A worker that nothing but the watchdog watches.
WORKER = """
import sys
from pathlib import Path
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
from data_pipeline.manifest import Manifest
from tests.trainer.jobs import job_of
from trainer.checkpoints import Progress
from trainer.loop import train
from trainer.preemption import StopSignal
from trainer.watchdog import Watchdog

dataset, folder = map(Path, sys.argv[1:])
job = job_of((dataset, Manifest.load(dataset)), folder, StopSignal(), strategy=strategy, epochs=10**4,
             watchdog=Watchdog(4.0), chief=strategy.cluster_resolver.task_id == 0)
train(job, Progress())
"""


def test_a_worker_whose_partner_stands_still_ends_with_code_75(dataset: Dataset, tmp_path: Path) -> None:
    """SIGSTOP: the process is there and its connections are open, but the all-reduce never comes back."""
    workers = start_two(WORKER, dataset[0], tmp_path / "c")
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "c" / "last.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        workers[1].send_signal(signal.SIGSTOP)
        _, errors = workers[0].communicate(timeout=60)
        assert workers[0].returncode == cli.EXIT_PREEMPTED, errors
        assert "Stuck in step" in errors
        assert "most recent call first" in errors
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
