"""What the train Job runs before training, as a real process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_pipeline import cli
from tests.bucket_server import BucketServer

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "k8s" / "base" / "wait_for_dataset.py"
SIGTERM_EXIT = 143
SOON_S = 60.0


@contextmanager
def _waiting(tfrecords: Path | str, organ: str, *, limit_s: float = SOON_S) -> Iterator[subprocess.Popen[str]]:
    """The process, once it has said its first word."""
    command = [sys.executable, "-u", str(SCRIPT), f"--organ={organ}", f"--tfrecords={tfrecords}"]
    command += [f"--limit_s={limit_s}", "--every_s=0.05"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # as in the image
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _seal(tfrecords: Path, organ: str) -> None:
    (tfrecords / organ).mkdir(parents=True)
    (tfrecords / organ / "manifest.json").write_text("{}", encoding="utf-8")


def test_it_ends_at_once_where_the_dataset_is_sealed(tmp_path: Path) -> None:
    _seal(tmp_path, "cervix")
    with _waiting(tmp_path, "cervix") as process:
        assert process.wait(SOON_S) == cli.EXIT_DONE


def test_it_waits_for_the_last_of_several_organs(tmp_path: Path) -> None:
    _seal(tmp_path, "cervix")
    with _waiting(tmp_path, "cervix,lung") as process:
        assert _first_line(process) == f"Waiting for {tmp_path}/lung/manifest.json"
        time.sleep(0.3)
        assert process.poll() is None
        _seal(tmp_path, "lung")
        assert process.wait(SOON_S) == cli.EXIT_DONE
        assert _first_line(process) == "Sealed: cervix, lung"


def test_a_dataset_that_never_comes_fails_the_job_and_says_where_to_look(tmp_path: Path) -> None:
    with _waiting(tmp_path, "cervix", limit_s=0.1) as process:
        _, errors = process.communicate(timeout=SOON_S)
    assert process.returncode == cli.EXIT_REQUEST
    assert f"Still no {tmp_path}/cervix/manifest.json after 0.1 s. To fix it: " in errors


def test_it_stops_when_its_pod_is_stopped(tmp_path: Path) -> None:
    with _waiting(tmp_path, "cervix") as process:
        _first_line(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SOON_S) == SIGTERM_EXIT


@pytest.mark.parametrize("organ", ["all", ""])
def test_organs_it_cannot_know_are_refused(tmp_path: Path, organ: str) -> None:
    with _waiting(tmp_path, organ) as process:
        _, errors = process.communicate(timeout=SOON_S)
    assert process.returncode == cli.EXIT_REQUEST
    assert "organ" in errors


def test_it_waits_for_a_dataset_in_a_bucket(bucket_server: BucketServer) -> None:
    with _waiting("gs://lab/tfrecords", "cervix") as process:
        assert _first_line(process) == "Waiting for gs://lab/tfrecords/cervix/manifest.json"
        bucket_server.folder("tfrecords").write("cervix/manifest.json", b"{}", generation=0)
        assert process.wait(SOON_S) == cli.EXIT_DONE
        assert _first_line(process) == "Sealed: cervix"


def test_a_bucket_that_is_not_there_fails_the_job(bucket_server: BucketServer) -> None:
    with _waiting("gs://nowhere/tfrecords", "cervix") as process:
        _, errors = process.communicate(timeout=SOON_S)
    assert process.returncode == cli.EXIT_REQUEST
    assert "nowhere" in errors
    assert "To fix it: " in errors
