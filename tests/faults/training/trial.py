"""One run of the trainer that is interrupted and started again: real processes, real signals.

trial = Trial(make_data(folder), folder / "cut", TWO_WORKERS)
interruption = trial.interrupt("step@9", signal.SIGKILL, victim=1)
assert trial.finish() == [0, 0]
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, make_images, run_module
from tests.faults.training import journal

IMAGE_SIZE = 32
CHECKPOINT_EVERY = 2
EPOCHS = 3
REACHED_S = 120.0  # until a moment must have come
FINISHED_S = 240.0
SURVIVOR_S = 60.0  # until a worker has noticed that another is lost
POLL_S = 0.002
Worker = subprocess.Popen[str]


@dataclass(frozen=True)
class Topology:
    """On what a run is trained."""

    name: str
    flags: tuple[str, ...] = ()
    workers: int = 1


SINGLE = Topology("single", ("--distribution=single",))
MIRRORED = Topology("mirrored", ("--logical_cpus=2",))
TWO_WORKERS = Topology("2-worker", workers=2)
THREE_WORKERS = Topology("3-worker", workers=3)


class Missed(Exception):
    """A moment didn't come, or a process didn't end."""


@dataclass(frozen=True)
class Interruption:
    """`codes` are those of all workers, `seconds` the time from the signal to the end of the one that got it.

    `all_s` is the time to the end of the last one.
    """

    codes: tuple[int, ...]
    seconds: float
    all_s: float


def make_data(folder: Path) -> Path:
    """A folder with the sealed dataset `gland`: 3 classes, 96 slides, 288 tiles; six steps of 32 images an epoch."""
    make_images(folder / "images" / "gland", slides=32)
    flags = [f"--images={folder / 'images'}", f"--tfrecords={folder / 'tfrecords'}", f"--image_size={IMAGE_SIZE}"]
    done = run_module("data_pipeline", "--organ=gland", *flags)
    assert done.returncode == 0, done.stderr
    return folder / "tfrecords"


class Trial:
    """A run in `folder` that is started as often as it takes. `before` are the processes of its workers so far."""

    def __init__(self, data: Path, folder: Path, topology: Topology, *, epochs: int = EPOCHS) -> None:
        self.run = folder / "runs" / "gland" / "r"
        self._data, self._folder, self._epochs = data, folder, epochs
        self.change_to(topology)
        self._starts = 0
        folder.mkdir(parents=True, exist_ok=True)

    def change_to(self, topology: Topology) -> None:
        """Train on something else from the next start on."""
        self.topology = topology
        self.addresses = free_addresses(topology.workers)

    def processes(self, worker: int = 0) -> list[journal.Process]:
        """What the processes of a worker have noted so far."""
        return journal.read(self._folder / f"journal-{worker}.jsonl")

    def start(self, moment: str = "", victim: int = 0, only: Sequence[int] = ()) -> list[Worker]:
        """All workers, or `only` these; the `victim` will announce the `moment`."""
        self._starts += 1
        for leftover in (self._folder / "sent", *self._folder.glob("reached-*")):
            leftover.unlink(missing_ok=True)
        workers = only or range(self.topology.workers)
        return [self._start_one(index, moment if index == victim else "") for index in workers]

    def interrupt(
        self, moment: str, signal_number: signal.Signals, victim: int = 0, *, stop_others: bool = False
    ) -> Interruption:
        """Start all workers, send the signal to the victim at the moment, and wait until all have ended.

        `stop_others`: they may rightly wait for the victim to come back, so they are sent SIGTERM.
        """
        workers = self.start(moment, victim)
        try:
            return self._strike(workers, victim, signal_number, stop_others=stop_others)
        finally:
            kill(workers)

    def _strike(
        self, workers: Sequence[Worker], victim: int, signal_number: signal.Signals, *, stop_others: bool
    ) -> Interruption:
        """Send the signal once the victim has announced its moment. Raises `Missed`."""
        deadline = time.monotonic() + REACHED_S
        while not (self._folder / f"reached-{victim}").exists():
            if workers[victim].poll() is not None or time.monotonic() > deadline:
                raise Missed(f"the moment didn't come, exit code {workers[victim].poll()}: {self.says()}")
            time.sleep(POLL_S)
        sent = time.monotonic()
        workers[victim].send_signal(signal_number)
        (self._folder / "sent").touch()
        try:
            workers[victim].wait(SURVIVOR_S)
            seconds = time.monotonic() - sent
            for worker in workers:
                if stop_others:
                    worker.terminate()
                worker.wait(max(0.1, sent + SURVIVOR_S - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            codes = [worker.poll() for worker in workers]
            raise Missed(f"no end {SURVIVOR_S:.0f} s after the signal, exit codes {codes}") from error
        return Interruption(tuple(worker.returncode for worker in workers), seconds, time.monotonic() - sent)

    def finish(self, only: Sequence[int] = ()) -> tuple[int, ...]:
        """Start all workers, or `only` these, and wait for their end; their exit codes. Raises `Missed`."""
        return self.ended(self.start(only=only))

    def ended(self, workers: Sequence[Worker]) -> tuple[int, ...]:
        """The exit codes of workers that are left alone. Raises `Missed`."""
        deadline = time.monotonic() + FINISHED_S
        try:
            return tuple(worker.wait(max(0.1, deadline - time.monotonic())) for worker in workers)
        except subprocess.TimeoutExpired as error:
            raise Missed(f"not done after {FINISHED_S:.0f} s") from error
        finally:
            kill(workers)

    def says(self) -> str:
        """The end of what the workers started last wrote to stderr."""
        texts = [path.read_text()[-2000:] for path in sorted(self._folder.glob(f"stderr-{self._starts:02d}-*"))]
        return "\n".join(texts)

    def _start_one(self, index: int, moment: str) -> Worker:
        command = [sys.executable, "-m", "tests.faults.training.announced", "--organ=gland", "--run=r"]
        command += [f"--tfrecords={self._data}", f"--runs={self._folder / 'runs'}", f"--epochs={self._epochs}"]
        command += ["--batch_size=32", f"--checkpoint_every={CHECKPOINT_EVERY}", *self.topology.flags]
        environment = {"FAULTS_FOLDER": str(self._folder), "FAULTS_WORKER": str(index), "FAULTS_MOMENT": moment}
        if self.topology.workers > 1:
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": self.addresses}, "task": task})
        with (self._folder / f"stderr-{self._starts:02d}-{index}.txt").open("w") as errors:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2"} | environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
            )


def free_addresses(count: int) -> list[str]:
    """Addresses on this machine that nobody listens on."""
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in taken]


def kill(workers: Sequence[Worker]) -> None:
    """End what has not ended."""
    for worker in workers:
        worker.kill()
        worker.wait()
