"""From SIGTERM to the end of the process: no step more, whatever is still being prepared for later ones."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_pipeline import cli
from tests.conftest import ROOT
from tests.trainer.jobs import Dataset

# Told to stop after the first step, or in validation, while later batches take half a minute each.
PROGRAM = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
from data_pipeline import cli
from data_pipeline.manifest import Manifest
from tests.trainer.jobs import SCORE, job_of
from trainer.checkpoints import Progress
from trainer.evaluate import make_evaluation_step, predict_split
from trainer.input_pipeline import Layout
from trainer.loop import train
from trainer.order import TrainOrder
from trainer.preemption import StopSignal
from trainer.records import RecordReader

class Slow(RecordReader):
    quick = None

    def read(self, indices):
        if self.quick is not None and not set(indices.tolist()) <= self.quick:
            time.sleep(30)
        return super().read(indices)

def tell(*ignored):
    print(time.time(), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

def main(argv):
    place, folder, target = argv[1], Path(argv[2]), Path(argv[3])
    stop = StopSignal()
    stop.listen()
    reader = Slow(folder, Manifest.load(folder), "train")
    job = job_of((folder, Manifest.load(folder)), target, stop)

    def validate():
        reader.quick = set(range(96))
        step = make_evaluation_step(job.strategy, job.model)
        told = []
        def before_batch():
            if not told:
                told.append(tell())
        how = {"batch_size": 16, "image_size": 32, "layout": Layout(), "before_batch": before_batch}
        predict_split(job.strategy, step, reader, **how)

    if place == "step":
        job = replace(job, order=TrainOrder(len(reader), 16, seed=0))
        reader.quick = {index for step in range(6) for index in job.order.batch(step)[1].tolist()}
        first = job.stop.is_set
        seen = []
        def is_set():
            seen.append(1)
            if len(seen) == 3:
                tell()
            return first()
        job.stop.is_set = is_set
        job = replace(job, reader=reader)
    else:
        job = replace(job, validate=validate)
    train(job, Progress())

cli.run(main)
"""


@pytest.mark.parametrize(("place", "saved"), [("step", 1), ("validation", 3)])  # of three steps an epoch
def test_batches_that_are_being_made_do_not_hold_it_up(
    dataset: Dataset, tmp_path: Path, place: str, saved: int
) -> None:
    command = [sys.executable, "-c", PROGRAM, place, str(dataset[0]), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    ended = time.time()
    assert done.returncode == cli.EXIT_PREEMPTED, done.stderr
    assert "it is saved" in done.stderr
    assert json.loads((tmp_path / "last.json").read_text())["checkpoint"] == f"step-{saved:08}"
    assert ended - float(done.stdout.split()[0]) < 10
