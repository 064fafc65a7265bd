"""The program that predicts: how it streams, how it is stopped, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline import cli
from tests.conftest import ROOT, image_bytes, run_module
from tests.trainer.exported import CLASSES, photograph, telling_model
from tests.trainer.witness import Witness, assert_refused
from trainer.export import export, load_served
from trainer.predict import predict

SIZE = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(telling_model(SIZE), classes=CLASSES, image_size=SIZE, folder=folder)
    return folder


# ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Counted:
    """An image that counts how many of its kind were read."""

    read = 0
    lock = threading.Lock()
    data = image_bytes(1, size=SIZE)

    def read_bytes(self) -> bytes:
        with Counted.lock:
            Counted.read += 1
        return Counted.data


def test_no_more_is_read_than_the_batches_under_way(model: Path) -> None:
    Counted.read = 0
    rows = predict(load_served(model), [Counted() for _ in range(2000)], batch_size=8)
    for _ in range(100):
        next(rows)
    assert Counted.read < 100 + 8 * 6
    began = time.monotonic()
    rows.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 1


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A folder of more images than are predicted in a few seconds, as one file and links to it."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "0.jpg").write_bytes(photograph(256))
    for number in range(1, 6000):
        os.link(tmp_path / "new" / "0.jpg", tmp_path / "new" / f"{number}.jpg")
    return tmp_path / "new"


@pytest.fixture
def under_way(model: Path, many: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that has written rows to a file which isn't complete yet."""
    out = many.parent / "out.csv"
    out.write_text("of last time")
    command = [sys.executable, "-m", "trainer.predict", f"--model={model}", f"--output={out}", "--batch_size=8", many]
    with subprocess.Popen(list(map(str, command)), cwd=ROOT, text=True, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size for path in many.parent.glob(".out.csv.*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
        process.kill()


def test_sigterm_ends_it_within_a_second_and_leaves_nothing_half_written(
    under_way: "subprocess.Popen[str]", many: Path
) -> None:
    began = time.monotonic()
    under_way.send_signal(signal.SIGTERM)
    _, errors = under_way.communicate(timeout=30)
    assert under_way.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1
    assert "Stopped by SIGTERM" in errors
    assert "Traceback" not in errors
    assert sorted(path.name for path in many.parent.iterdir()) == ["new", "out.csv"]
    assert (many.parent / "out.csv").read_text() == "of last time"


def test_rows_that_nobody_reads_any_more_are_no_error_of_ours(model: Path, many: Path) -> None:
    command = [sys.executable, "-m", "trainer.predict", f"--model={model}", "--format=jsonl", str(many)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert set(json.loads(process.stdout.readline())["probabilities"]) == set(CLASSES)
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == cli.EXIT_FAULT


# ── Requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────

WRONG = (
    (["--top_k=0"], "top_k"),
    (["--top_k=many"], "top_k"),
    (["--batch_size=0"], "batch_size"),
    (["--format=xml"], "jsonl"),
    (["--threshold=1.5"], "`--threshold`"),
    (["--threshold=nan"], "`--threshold`"),
    (["--threshold=sure"], "`--threshold`"),
    (["--group_by=slide"], "`--group_by`"),
    (["--group_by=regex:(lost)"], "`--group_by`"),
    (["--group_by=csv:/proc/nowhere"], "`--group_by`"),
    (["--group_output={folder}/g.csv"], "`--group_output`"),
    (["--group_output={folder}", "--group_by=regex:(c)"], "`--group_output`"),
    (["--group_output={folder}/o", "--output={folder}/o", "--group_by=regex:(c)"], "`--group_output`"),
)


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    with Witness("trainer.predict") as running:
        yield running


@pytest.mark.parametrize(("arguments", "says"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_request_is_refused_before_tensorflow_is_imported(
    witness: Witness, tmp_path: Path, arguments: list[str], says: str
) -> None:
    image = tmp_path / "cell.png"
    image.write_bytes(image_bytes(1))
    given = [text.format(folder=tmp_path) for text in arguments]
    outcome = witness.run("trainer.predict", "--model=m", *given, str(image))
    assert_refused(outcome, says)
    assert list(tmp_path.iterdir()) == [image]


def test_help_teaches_with_examples() -> None:
    done = run_module("trainer.predict", "--help")
    assert done.returncode == 0
    for text in ("--output=out.csv --top_k=3", "--group_by", "--threshold", "Exit codes", "--batch_size"):
        assert text in done.stdout
