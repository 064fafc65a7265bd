"""Images to predictions in containers, with the very commands of k8s/base, on a folder that stands for its volume.

Each container has a read-only root, no capability, no network and bounded memory; only /data and /tmp can be written.
"""

import csv
import json
import time
from collections.abc import Callable, Iterator
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
SIGTERM_EXIT = 143
ORGAN = "cervix"
SMALLER = {
    "convert": ("--image_size=64", "--workers=2"),
    "train": ("--epochs=1", "--batch_size=16"),
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


@pytest.fixture(scope="module")
def trained(run: Run, data: Path, dataset: Path) -> Path:
    """The folder of the run that the train Job leaves."""
    done = run(*_job_args("train"), data=data, options=CONFIG, timeout_s=1200)
    assert done.returncode == 0, done.stderr
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


def test_the_train_jobs_command_leaves_numbers_a_report_and_a_model(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text(encoding="utf-8"))
    assert 0 <= metrics["test"]["accuracy"] <= 1
    assert metrics["test"]["n"] > 0
    assert (trained / "report.html").stat().st_size > 1000
    assert (trained / "model" / "saved_model.pb").is_file()


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


def test_a_stopped_training_saves_and_asks_to_be_run_again(
    engine: Engine, image: str, data: Path, dataset: Path, long_training: str
) -> None:
    runs = data / "long"
    end_s = time.monotonic() + 300
    while not list(runs.rglob("checkpoints/*")) and time.monotonic() < end_s:
        time.sleep(0.5)
    stop_s = time.monotonic()
    engine.docker("stop", "--time=60", long_training)
    assert time.monotonic() - stop_s < 15, "a spot node gives no more"
    (state,) = json.loads(engine.docker("inspect", long_training).stdout)
    assert state["State"]["ExitCode"] == cli.EXIT_PREEMPTED, engine.docker("logs", long_training).stderr[-3000:]
    assert list(runs.rglob("checkpoints/*"))


@pytest.fixture
def long_training(engine: Engine, image: str, data: Path, dataset: Path) -> Iterator[str]:
    """A training that would go on for hours, in a container that is started and not awaited."""
    args = (*_job_args("train"), "--runs=/data/long", "--epochs=10000")
    done = engine.docker("run", "--detach", *LOCKED_DOWN, f"--volume={data}:/data", *CONFIG, image, *args)
    assert done.returncode == 0, done.stderr
    container = done.stdout.strip()
    yield container
    engine.docker("rm", "--force", container)


def _wait_for_dataset(run: Run, data: Path, *flags: str) -> CompletedProcess[str]:
    script = ("--volume", f"{BASE}/wait_for_dataset.py:/wait_for_dataset.py:ro", "--entrypoint=python")
    script += ("--memory=128m",)  # as little as train.yaml gives it
    command = ("/wait_for_dataset.py", "--flagfile=/etc/cytotrain/both.flags", *flags)
    return run(*command, data=data, options=(*CONFIG, *script))
