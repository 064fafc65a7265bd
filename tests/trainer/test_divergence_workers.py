"""Two workers go back together, wherever they were interrupted."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.trainer.workers import free_addresses

WORKER = """
import hashlib, json, sys
from dataclasses import asdict
from pathlib import Path
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
tf.config.experimental.enable_op_determinism()
from data_pipeline.cli import Preempted
from data_pipeline.manifest import Manifest
from tests.trainer.jobs import StopAfter, job_of, state_of, untimed
from trainer.checkpoints import Progress
from trainer.intervals import Interval
from trainer.loop import train

dataset, folder, rate, stop = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
chief = strategy.cluster_resolver.task_id == 0
job = job_of((dataset, Manifest.load(dataset)), folder, StopAfter(stop if not chief else 10**6), strategy=strategy,
             learning_rate=rate, on_nan="rollback", chief=chief, checkpoint_every=Interval(steps=2))
try:
    end = train(job, job.checkpoints.restore_last() or Progress())
    digest = hashlib.sha256(b"".join(state_of(job))).hexdigest()
    print(json.dumps({"end": asdict(untimed(end)), "state": digest}))
except Preempted as told:
    print(json.dumps({"told": str(told)}))
"""


def start_two(program: str, *arguments: object) -> "list[subprocess.Popen[str]]":
    """Two workers that run the same program."""
    cluster = {"worker": free_addresses(2)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ
            | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


def two_workers(dataset: Path, folder: Path, *, rate: float, stop: int = 10**6) -> list[dict[str, Any]]:
    """What both say at their end; worker 1 is told to stop after looking so many times."""
    workers = start_two(WORKER, dataset, folder, rate, stop)
    try:
        ends = [worker.communicate(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert all(said for said, _ in ends), ends
    return [json.loads(said.splitlines()[-1]) for said, _ in ends]


@pytest.mark.long
def test_two_workers_go_back_together_with_and_without_an_interruption(
    dataset: tuple[Path, object], tmp_path: Path
) -> None:
    whole = two_workers(dataset[0], tmp_path / "whole", rate=1e4)
    assert whole[0] == whole[1]
    assert whole[0]["end"]["rollbacks"] > 0
    stopped = two_workers(dataset[0], tmp_path / "cut", rate=1e4, stop=4)
    assert stopped[0] == stopped[1]
    assert "it is saved" in stopped[0]["told"]
    assert two_workers(dataset[0], tmp_path / "cut", rate=1e4) == whole
