"""Two workers, two real processes on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline import cli
from tests.conftest import ROOT, run_module
from tests.trainer.conftest import train_command


def start(tfrecords: Path, runs: Path, *arguments: str) -> "list[subprocess.Popen[str]]":
    """Both workers of a run."""
    with socket.socket() as one, socket.socket() as two:
        for taken in (one, two):
            taken.bind(("127.0.0.1", 0))
        addresses = [f"127.0.0.1:{taken.getsockname()[1]}" for taken in (one, two)]
    command = [sys.executable, "-m", "trainer", *map(str, train_command(tfrecords, runs, *arguments))]
    return [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ
            | {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})},
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


def end(workers: "list[subprocess.Popen[str]]") -> list[str]:
    """What each worker wrote to stderr."""
    try:
        return [worker.communicate(timeout=150)[1] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


def test_two_workers_learn_what_one_process_learns(tfrecords: Path, finished_run: Path, tmp_path: Path) -> None:
    """Stopped once by SIGTERM to one of them, which stops both after the same step, and started again."""
    folder = tmp_path / "gland" / "r"
    workers = start(tfrecords, tmp_path, "--checkpoint_every=1")
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "last.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers[1].send_signal(signal.SIGTERM)
    errors = end(workers)
    assert [worker.returncode for worker in workers] == [cli.EXIT_PREEMPTED] * 2, errors
    stopped = [next(line for line in text.splitlines() if "Stopped after step" in line) for text in errors]
    assert stopped[0] == stopped[1]

    workers = start(tfrecords, tmp_path, "--checkpoint_every=1")
    errors = end(workers)
    assert [worker.returncode for worker in workers] == [0, 0], errors
    assert "MultiWorkerMirroredStrategy over 2 replicas" in errors[0]
    assert "goes on after step" in errors[0]
    ours = json.loads((folder / "metrics.json").read_text())
    theirs = json.loads((finished_run / "metrics.json").read_text())
    for mine, other in zip(ours["history"], theirs["history"], strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=0.02)
    assert ours["test"]["accuracy"] == pytest.approx(theirs["test"]["accuracy"], abs=0.05)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}}',
        '{"cluster": {"ps": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
    ],
)
def test_a_cluster_of_another_kind_is_refused(tfrecords: Path, tmp_path: Path, text: str) -> None:
    done = run_module("trainer", *train_command(tfrecords, tmp_path), TF_CONFIG=text)
    assert done.returncode == cli.EXIT_REQUEST, done.stderr
    assert "TF_CONFIG" in done.stderr
    assert "To fix it" in done.stderr
