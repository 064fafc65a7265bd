"""What a sweep takes for the same sweep, and how many epochs its rungs have: asked in a process, nothing trained."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py

from tests.trainer.test_sweep import RATES

ASK = """
import json, sys
from absl import flags
from trainer.sweep_request import define_flags, request_of
define_flags()
sweep = request_of(flags.FLAGS, flags.FLAGS(sys.argv)[1:])
print(json.dumps({"name": sweep.name, "epochs": [rung.epochs for rung in sweep.rungs]}))
"""


def asked(tfrecords: Path, runs: Path, *more: str) -> dict[str, Any]:
    where = ("--organ=gland", f"--tfrecords={tfrecords}", f"--runs={runs}", RATES)
    done = subprocess.run([sys.executable, "-c", ASK, *where, *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_sweep_that_starts_from_other_weights_is_another_one(tfrecords: Path, tmp_path: Path) -> None:
    names = []
    for content in (1.0, 2.0, 1.0):
        with h5py.File(tmp_path / "weights.h5", "w") as file:
            file["kernel"] = [content]
        names.append(asked(tfrecords, tmp_path, "--model=MobileNetV2", f"--weights={tmp_path}/weights.h5")["name"])
    names.append(asked(tfrecords, tmp_path, "--model=MobileNetV2")["name"])
    assert len(set(names)) == 3
    assert names[0] == names[2]


def test_rungs_have_the_epochs_that_the_budget_of_images_leaves(tfrecords: Path, tmp_path: Path) -> None:
    halving = ("--method=halving", "--trials=9", "--epochs=90")
    assert asked(tfrecords, tmp_path, *halving)["epochs"] == [10, 30, 90]
    images = json.loads((tfrecords / "gland" / "manifest.json").read_text())["splits"]["train"]["records"]
    assert asked(tfrecords, tmp_path, *halving, f"--image_budget={27 * images}")["epochs"] == [3, 9, 27]
