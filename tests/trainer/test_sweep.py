"""A sweep as real processes: stopped, killed and gone on with, trial by trial, and with trials that fail."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from data_pipeline.cli import EXIT_DONE, EXIT_FAULT, EXIT_PREEMPTED, EXIT_REQUEST
from data_pipeline.transfer import upload
from tests.bucket_server import BUCKET, BucketServer
from tests.conftest import run_module
from tests.trainer.workers import Worker, until
from trainer.sweep_trials import TRIALS

pytestmark = pytest.mark.timeout(600)  # several trainings, one after another, on a machine that may be busy
NAME = "s"
RATES = "--search=learning_rate:log:1e-3:1e-2"


def sweep_command(tfrecords: Path, runs: Path, *more: object) -> list[object]:
    """The arguments of a sweep of two trials that take seconds each."""
    small = ["--model=seed_pooled", "--batch_size=16", "--epochs=2", "--checkpoint_every=1"]
    where = ["--organ=gland", f"--tfrecords={tfrecords}", f"--runs={runs}", f"--sweep={NAME}"]
    return [*where, *small, RATES, "--trials=2", *more]


def run_of(runs: Path, trial: int, epochs: int = 2) -> Path:
    return runs / "gland" / f"{NAME}-{trial:04d}-e{epochs}"


def rows_in(runs: Path) -> list[dict[str, str]]:
    with (runs / "gland" / NAME / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def record_of(runs: Path, trial: int, epochs: int = 2) -> Path:
    return runs / "gland" / NAME / TRIALS / f"{run_of(runs, trial, epochs).name}.json"


def refused_run(runs: Path, trial: int, epochs: int = 2) -> None:
    """A run of other settings lies where the trial's is to be: training refuses it, before TensorFlow is imported."""
    folder = run_of(runs, trial, epochs)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"settings": {}, "dataset": "another", "command": ""}))


@pytest.fixture(scope="module")
def swept(tfrecords: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a sweep that was stopped in its first trial and killed in its second."""
    runs = tmp_path_factory.mktemp("runs")
    stopped = Worker("trainer.sweep", *sweep_command(tfrecords, runs))
    until(lambda: (run_of(runs, 0) / "checkpoints" / "last.json").exists(), 200, "a checkpoint of the first trial")
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.code(60) == EXIT_PREEMPTED, stopped.errors
    assert not record_of(runs, 0).exists()

    killed = Worker("trainer.sweep", *sweep_command(tfrecords, runs))
    until(lambda: (run_of(runs, 1) / "config.json").exists(), 200, "the second trial")
    killed.process.kill()
    assert killed.code(60) == -signal.SIGKILL
    assert "goes on after step" in killed.errors

    done = run_module("trainer.sweep", *sweep_command(tfrecords, runs))
    assert done.returncode == EXIT_DONE, done.stderr
    assert "Waiting for another process, which is at trial 1" in done.stderr  # the one that has outlived its sweep
    assert done.stdout.splitlines()[-1] == f"Sweep: {runs / 'gland' / NAME / 'sweep.html'}"
    return runs


def test_a_sweep_that_was_stopped_and_killed_has_every_trial_once(swept: Path) -> None:
    assert [(row["trial"], row["state"]) for row in rows_in(swept)] == [("0", "done"), ("1", "done")]
    for trial, row in enumerate(rows_in(swept)):
        settings = json.loads((run_of(swept, trial) / "config.json").read_text())["settings"]
        assert float(row["learning_rate"]) == settings["learning_rate"]
        validation = json.loads((run_of(swept, trial) / "metrics.json").read_text())["validation"]
        assert float(row["log_loss"]) == validation["log_loss"]
        log = record_of(swept, trial).with_suffix(".log").read_text()
        assert log.count("epoch   2/2 ") == 1  # trained by one process alone
    assert "learning_rate" in (swept / "gland" / NAME / "sweep.html").read_text()


def test_the_same_command_again_trains_nothing_and_gives_the_same_bytes(swept: Path, tfrecords: Path) -> None:
    files = {path: path.read_bytes() for path in (swept / "gland" / NAME).glob("*.*")}
    assert {path.name for path in files} == {"sweep.json", "sweep.csv", "sweep.html", "best.flags"}
    for more in ((), ("--table_only",), ("--trial=1",)):
        done = run_module("trainer.sweep", *sweep_command(tfrecords, swept, *more))
        assert done.returncode == EXIT_DONE, done.stderr
        assert done.stderr == ""
        assert {path: path.read_bytes() for path in files} == files


def test_the_flags_of_the_best_trial_are_the_run_that_was_trained(swept: Path) -> None:
    best = min(rows_in(swept), key=lambda row: (-float(row["balanced_accuracy"]), float(row["log_loss"])))
    flag_file = swept / "gland" / NAME / "best.flags"
    done = run_module("trainer", f"--flagfile={flag_file}", f"--run={best['run']}")
    assert (done.returncode, "finished already" in done.stderr) == (EXIT_DONE, True), done.stderr


def test_a_sweep_needs_no_test_scores_and_a_lost_record_is_made_of_the_run_again(
    swept: Path, tfrecords: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(swept, runs)
    before = rows_in(runs)
    for trial, harm in enumerate(("gone", "cut")):
        metrics = run_of(runs, trial) / "metrics.json"
        without_test = {name: value for name, value in json.loads(metrics.read_text()).items() if name != "test"}
        metrics.write_text(json.dumps(without_test))
        (run_of(runs, trial) / "predictions.csv").write_text("")
        record = record_of(runs, trial)
        record.unlink() if harm == "gone" else record.write_text(record.read_text()[:40])
    for path in (runs / "gland" / NAME).glob("sweep.*[lv]"):
        path.unlink()
    done = run_module("trainer.sweep", *sweep_command(tfrecords, runs))
    assert done.returncode == EXIT_DONE, done.stderr
    assert done.stderr.count("finished already") == 2
    assert rows_in(runs) == before


@pytest.mark.long
def test_more_trials_are_added_to_those_that_are_there(swept: Path, tfrecords: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(swept, runs)
    refused_run(runs, 2)
    done = run_module("trainer.sweep", *sweep_command(tfrecords, runs, "--trials=3"))
    assert done.returncode == EXIT_DONE, done.stderr
    assert [row["state"] for row in rows_in(runs)] == ["done", "done", "failed"]
    assert rows_in(runs)[:2] == rows_in(swept)
    assert "Trial 0 of" not in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("--search=batch_size:choice:16,32", "--search was"),
        ("--search_seed=1", "--search_seed was 0 and is 1"),
        ("--clip_norm=1", "--clip_norm was 0.0 and is 1.0"),
    ],
)
def test_another_sweep_of_the_same_name_is_refused(swept: Path, tfrecords: Path, more: str, said: str) -> None:
    done = run_module("trainer.sweep", *sweep_command(tfrecords, swept, more))
    assert done.returncode == EXIT_REQUEST
    assert said in done.stderr
    assert "give another --sweep" in done.stderr


# ── Trials that fail ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_trial_alone_leaves_the_table_to_the_last_one(tfrecords: Path, tmp_path: Path) -> None:
    """As pods of an Indexed Job do: each its own, and whichever ends last finds all others."""
    table = tmp_path / "gland" / NAME / "sweep.csv"
    for trial in (1, 0):
        refused_run(tmp_path, trial)
        done = run_module("trainer.sweep", *sweep_command(tfrecords, tmp_path, f"--trial={trial}"))
        assert done.returncode == EXIT_REQUEST, done.stderr  # its only trial was refused: never to be retried
        assert f"Trial {trial} has failed with exit code 2: The run in " in done.stderr
        assert ("1 of 2 trials have ended" in done.stderr) == (trial == 1)
        assert table.exists() == (trial == 0)
    assert [row["state"] for row in rows_in(tmp_path)] == ["failed", "failed"]


@pytest.mark.long
def test_a_trial_that_was_refused_is_tried_again_when_what_was_in_its_way_is_gone(
    swept: Path, tfrecords: Path, tmp_path: Path
) -> None:
    """A full disk, or somebody else at the run, ends with code 2 like a wrong setting."""
    runs = tmp_path / "runs"
    shutil.copytree(swept, runs)
    record_of(runs, 1).unlink()
    config, aside = run_of(runs, 1) / "config.json", tmp_path / "config.json"
    config.rename(aside)
    refused = run_module("trainer.sweep", *sweep_command(tfrecords, runs))
    assert refused.returncode == EXIT_DONE, refused.stderr
    assert [row["state"] for row in rows_in(runs)] == ["done", "failed"]
    assert "its config.json doesn't say of which settings" in rows_in(runs)[1]["error"]
    aside.rename(config)
    done = run_module("trainer.sweep", *sweep_command(tfrecords, runs))
    assert done.returncode == EXIT_DONE, done.stderr
    assert rows_in(runs) == rows_in(swept)


def test_if_every_trial_was_refused_the_sweep_is(tfrecords: Path, tmp_path: Path) -> None:
    for trial in (0, 1):
        refused_run(tmp_path, trial)
    done = run_module("trainer.sweep", *sweep_command(tfrecords, tmp_path))
    assert done.returncode == EXIT_REQUEST
    assert "No trial succeeded. The last words of the first: The run in" in done.stderr
    for row in rows_in(tmp_path):
        assert "can't go on" in row["error"]
        assert row["error"].endswith("give another --run.")


@pytest.mark.long
def test_a_trial_that_was_killed_has_failed_and_is_tried_again(tfrecords: Path, tmp_path: Path) -> None:
    """As the kernel does for lack of memory."""
    for _ in range(2):
        sweep = Worker("trainer.sweep", *sweep_command(tfrecords, tmp_path, "--trial=0"))
        pid = sweep.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        until(children.read_text, 60, "a trial")
        os.kill(int(children.read_text()), signal.SIGKILL)
        assert sweep.code(60) == EXIT_FAULT, sweep.errors
        assert "Trial 0 of 2" in sweep.errors
        assert "Trial 0 has failed with exit code -9: ended by SIGKILL" in sweep.errors


# ── What takes longer ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
def test_halving_trains_all_briefly_and_the_best_to_the_end(tfrecords: Path, tmp_path: Path) -> None:
    halving = ("--method=halving", "--trials=3", "--epochs=3", "--min_epochs=1", "--search_seed=5")
    refused_run(tmp_path, 1, epochs=1)
    done = run_module("trainer.sweep", *sweep_command(tfrecords, tmp_path, *halving))
    assert done.returncode == EXIT_DONE, done.stderr
    rows = rows_in(tmp_path)
    assert [(row["trial"], row["epochs"], row["state"]) for row in rows[:3]] == [
        ("0", "1", "done"),
        ("1", "1", "failed"),
        ("2", "1", "done"),
    ]
    best = min((rows[0], rows[2]), key=lambda row: (-float(row["balanced_accuracy"]), float(row["log_loss"])))
    assert [(row["trial"], row["epochs"], row["trained_epochs"]) for row in rows[3:]] == [(best["trial"], "3", "3")]
    assert "--epochs=3\n" in (tmp_path / "gland" / NAME / "best.flags").read_text()


@pytest.mark.long
def test_processes_share_the_trials_and_train_each_once(tfrecords: Path, tmp_path: Path) -> None:
    both = [Worker("trainer.sweep", *sweep_command(tfrecords, tmp_path)) for _ in range(2)]
    assert [one.code(240) for one in both] == [EXIT_DONE] * 2, both[0].errors
    for trial in (0, 1):
        assert record_of(tmp_path, trial).with_suffix(".log").read_text().count("epoch   2/2 ") == 1
    assert [row["state"] for row in rows_in(tmp_path)] == ["done", "done"]


@pytest.mark.long
def test_in_a_bucket_each_machine_trains_a_trial_and_any_makes_the_table(
    bucket_server: BucketServer, tfrecords: Path, tmp_path: Path
) -> None:
    dataset = {path.relative_to(tfrecords).as_posix(): path for path in tfrecords.rglob("*") if path.is_file()}
    upload(bucket_server.folder("tfrecords"), dataset)
    command = [*sweep_command(Path(), Path()), f"--tfrecords=gs://{BUCKET}/tfrecords", f"--runs=gs://{BUCKET}/runs"]
    table = bucket_server.folder(f"runs/gland/{NAME}")
    for machine, more in enumerate(("--trial=1", "--trial=0", "--table_only")):
        done = run_module("trainer.sweep", *command, f"--scratch={tmp_path / str(machine)}", more, **bucket_server.env)
        assert done.returncode == EXIT_DONE, done.stderr
        assert (table.find("sweep.html") is None) == (machine == 0)
    assert done.stdout.splitlines()[-1] == f"Sweep: gs://{BUCKET}/runs/gland/{NAME}/sweep.html"
    rows = list(csv.DictReader(table.read("sweep.csv").decode().splitlines()))
    assert [(row["trial"], row["state"]) for row in rows] == [("0", "done"), ("1", "done")]
    assert f"--runs=gs://{BUCKET}/runs" in table.read("best.flags").decode().splitlines()


@pytest.mark.long
def test_a_trial_that_diverges_is_left_behind(tfrecords: Path, tmp_path: Path) -> None:
    """At a rate of 9.9, weights that decay by their whole are 8.9 times as long after each step."""
    decaying = ("--optimizer=adamw", "--weight_decay=1", "--search=learning_rate:choice:0.003,9.9")
    small = ("--model=seed_pooled", "--batch_size=2", "--epochs=1")
    done = run_module("trainer.sweep", *sweep_command(tfrecords, tmp_path)[:4], *small, *decaying)
    assert done.returncode == EXIT_DONE, done.stderr
    states = {row["learning_rate"]: (row["state"], row["error"]) for row in rows_in(tmp_path)}
    assert states["0.003"][0] == "done"
    assert states["9.9"][0] == "failed"
    assert "--learning_rate" in states["9.9"][1]
