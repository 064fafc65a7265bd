"""Several workers train one model: real processes on loopback, killed, stopped and told to stop for real."""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

from data_pipeline import cli
from tests.conftest import run_module
from tests.trainer.conftest import train_command
from tests.trainer.workers import Worker, free_addresses, kill, until
from trainer.pace import CLOCK_COLUMNS

WITHIN_S = 60  # all others end


class Team:
    """The workers of one run, which may be started again."""

    def __init__(self, tfrecords: Path, folder: Path) -> None:
        self.tfrecords = tfrecords
        self.runs = folder / "runs"
        self.temporary = folder / "tmp"
        self.started: list[Worker] = []
        self.addresses: list[str] = []

    @property
    def run(self) -> Path:
        return self.runs / "gland" / "r"

    def start(self, count: int, *arguments: str, only: int | None = None) -> list[Worker]:
        """All workers, or one alone."""
        self.addresses = free_addresses(count)
        indexes = range(count) if only is None else [only]
        workers = [self._start(index, *arguments) for index in indexes]
        self.started += workers
        return workers

    def _start(self, index: int, *arguments: str) -> Worker:
        temporary = self.temporary / str(index)
        temporary.mkdir(parents=True, exist_ok=True)
        cluster = {"cluster": {"worker": self.addresses}, "task": {"type": "worker", "index": index}}
        command = train_command(self.tfrecords, self.runs, *arguments)
        return Worker("trainer", *command, TF_CONFIG=json.dumps(cluster), TMPDIR=str(temporary))

    def wait_for_step(self, step: int) -> None:
        """Until the checkpoint after this step is there."""
        until(lambda: self._last_step() >= step or self._ended(), 150, f"step {step}")
        assert not self._ended(), [worker.errors for worker in self.started]

    def _ended(self) -> bool:
        return any(worker.process.poll() is not None for worker in self.started)

    def _last_step(self) -> int:
        try:
            return int(json.loads((self.run / "checkpoints" / "last.json").read_text())["checkpoint"].split("-")[1])
        except FileNotFoundError:
            return -1

    def leftovers(self) -> list[str]:
        """Everything that is neither a result nor published, but for the source that TensorFlow's tracing leaves."""
        there = [path for path in self.temporary.rglob("*") if path.parent != self.temporary]
        there = [path for path in there if not path.name.startswith("__autograph_generated_file")]
        there += [path for path in self.runs.rglob("*") if ".tmp" in path.name or "worker_" in path.name]
        return sorted(map(str, there))


@pytest.fixture
def team(tfrecords: Path, tmp_path: Path) -> Iterator[Team]:
    team = Team(tfrecords, tmp_path)
    yield team
    kill(team.started)


@pytest.fixture(scope="module")
def uninterrupted(tfrecords: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that three workers trained in one go."""
    team = Team(tfrecords, tmp_path_factory.mktemp("uninterrupted"))
    workers = team.start(3)
    try:
        assert [worker.code(150) for worker in workers] == [0, 0, 0], [worker.errors for worker in workers]
    finally:
        kill(workers)
    assert team.leftovers() == []
    return team.run


def result_of(run: Path) -> tuple[dict, list[bytes]]:
    """Numbers and weights, without what no two runs share."""
    metrics = json.loads((run / "metrics.json").read_text())
    for row in metrics["history"]:
        for name in CLOCK_COLUMNS:
            del row[name]
    return metrics, [weight.tobytes() for weight in keras.models.load_model(run / "model.keras").get_weights()]


def assert_others_end(team: Team, workers: list[Worker], lost: int, since: float, how: str) -> None:
    others = [worker for index, worker in enumerate(workers) if index != lost]
    codes = [worker.code(WITHIN_S + 30) for worker in others]
    errors = [worker.errors for worker in others]
    assert codes == [cli.EXIT_PREEMPTED] * len(others), errors
    took = max(worker.ended_at for worker in others) - since
    print(f"the others ended {took:.2f} s after worker {lost} was {how}")
    assert took < WITHIN_S
    for text in errors:
        assert f"orker {lost} ({team.addresses[lost]})" in text
        assert "Traceback" not in text


def test_two_workers_learn_what_one_process_learns(finished_run: Path, team: Team) -> None:
    """Stopped once by SIGTERM to one of them, which stops both after the same step, and started again."""
    workers = team.start(2, "--checkpoint_every=1")
    team.wait_for_step(0)
    workers[1].process.send_signal(signal.SIGTERM)
    codes = [worker.code(60) for worker in workers]
    errors = [worker.errors for worker in workers]
    assert codes == [cli.EXIT_PREEMPTED] * 2, errors
    stopped = [next(line for line in text.splitlines() if "Stopped after step" in line) for text in errors]
    assert stopped[0] == stopped[1]

    workers = team.start(2, "--checkpoint_every=1")
    codes = [worker.code(150) for worker in workers]
    errors = [worker.errors for worker in workers]
    assert codes == [0, 0], errors
    assert "MultiWorkerMirroredStrategy over 2 replicas" in errors[0]
    assert "goes on after step" in errors[0]
    ours, _ = result_of(team.run)
    theirs = json.loads((finished_run / "metrics.json").read_text())
    for mine, other in zip(ours["history"], theirs["history"], strict=True):
        assert mine["train_loss"] == pytest.approx(other["train_loss"], rel=0.02)
    assert ours["test"]["accuracy"] == pytest.approx(theirs["test"]["accuracy"], abs=0.05)
    assert team.leftovers() == []


@pytest.mark.long
def test_two_workers_normalise_by_the_records_of_both(tfrecords: Path, tmp_path: Path, team: Team) -> None:
    more = ("--model=residual_batch", "--epochs=1")
    done = run_module("trainer", *train_command(tfrecords, tmp_path, *more))
    assert done.returncode == 0, done.stderr
    workers = team.start(2, *more)
    assert [worker.code(300) for worker in workers] == [0, 0], [worker.errors for worker in workers]
    (ours,), (theirs,) = (result_of(run)[0]["history"] for run in (team.run, tmp_path / "gland" / "r"))
    assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("lost", [2])  # `make test-faults` strikes worker 0 too
def test_a_killed_worker_ends_all_others_and_started_again_the_result_is_the_same(
    uninterrupted: Path, team: Team, lost: int
) -> None:
    workers = team.start(3, "--checkpoint_every=1")
    team.wait_for_step(3)
    killed_at = time.monotonic()
    workers[lost].process.kill()
    assert_others_end(team, workers, lost, killed_at, "killed")

    team.started.clear()
    workers = team.start(3, "--checkpoint_every=1")
    assert [worker.code(150) for worker in workers] == [0, 0, 0], [worker.errors for worker in workers]
    assert "goes on after step" in workers[0].errors
    assert result_of(team.run) == result_of(uninterrupted)
    assert team.leftovers() == []


@pytest.mark.long
@pytest.mark.parametrize("lost", [0])
def test_a_stopped_worker_ends_all_others(team: Team, lost: int) -> None:
    workers = team.start(3, "--checkpoint_every=1")
    team.wait_for_step(3)
    stopped_at = time.monotonic()
    workers[lost].process.send_signal(signal.SIGSTOP)
    assert_others_end(team, workers, lost, stopped_at, "stopped")
    assert workers[lost].process.poll() is None
    workers[lost].process.kill()


@pytest.mark.long
def test_a_worker_lost_while_tensorflow_connects_ends_the_other(team: Team) -> None:
    """TensorFlow waits for it in C++ and holds Python's lock: no thread of Python's could end the process."""
    workers = team.start(2)
    until(lambda: any("All workers are there" in worker.errors for worker in workers), 60, "the meeting")
    workers[1].process.kill()
    killed_at = time.monotonic()
    assert workers[0].code(WITHIN_S + 30) == cli.EXIT_PREEMPTED, workers[0].errors
    print(f"the other ended {workers[0].ended_at - killed_at:.2f} s later")
    assert workers[0].ended_at - killed_at < WITHIN_S


def test_a_worker_that_never_comes_is_named(team: Team) -> None:
    worker = team.start(2, "--start_timeout=2s", only=0)[0]
    assert worker.code(60) == cli.EXIT_PREEMPTED
    assert f"Didn't come within 2 s: worker 1 ({team.addresses[1]})." in worker.errors
    assert "Traceback" not in worker.errors


def test_workers_with_other_settings_are_refused(team: Team) -> None:
    chief = team.start(2, only=0)[0]
    other = team._start(1, "--learning_rate=0.01")
    team.started.append(other)
    assert other.code(60) == cli.EXIT_REQUEST, other.errors
    assert "learning_rate=0.001, it has gland: learning_rate=0.01" in other.errors
    chief.process.send_signal(signal.SIGTERM)
    assert chief.code(10) == cli.EXIT_PREEMPTED


def test_workers_that_see_different_checkpoints_learn_nothing_from_them(uninterrupted: Path, team: Team) -> None:
    """A network disk may show one of them an older folder than another."""
    shutil.copytree(uninterrupted, team.run)
    (team.run / "metrics.json").unlink()
    chief = team.start(2, only=0)[0]
    team.runs = team.runs.with_name("other")
    other = team._start(1)
    team.started.append(other)
    assert [chief.code(90), other.code(90)] == [cli.EXIT_PREEMPTED] * 2, [chief.errors, other.errors]
    assert "Workers see different checkpoints" in chief.errors + other.errors


def test_a_finished_run_waits_for_nobody(uninterrupted: Path, team: Team) -> None:
    shutil.copytree(uninterrupted, team.run)
    worker = team.start(3, "--start_timeout=1h", only=1)[0]
    assert worker.code(60) == cli.EXIT_DONE, worker.errors
    assert "finished already" in worker.errors


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
