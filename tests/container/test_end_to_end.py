"""Images to predictions in containers, with the very commands of k8s/base, on a folder that stands for its volume.

The one training there is is stopped half-way and run again, as happens to a pod on a spot node.
Each container has a read-only root, no capability, no network and bounded memory; only /data and /tmp can be written.
"""

import csv
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from engine import LOCKED_DOWN, Engine

from data_pipeline import cli

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]

Run = Callable[..., CompletedProcess[str]]

BASE = Path(__file__).parents[2] / "k8s" / "base"
UID = 65532
ORGAN = "cervix"
EPOCHS = 20  # under a second each: time enough to stop it, and soon over
SMALLER = {
    "convert": ("--image_size=64", "--workers=2"),
    "train": (f"--epochs={EPOCHS}", "--batch_size=16"),
}
CONFIG = ("--volume", f"{BASE}/flags:/etc/cytotrain:ro")


def _job_args(name: str) -> tuple[str, ...]:
    """What the Job gives its container, with flags after it that make it quick."""
    job = yaml.safe_load((BASE / f"{name}.yaml").read_text(encoding="utf-8"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return (*container["args"], *SMALLER[name])


@pytest.fixture(scope="module")
def data(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder any user may write to, with a few images in it."""
    folder = tmp_path_factory.mktemp("data")
    folder.chmod(0o777)
    flags = ("--slides=8", "--tiles=4", "--image_size=64", f"--organ={ORGAN}")
    done = run("data_pipeline.synthesize", "--output=/data/images", *flags, data=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def dataset(run: Run, data: Path) -> Path:
    """The folder with what the convert Job leaves in it."""
    done = run(*_job_args("convert"), data=data, options=CONFIG)
    assert done.returncode == 0, done.stderr
    return data / "tfrecords" / ORGAN


@dataclass(frozen=True)
class Ended:
    """How a container ended, and what it said."""

    code: int
    log: str
    stopping_s: float = 0


@pytest.fixture(scope="module")
def stopped(engine: Engine, image: str, data: Path, dataset: Path) -> Ended:
    """What the train Job's container does when it is stopped after its first epoch."""
    options = (*LOCKED_DOWN, f"--volume={data}:/data", *CONFIG)
    done = engine.docker("run", "--detach", *options, image, *_job_args("train"))
    assert done.returncode == 0, done.stderr
    container = done.stdout.strip()
    try:
        end_s = time.monotonic() + 300
        while not list((data / "runs").rglob("checkpoints/last.json")) and time.monotonic() < end_s:
            time.sleep(0.05)
        stop_s = time.monotonic()
        engine.docker("stop", "-t", "60", container)
        stopping_s = time.monotonic() - stop_s
        (inspected,) = json.loads(engine.docker("inspect", container).stdout)
        log = engine.docker("logs", container)
        return Ended(inspected["State"]["ExitCode"], log.stdout + log.stderr, stopping_s)
    finally:
        engine.docker("rm", "--force", container)


@pytest.fixture(scope="module")
def resumed(run: Run, data: Path, stopped: Ended) -> Ended:
    """What the same command does when it is given again."""
    done = run(*_job_args("train"), data=data, options=CONFIG, timeout_s=1200)
    return Ended(done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="module")
def trained(data: Path, resumed: Ended) -> Path:
    """The folder of the run that the train Job leaves in the end."""
    assert resumed.code == cli.EXIT_DONE, resumed.log
    (folder,) = (data / "runs" / ORGAN).iterdir()
    return folder


def test_the_convert_jobs_command_seals_a_dataset(dataset: Path) -> None:
    counts = json.loads((dataset / "manifest.json").read_text(encoding="utf-8"))["counts"]
    assert counts["written"] > 0
    assert counts["inputs"] == counts["written"] + counts["duplicates"] + counts["quarantined"]
    assert {file.stat().st_uid for file in dataset.iterdir()} == {UID}


def test_the_seal_is_vouched_for(run: Run, data: Path, dataset: Path) -> None:
    done = run("data_pipeline.verify", f"/data/tfrecords/{dataset.name}", data=data)
    assert done.returncode == 0, done.stderr


def test_the_wait_before_training_ends_on_that_dataset(run: Run, data: Path, dataset: Path) -> None:
    assert dataset.is_dir()
    done = _wait_for_dataset(run, data, "--limit_s=0")
    assert (done.returncode, done.stdout) == (0, f"Sealed: {ORGAN}\n"), done.stderr


def test_the_wait_before_training_gives_up_without_a_dataset(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    done = _wait_for_dataset(run, tmp_path, "--limit_s=0")
    assert done.returncode == cli.EXIT_REQUEST


def test_a_stopped_training_saves_in_time_and_asks_to_be_run_again(stopped: Ended) -> None:
    assert stopped.code == cli.EXIT_PREEMPTED, stopped.log
    assert stopped.stopping_s < 15, "a spot node gives no more"


def test_run_again_it_goes_on_after_the_step_that_was_saved(data: Path, stopped: Ended, resumed: Ended) -> None:
    assert resumed.code == cli.EXIT_DONE, resumed.log
    (saved,) = re.findall(r"Stopped after step (\d+)", stopped.log)
    assert re.findall(r"goes on after step (\d+)", resumed.log) == [saved]
    (run,) = (data / "runs" / ORGAN).iterdir()
    last = json.loads((run / "checkpoints" / "last.json").read_text(encoding="utf-8"))["checkpoint"]
    assert 0 < int(saved) < int(last.removeprefix("step-"))
    history = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, EPOCHS + 1))


def test_the_train_jobs_command_leaves_numbers_a_report_and_a_model(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert 0 <= metrics["test"]["accuracy"] <= 1
    assert metrics["test"]["n"] > 0
    assert (trained / "report.html").stat().st_size > 1000
    assert (trained / "model" / "saved_model.pb").is_file()


def test_the_tensorboard_in_it_reads_the_run_to_its_last_epoch(run: Run, trained: Path, data: Path) -> None:
    done = run("tensorboard", "--inspect", f"--logdir=/data/{trained.relative_to(data)}", data=data)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"max_step +(\d+)", done.stdout) == [str(EPOCHS)], done.stdout


def test_the_model_is_tested_again_with_the_same_result(run: Run, data: Path, trained: Path) -> None:
    model = f"--model=/data/{trained.relative_to(data)}"
    done = run("trainer.evaluate", model, "--tfrecords=/data/tfrecords", f"--organ={ORGAN}", data=data)
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout.splitlines()[-1])["test"]
    assert again == json.loads((trained / "metrics.json").read_text(encoding="utf-8"))["test"]


def test_the_model_predicts_images(run: Run, data: Path, trained: Path) -> None:
    model = f"/data/{(trained / 'model').relative_to(data)}"
    folder = next(path for path in sorted((data / "images" / ORGAN).iterdir()) if path.is_dir())
    images = [f"/data/{path.relative_to(data)}" for path in sorted(folder.glob("*_003.png"))[:3]]
    done = run("trainer.predict", f"--model={model}", "--output=/data/predictions.csv", *images, data=data)
    assert done.returncode == 0, done.stderr
    with (data / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(images)


def test_a_dataset_that_is_not_there_is_never_retried(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert run(*_job_args("train"), data=tmp_path, options=CONFIG).returncode == cli.EXIT_REQUEST


def _wait_for_dataset(run: Run, data: Path, *flags: str) -> CompletedProcess[str]:
    script = ("--volume", f"{BASE}/wait_for_dataset.py:/wait_for_dataset.py:ro", "--entrypoint=python")
    script += ("--memory=128m",)  # as little as train.yaml gives it
    command = ("/wait_for_dataset.py", "--flagfile=/etc/cytotrain/both.flags", *flags)
    return run(*command, data=data, options=(*CONFIG, *script))
